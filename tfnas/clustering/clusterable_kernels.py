"""The kernels of a model that can be clustered, and the channels of each.

Channels are those that an integer file gives scales of their own: output channels; a depthwise
kernel's are its last two axes.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tfnas.graph.functional import Skipped
from tfnas.graph.layer_kernels import ModelKernel, model_kernels

LAYER, CHANNEL = "layer", "channel"
GRANULARITIES = (LAYER, CHANNEL)
_TRANSPOSED = ("Conv1DTranspose", "Conv2DTranspose", "Conv3DTranspose")


class ClusterableKernel(ModelKernel):
    """One kernel of a model, with its channels."""

    @property
    def channel_axes(self) -> tuple[int, ...]:
        """The axes that count channels."""
        last = len(self.shape) - 1
        if self.depthwise:
            return last - 1, last
        return (last - 1,) if self.kind in _TRANSPOSED else (last,)

    def axes(self, granularity: str) -> tuple[int, ...]:
        """The axes along which each index has clusters of its own."""
        return self.channel_axes if granularity == CHANNEL else ()

    def groups(self, array: np.ndarray, granularity: str) -> np.ndarray:
        """Returns an array of the kernel's shape as (groups, n): a row shares its values."""
        axes = self.axes(granularity)
        count = math.prod(self.shape[axis] for axis in axes)
        return np.moveaxis(array, axes, range(len(axes))).reshape(count, -1)

    def from_groups(self, array: np.ndarray, granularity: str) -> np.ndarray:
        """Returns an array of (groups, n) in the kernel's shape."""
        axes = self.axes(granularity)
        rest = [n for axis, n in enumerate(self.shape) if axis not in axes]
        turned = array.reshape([*(self.shape[axis] for axis in axes), *rest])
        return np.ascontiguousarray(np.moveaxis(turned, range(len(axes)), axes))


def find_kernels(
    model: Any, embeddings: bool = False
) -> tuple[list[ClusterableKernel], list[Skipped]]:
    """Returns the kernels of a model, and the layers with weights that have none, and why.

    Args:
        model: A built Keras 3 model.
        embeddings: Whether tables of embeddings are among them.

    Raises:
        ValueError: The model is no Keras model, or is not built.
    """
    found, skipped = model_kernels(model, embeddings)
    return [ClusterableKernel(k.name, k.path, k.layer, k.variable) for k in found], skipped
