"""Rules of reshapes: each element keeps its channel id.

A reshape may split a channel axis into several, as a Dense layer of heads x values. The channels
are then those along one of the new axes, for all positions of the others at once. Which axis is
best depends on the rest of the model: :func:`tfnas.pruning.structured.channel_groups.trace` tries
them.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from tfnas.graph.functional import Call
from tfnas.pruning.structured.channel_ids import ONLY_CHANNEL, Channels
from tfnas.pruning.structured.channel_trace import ChannelTrace, Kept, Rule

_MAX_ELEMENTS = 20_000_000
Shape = Sequence[int | None]


@dataclasses.dataclass(frozen=True, eq=False)
class Reshaped:
    """The channel ids of the elements of a tensor after a reshape.

    Args:
        first: The first axis of the block that the elements fill.
        elements: Their ids, of the sizes of the last axes of the tensor; 1 along axes where the
            ids do not change.
    """

    first: int
    elements: np.ndarray

    @property
    def axes(self) -> list[int]:
        """The axes along which the channel ids change, the last first."""
        sizes = self.elements.shape
        return [self.first + axis for axis in reversed(range(len(sizes))) if sizes[axis] > 1]

    def rows(self, axis: int) -> np.ndarray:
        """Returns the ids along an axis, (positions of all other axes, size of the axis).

        Args:
            axis: The axis, counted with the batch.
        """
        moved = np.moveaxis(self.elements, axis - self.first, -1)
        return moved.reshape(-1, moved.shape[-1])


def reshaped(ids: np.ndarray, axis: int, before: Shape, after: Shape) -> Reshaped | None:
    """Returns the channels after a reshape; None where the sizes are unknown.

    Example:
        >>> feature_maps = np.array([7, 8])
        >>> reshaped(feature_maps, 3, (None, 1, 2, 2), (None, 4)).rows(1)
        array([[7, 8, 7, 8]])

    Args:
        ids: Channel ids along one axis before.
        axis: The axis.
        before: The shape before, with the batch.
        after: The shape after, with the batch.
    """
    for start in range(axis, 0, -1):
        old = before[start:]
        if None in old or math.prod(old) > _MAX_ELEMENTS:  # type: ignore[arg-type]
            return None
        for first in range(len(after) - 1, 0, -1):
            new = after[first:]
            if None in new or math.prod(new) > math.prod(old):  # type: ignore[arg-type]
                break
            if math.prod(new) == math.prod(old):  # type: ignore[arg-type]
                row = [1] * len(old)
                row[axis - start] = -1
                full = np.broadcast_to(ids.reshape(row), old).reshape(new)  # type: ignore[arg-type]
                return Reshaped(first, _without_repetition(full))
    return None


def _without_repetition(full: np.ndarray) -> np.ndarray:
    """The array with size 1 along the axes where it is constant."""
    for axis in range(full.ndim):
        first = full.take([0], axis)
        full = first if (full == first).all() else full
    return full


def _apply(
    trace: ChannelTrace, call: Call, known: Channels, before: Shape, after: Shape
) -> list[Channels]:
    """The channels of a reshape of all channel axes."""
    found: dict[int, np.ndarray] = {}
    for axis, ids in known.axes.items():
        result = reshaped(ids, axis, before, after)
        if result is None:
            trace.ids.lock(ids, f"{call.kind} {call.name!r} has an unknown size")
            continue
        options = [each for each in result.axes if each not in found]
        if not options:
            if result.axes:
                trace.ids.lock(ids, f"{call.kind} {call.name!r} mixes it with other channels")
            else:  # one channel
                _single(trace, ids, result.first, after, found)
            continue
        where = options[0]
        if len(result.axes) > 1:
            where = trace.choose(call, options)
            where = where if where in options else options[0]
        rows = result.rows(where)
        for row in rows[1:]:
            trace.ids.join(rows[0], row)
        found[where] = rows[0]
    if any(len(ids) != after[axis] for axis, ids in found.items()):
        return trace.opaque(call, f"{call.kind} {call.name!r} repeats its channels")
    return [Channels(found)]


def _single(
    trace: ChannelTrace, ids: np.ndarray, first: int, after: Shape, found: dict[int, np.ndarray]
) -> None:
    """A single channel, repeated: it stays on an axis of size 1, or it is locked."""
    free = [a for a in range(first, len(after)) if after[a] == 1 and a not in found]
    if free and len(ids) == 1:
        found[free[-1]] = ids
    else:
        trace.ids.lock(ids, ONLY_CHANNEL)


def _reshape(trace: ChannelTrace, call: Call) -> list[Channels]:
    value, after = call.inputs[0], call.outputs[0].shape
    outputs = _apply(trace, call, trace.known(value), value.shape, after)
    if outputs[0].axes:
        trace.rewrites[call] = _to_the_kept_sizes(call, outputs[0])
    return outputs


def _to_the_kept_sizes(call: Call, found: Channels) -> Any:
    """A reshape to the number of channels that are kept."""
    operation = call.operation
    is_layer = hasattr(operation, "target_shape")
    shape = (-1, *operation.target_shape) if is_layer else tuple(operation.newshape)

    def rewrite(tensors: Sequence[Any], kept: Kept) -> Sequence[Any]:
        import keras

        target = list(shape)
        for axis, ids in found.axes.items():
            target[axis] = int(kept(ids).sum())
        if is_layer:
            return [keras.layers.Reshape(tuple(target[1:]))(tensors[0])]
        return [keras.ops.reshape(tensors[0], tuple(target))]

    return rewrite


def _flatten(trace: ChannelTrace, call: Call) -> list[Channels]:
    value, known, shape = call.inputs[0], trace.known(call.inputs[0]), call.inputs[0].shape
    if call.operation.data_format == "channels_first":
        order = [0, *range(2, len(shape)), *([1] if len(shape) > 1 else [])]
        known = known.moved({old: new for new, old in enumerate(order)})
        shape = tuple(shape[axis] for axis in order)
    if len(value.shape) == 1:
        return [Channels()]
    return _apply(trace, call, known, shape, call.outputs[0].shape)


def _depth_to_space(trace: ChannelTrace, call: Call) -> list[Channels]:
    """Channels (block, block, channels) become places: those of all places go together."""
    value, block = call.inputs[0], int(call.operation.block_size)
    axis = 1 if call.operation.data_format == "channels_first" else 3
    ids = trace.only(value, axis, f"{call.kind} {call.name!r} mixes it with places")
    if axis == 1:  # order of the channels: (channels, block, block) or (block, block, channels)
        return trace.opaque(call, f"{call.kind} {call.name!r} has channels first")
    rows = ids.reshape(block * block, -1)
    for row in rows[1:]:
        trace.ids.join(rows[0], row)
    return [Channels({axis: rows[0]})]


def _space_to_depth(trace: ChannelTrace, call: Call) -> list[Channels]:
    value, block = call.inputs[0], int(call.operation.block_size)
    if call.operation.data_format == "channels_first":
        return trace.opaque(call, f"{call.kind} {call.name!r} has channels first")
    ids = trace.only(value, 3, f"{call.kind} {call.name!r} mixes it with channels")
    return [Channels({3: np.tile(ids, block * block)})]


RESHAPE_RULES: dict[str, Rule] = {
    "Reshape": _reshape,
    "Flatten": _flatten,
    "DepthToSpace": _depth_to_space,
    "SpaceToDepth": _space_to_depth,
}
