"""Factors of channels: a layer divides its outputs by them, the layers that read them multiply.

The model computes the same numbers, while those between the layers, and the kernels, have other
ranges: :mod:`tfnas.quantization.weight_equalization` and
:mod:`tfnas.quantization.smooth_activations` choose the factors.
"""

from __future__ import annotations

import dataclasses
import inspect
from typing import Any

import numpy as np

from tfnas.graph.functional import Call, Skipped, Value
from tfnas.graph.kernel_state import kernel_compression
from tfnas.keras_private import attention_projections
from tfnas.quantization.einsum_axes import dense_axes

_CONVOLUTIONS = ("Conv1D", "Conv2D", "DepthwiseConv1D", "DepthwiseConv2D")
ATTENTION = ("MultiHeadAttention", "GroupedQueryAttention")
CHANNEL_LAYERS = ("Dense", *_CONVOLUTIONS)


@dataclasses.dataclass(frozen=True)
class ScaledChannels:
    """Channels between a layer and those that read it.

    Args:
        source: Name of the layer whose outputs were divided.
        readers: Names of the layers that multiply by the factors again: by their kernels, or a
            Rescaling before a residual sum.
        least: The smallest factor.
        most: The largest factor.
    """

    source: str
    readers: tuple[str, ...]
    least: float
    most: float


@dataclasses.dataclass(frozen=True)
class ScalingReport:
    """What was scaled and what was not.

    Args:
        scaled: The layers whose channels were scaled, in the order of execution.
        skipped: The others that might have been, with reasons.
    """

    scaled: tuple[ScaledChannels, ...]
    skipped: tuple[Skipped, ...]


class NotScalable(Exception):
    """Channels can't be scaled; the text says why."""


class Weights:
    """Arrays in place of a model's variables, until they are written back."""

    def __init__(self) -> None:
        self._arrays: dict[int, tuple[Any, np.ndarray]] = {}

    def of(self, variable: Any) -> np.ndarray:
        """Returns the float64 array of a variable, which may be changed in place."""
        if id(variable) not in self._arrays:
            self._arrays[id(variable)] = variable, np.asarray(variable, np.float64).copy()
        return self._arrays[id(variable)][1]

    def write(self) -> None:
        """Assigns the arrays to their variables."""
        for variable, array in self._arrays.values():
            variable.assign(array.astype(variable.dtype))


@dataclasses.dataclass(frozen=True, eq=False)
class ChannelAxis:
    """The axis of a weight that belongs to the channels of a tensor.

    Args:
        variable: The weight.
        axis: The axis. It has the channels in their order, perhaps several times one after the
            other, as behind a Flatten.
        channels: Number of channels.
    """

    variable: Any
    axis: int
    channels: int

    def _rows(self, weights: Weights) -> np.ndarray:
        moved = np.moveaxis(weights.of(self.variable), self.axis, 0)
        if len(moved) % self.channels:
            raise NotScalable("its kernel has another number of channels")
        return moved

    def largest(self, weights: Weights) -> np.ndarray:
        """Returns the largest magnitude in each channel, (channels,)."""
        rows = np.abs(self._rows(weights))
        return rows.reshape(-1, self.channels, rows[0].size).max(axis=(0, 2))

    def multiply(self, weights: Weights, factors: np.ndarray) -> None:
        """Multiplies each channel by its factor, (channels,)."""
        rows = self._rows(weights)
        repeated = np.tile(factors, len(rows) // self.channels)
        rows *= repeated.reshape(-1, *[1] * (rows.ndim - 1))


def channels_of(value: Value) -> int:
    """Returns the size of a tensor's last axis.

    Args:
        value: The tensor.

    Raises:
        NotScalable: The model leaves it open.
    """
    if value.shape[-1] is None:
        raise NotScalable("its number of channels is open")
    return value.shape[-1]


def input_axes(call: Call, value: Value, channels: int) -> list[ChannelAxis]:
    """Returns the kernels of a call that read a tensor, by the axis of its channels.

    Args:
        call: The call.
        value: One of its inputs, whose last axis has the channels.
        channels: Their number.

    Raises:
        NotScalable: It reads them otherwise than by a kernel.
    """
    layer = call.operation
    if call.kind in ATTENTION:
        return [
            *(_axis_of_einsum(projection, channels) for projection in _projections_of(call, value))
        ]
    if call.kind == "Dense":
        found = ChannelAxis(layer.kernel, 0, channels)
    elif call.kind == "EinsumDense":
        found = _axis_of_einsum(layer, channels)
    elif call.kind in _CONVOLUTIONS:
        if getattr(layer, "groups", 1) != 1 or layer.data_format != "channels_last":
            raise NotScalable(f"{call.name} has groups, or channels first")
        found = ChannelAxis(layer.kernel, -2, channels)
    else:
        raise NotScalable(f"{call.name} ({call.kind}) reads its output")
    return [unclustered(found, call.name)]


def unclustered(found: ChannelAxis, name: str) -> ChannelAxis:
    """Returns an axis of a kernel that is not clustered.

    Args:
        found: The axis.
        name: Name of the kernel's layer.

    Raises:
        NotScalable: The kernel has few values, which factors would make many.
    """
    if kernel_compression(np.asarray(found.variable)) == "clusters":
        raise NotScalable(f"the kernel of {name} is clustered")
    return found


def _axis_of_einsum(layer: Any, channels: int) -> ChannelAxis:
    product = dense_axes(layer)
    if product is None or product.first[-1] not in product.summed:
        raise NotScalable(f"{layer.name} does not sum over the last axis alone")
    axis = product.second.index(product.first[-1])
    return unclustered(ChannelAxis(layer.kernel, axis, channels), layer.name)


def _projections_of(call: Call, value: Value) -> list[Any]:
    """The projections of an attention layer that read a tensor."""
    args, kwargs = call.arguments(call.inputs)
    given = inspect.signature(call.operation.call).bind_partial(*args, **kwargs).arguments
    given = {"key": given.get("value"), **{k: v for k, v in given.items() if v is not None}}
    projections = attention_projections(call.operation)
    names = [name for name in ("query", "key", "value") if given.get(name) is value]
    if sum(given.get(name) is value for name in given) > len(names):
        raise NotScalable(f"{call.name} reads its output otherwise than by a projection")
    if projections.get("gate") is not None and "query" in names:
        names.append("gate")
    return [projections[name] for name in names]
