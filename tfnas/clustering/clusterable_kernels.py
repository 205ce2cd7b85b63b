"""The kernels of a model that can be clustered, and the channels of each.

Channels are the axes with a scale per index in an integer file: the output channels, or the
last two axes of a depthwise kernel.
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
SINGLE_KERNEL_LAYERS = (
    "Dense",
    "Conv1D",
    "Conv2D",
    "Conv3D",
    "DepthwiseConv1D",
    "DepthwiseConv2D",
    "Conv1DTranspose",
    "Conv2DTranspose",
    "Conv3DTranspose",
)


class ClusterableKernel(ModelKernel):
    """One kernel of a model with its channel axes."""

    @property
    def channel_axes(self) -> tuple[int, ...]:
        """Returns the channel axes."""
        last = len(self.shape) - 1
        if self.registered_axis is not None:
            return (self.registered_axis,)
        if self.depthwise:
            return last - 1, last
        return (last - 1,) if self.kind in _TRANSPOSED else (last,)

    def axes(self, granularity: str) -> tuple[int, ...]:
        """Returns the axes along which each index has its own clusters.

        Args:
            granularity: "layer" or "channel".
        """
        return self.channel_axes if granularity == CHANNEL else ()

    def groups(self, array: np.ndarray, granularity: str) -> np.ndarray:
        """Returns an array of the kernel's shape as (groups, n); clusters are per group.

        Args:
            array: Weights or their labels, of the kernel's shape.
            granularity: "layer" (one group) or "channel" (one per output channel).
        """
        axes = self.axes(granularity)
        count = math.prod(self.shape[axis] for axis in axes)
        return np.moveaxis(array, axes, range(len(axes))).reshape(count, -1)

    def from_groups(self, array: np.ndarray, granularity: str) -> np.ndarray:
        """Returns an array of (groups, n) in the kernel's shape.

        Args:
            array: The array, (groups, n), as from :meth:`groups`.
            granularity: "layer" or "channel".
        """
        axes = self.axes(granularity)
        rest = [n for axis, n in enumerate(self.shape) if axis not in axes]
        turned = array.reshape([*(self.shape[axis] for axis in axes), *rest])
        return np.ascontiguousarray(np.moveaxis(turned, range(len(axes)), axes))


def find_kernels(
    model: Any, embeddings: bool = False
) -> tuple[list[ClusterableKernel], list[Skipped]]:
    """Returns the kernels of a model, and its layers with weights but no kernel.

    Args:
        model: A built Keras 3 model.
        embeddings: Whether the tables of Embedding layers are included.

    Raises:
        ValueError: The model is not a built Keras model.
    """
    found, skipped = model_kernels(model, embeddings)
    return [ClusterableKernel(k.name, k.path, k.layer, k.variable) for k in found], skipped
