"""The state of a trace of channels through a model: channel ids, values and weights.

The rules of :mod:`tfnas.pruning.structured.layer_rules` read and write it, call by call.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from tfnas.graph.functional import Call, Value, Walk
from tfnas.pruning.structured.channel_ids import ChannelIds, Channels

if TYPE_CHECKING:
    import keras


@dataclasses.dataclass(eq=False)
class ChannelWeight:
    """A weight with the channel ids along its axes.

    Args:
        variable: The weight.
        axes: Maps an axis to its channel ids, (size of the axis,).
        role: "kernel" for a kernel, "scale" for the gamma of a normalization, "other" for
            all others.
        output_axis: The axis of the output channels that the layer creates; None: it creates
            none, as a depthwise kernel.
        positions: For a kernel: number of output positions that it is applied at, summed
            over all calls of the layer.
    """

    variable: keras.Variable
    axes: dict[int, np.ndarray]
    role: str = "other"
    output_axis: int | None = None
    positions: int = 0

    @property
    def name(self) -> str:
        """Returns the variable's path."""
        return str(self.variable.path)

    @property
    def shape(self) -> tuple[int, ...]:
        """Returns the variable's shape."""
        return tuple(self.variable.shape)


@dataclasses.dataclass(frozen=True, eq=False)
class ChannelLayer:
    """A layer or operation with the weights and arguments that depend on channels.

    Args:
        path: The layer's path.
        layer: The layer or operation.
        weights: Its weights that depend on channels.
        sizes: Maps an argument of the layer's configuration, such as "filters", to the
            channel ids that it counts.
    """

    path: str
    layer: keras.Operation
    weights: list[ChannelWeight]
    sizes: dict[str, np.ndarray]


class ChannelTrace:
    """What is known of the channels so far, while the calls of a model are traced.

    Args:
        flow: The model's calls.
    """

    def __init__(self, flow: Walk) -> None:
        self.flow = flow
        self.ids = ChannelIds()
        self.values: dict[Value, Channels | None] = {}
        self.layers: dict[int, ChannelLayer] = {}

    def channels(self, value: Value, axis: int | None = None, reason: str = "") -> Channels:
        """Returns the channels of a value along an axis (the last by default).

        If they are unknown or run along another axis, the known ones are locked, and new
        locked channel ids are returned.

        Args:
            value: The value.
            axis: The channel axis, counted with the batch.
            reason: Why the channels are locked in that case.
        """
        requested = (len(value.shape) - 1 if axis is None else axis) % len(value.shape)
        known = self.values.get(value)
        if known is not None and known.axis == requested:
            return known
        why = reason or "its channels are not along the axis that the next layer takes"
        self.lock(value, why)
        return self._locked(value, requested, why)

    def lock(self, value: Value, reason: str) -> None:
        """Locks the known channels of a value: they are not pruned.

        Args:
            value: The value.
            reason: Why they have to stay.
        """
        known = self.values.get(value)
        if known is not None:
            self.ids.lock(known.ids, reason)

    def opaque(self, call: Call, reason: str) -> list[Channels | None]:
        """Locks the channels of a call's inputs, and returns new locked channels for its outputs.

        Args:
            call: The call.
            reason: Why the channels have to stay.

        Returns:
            The channels of each output, None where they are unknown.
        """
        for value in call.inputs:
            self.lock(value, reason)
        return [self._fixed(value, reason) for value in call.outputs]

    def fixed_input(self, value: Value) -> None:
        """Gives an input of the model new channels, which are locked.

        Args:
            value: The input, (batch, ..., channels).
        """
        self.values[value] = self._fixed(value, "it is the model's input")

    def layer(self, call: Call) -> tuple[ChannelLayer, bool]:
        """Returns the record of a call's layer, and whether this is the layer's first call.

        Args:
            call: The call.
        """
        key = id(call.operation)
        first = key not in self.layers
        if first:
            self.layers[key] = ChannelLayer(call.name, call.operation, [], {})
        return self.layers[key], first

    def _fixed(self, value: Value, reason: str) -> Channels | None:
        if len(value.shape) < 2 or value.shape[-1] is None:
            return None
        return self._locked(value, len(value.shape) - 1, reason)

    def _locked(self, value: Value, axis: int, reason: str) -> Channels:
        size = value.shape[axis]
        if size is None:
            raise ValueError(f"model must have channel axes of known size, got {value.shape}")
        ids = self.ids.new(size, "")
        self.ids.lock(ids, reason)
        return Channels(axis, ids)


Rule = Callable[[ChannelTrace, Call], list[Channels | None]]


def channel_axis(call: Call, rank: int) -> int:
    """Returns the channel axis of a layer's tensors, counted with the batch.

    Args:
        call: A call of the layer.
        rank: Number of axes of the tensor, with the batch.
    """
    first = getattr(call.operation, "data_format", "channels_last") == "channels_first"
    return 1 if first else rank - 1
