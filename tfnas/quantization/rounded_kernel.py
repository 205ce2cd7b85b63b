"""A layer's kernel, as :mod:`tfnas.pruning.input_moments` takes it."""

from __future__ import annotations

import dataclasses
from typing import Any

import keras


@dataclasses.dataclass(frozen=True)
class RoundedKernel:
    """The kernel of a layer that is rounded.

    Args:
        layer: The layer.
    """

    layer: Any

    @property
    def depthwise(self) -> bool:
        """Whether each row has its own inputs."""
        return isinstance(self.layer, keras.layers.DepthwiseConv2D)

    @property
    def name(self) -> str:
        """The layer's name."""
        return str(self.layer.name)

    @property
    def variable(self) -> Any:
        """The layer's kernel."""
        return self.layer.kernel
