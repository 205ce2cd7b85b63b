"""Rules of operations that take parts of an axis, or repeat it: slices, splits, repetitions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tfnas.graph.call_arguments import named_arguments
from tfnas.graph.functional import Call
from tfnas.pruning.structured.axis_rules import without_axes
from tfnas.pruning.structured.channel_ids import Channels
from tfnas.pruning.structured.channel_trace import ChannelTrace, Kept, Rewrite, Rule, axes_of


def _get_item(trace: ChannelTrace, call: Call) -> list[Channels]:
    """A slice: of places it keeps the channels, of channels it keeps a part."""
    value, rank = call.inputs[0], len(call.inputs[0].shape)
    key = named_arguments(call).get("key")
    parts = _parts(key if isinstance(key, tuple) else (key,), rank)
    if parts is None or len(call.inputs) > 1:
        return trace.opaque(call, f"{call.kind} {call.name!r} selects by values")
    known, found, new, old = trace.known(value), {}, 0, 0
    for part in parts:
        if part is None:
            new += 1
            continue
        ids = known.axes.get(old)
        if isinstance(part, slice):
            if ids is not None:
                found[new] = ids[part]
            new += 1
        elif ids is not None:
            trace.ids.lock(ids[[part]], f"{call.kind} {call.name!r} takes it alone")
        old += 1
    if any(not len(ids) for ids in found.values()):
        return trace.opaque(call, f"{call.kind} {call.name!r} takes nothing")
    if any(axis in known.axes for axis, part in enumerate(_real(parts)) if part != slice(None)):
        trace.rewrites[call] = _sliced_again(parts, known)
    return [Channels(found)]


def _parts(key: tuple[Any, ...], rank: int) -> list[Any] | None:
    """One part for each axis, and None for each new axis; None if it holds arrays."""
    whole = [part for part in key if part is not None and part is not Ellipsis]
    if not all(isinstance(part, slice | int | np.integer) for part in whole):
        return None
    missing = [slice(None)] * (rank - len(whole))
    places = [i for i, part in enumerate(key) if part is Ellipsis]
    where = places[0] if places else len(key)
    return [*key[:where], *missing, *key[where + 1 :]]


def _real(parts: Sequence[Any]) -> list[Any]:
    return [part for part in parts if part is not None]


def _sliced_again(parts: Sequence[Any], known: Channels) -> Rewrite:
    def rewrite(tensors: Sequence[Any], kept: Kept) -> Sequence[Any]:
        [tensor] = tensors
        key: list[Any] = []
        axis = 0
        for part in parts:
            if part is None:
                key.append(None)
                continue
            ids = known.axes.get(axis)
            if ids is not None and part != slice(None):
                staying = np.flatnonzero(kept(ids))
                chosen = np.arange(len(ids))[part]
                again = np.searchsorted(staying, chosen[np.isin(chosen, staying)])
                if isinstance(part, slice):
                    tensor, part = taken(tensor, axis, again), slice(None)
                else:
                    part = int(np.searchsorted(staying, chosen))
            key.append(part)
            axis += 1
        plain = all(isinstance(part, slice) and part == slice(None) for part in key)
        return [tensor if plain else tensor[tuple(key)]]

    return rewrite


def taken(tensor: Any, axis: int, positions: np.ndarray) -> Any:
    """Returns positions of an axis of a symbolic tensor: a slice where it can be one.

    Args:
        tensor: The tensor.
        axis: The axis.
        positions: The positions, in their order.
    """
    import keras

    first, last = int(positions[0]), int(positions[-1])
    if (np.diff(positions) == 1).all():
        if len(positions) == tensor.shape[axis]:
            return tensor
        return tensor[(slice(None),) * axis + (slice(first, last + 1),)]
    return keras.ops.take(tensor, positions.tolist(), axis=axis)


def _selected(
    trace: ChannelTrace, call: Call, axis: int, positions: Sequence[np.ndarray]
) -> list[Channels]:
    """The channels of outputs that are positions of one axis, and their rewriting."""
    known = trace.known(call.inputs[0])
    ids = known.axes.get(axis)
    if ids is None:
        return [known for _ in positions]

    def rewrite(tensors: Sequence[Any], kept: Kept) -> Sequence[Any]:
        staying = kept(ids)
        number = np.cumsum(staying) - 1
        parts = [number[each[staying[each]]] for each in positions]
        if len(parts) > 1 and (np.diff(np.concatenate(parts)) == 1).all():
            import keras

            ends = np.cumsum([len(part) for part in parts])
            return list(keras.ops.split(tensors[0], ends[:-1].tolist(), axis=axis))
        return [taken(tensors[0], axis, part) for part in parts]

    trace.rewrites[call] = rewrite
    return [Channels({**known.axes, axis: ids[each]}) for each in positions]


def _split(trace: ChannelTrace, call: Call) -> list[Channels]:
    value, operation = call.inputs[0], call.operation
    axis, sections = int(operation.axis) % len(value.shape), operation.indices_or_sections
    size = value.shape[axis]
    if size is None:  # so that it holds places
        return [trace.known(value) for _ in call.outputs]
    parts = sections if isinstance(sections, int) else [int(each) for each in sections]
    return _selected(trace, call, axis, np.split(np.arange(size), parts))


def _unstack(trace: ChannelTrace, call: Call) -> list[Channels]:
    reason = f"{call.kind} {call.name!r} takes each of its channels alone"
    found = without_axes(trace, call, [int(call.operation.axis)], reason)
    return [found for _ in call.outputs]


def _take(trace: ChannelTrace, call: Call) -> list[Channels]:
    value, axis = call.inputs[0], call.operation.axis
    indices = named_arguments(call).get("indices")
    if len(call.inputs) > 1 or axis is None:
        return trace.opaque(call, f"{call.kind} {call.name!r} selects by values")
    axis, chosen = int(axis) % len(value.shape), np.asarray(indices)
    if chosen.ndim == 0:
        reason = f"{call.kind} {call.name!r} takes one of its channels"
        return [without_axes(trace, call, [axis], reason)]
    if chosen.ndim > 1:
        return trace.opaque(call, f"{call.kind} {call.name!r} selects by a table")
    size = value.shape[axis]
    return _selected(trace, call, axis, [chosen if size is None else chosen % size])


def _flip(trace: ChannelTrace, call: Call) -> list[Channels]:
    rank, axes = len(call.inputs[0].shape), call.operation.axis
    if axes is None:
        return trace.opaque(call, f"{call.kind} {call.name!r} reverses the batch axis")
    over = axes_of(axes, rank)
    known = trace.known(call.inputs[0]).axes
    return [Channels({a: ids[::-1] if a in over else ids for a, ids in known.items()})]


def _roll(trace: ChannelTrace, call: Call) -> list[Channels]:
    value, axes, shifts = call.inputs[0], call.operation.axis, call.operation.shift
    if axes is None:
        return trace.opaque(call, f"{call.kind} {call.name!r} moves the batch axis")
    pairs = [(axes, shifts)] if isinstance(axes, int) else list(zip(axes, shifts, strict=True))
    known = trace.known(value)
    over = [(int(a) % len(value.shape), int(s)) for a, s in pairs]
    channels = [(axis, shift) for axis, shift in over if axis in known.axes]
    if not channels:
        return [known]
    if len(over) > 1:
        reason = f"{call.kind} {call.name!r} moves channels and places"
        trace.lock(value, reason, [axis for axis, _ in channels])
        rolled = {axis: np.roll(known.axes[axis], shift) for axis, shift in channels}
        return [Channels({**known.axes, **rolled})]
    [(axis, shift)] = channels
    return _selected(trace, call, axis, [np.roll(np.arange(len(known.axes[axis])), shift)])


def _repeat(trace: ChannelTrace, call: Call) -> list[Channels]:
    value, axis, count = call.inputs[0], call.operation.axis, call.operation.repeats
    if axis is None or not isinstance(count, int):
        return trace.opaque(call, f"{call.kind} {call.name!r} repeats by values")
    where, known = int(axis) % len(value.shape), trace.known(value).axes
    return [Channels({a: np.repeat(x, count) if a == where else x for a, x in known.items()})]


def _tile(trace: ChannelTrace, call: Call) -> list[Channels]:
    value, counts = call.inputs[0], call.operation.repeats
    repeats = [counts] if isinstance(counts, int) else list(counts)
    rank = len(value.shape)
    if len(repeats) > rank:
        return trace.opaque(call, f"{call.kind} {call.name!r} adds axes")
    each = [1] * (rank - len(repeats)) + repeats
    known = trace.known(value).axes
    return [Channels({axis: np.tile(ids, int(each[axis])) for axis, ids in known.items()})]


def _repeat_vector(trace: ChannelTrace, call: Call) -> list[Channels]:
    return [trace.known(call.inputs[0]).moved({1: 2})]


SELECTION_RULES: dict[str, Rule] = {
    "GetItem": _get_item,
    "Split": _split,
    "Unstack": _unstack,
    "Take": _take,
    "Flip": _flip,
    "Roll": _roll,
    "Repeat": _repeat,
    "Tile": _tile,
    "RepeatVector": _repeat_vector,
}
