"""Rules of layers that reduce, move, add or remove axes, or join tensors along one."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from tfnas.graph.functional import Call
from tfnas.pruning.structured.channel_ids import Channels
from tfnas.pruning.structured.channel_trace import ChannelTrace, Rule, axes_of, channel_axis

_IMAGES = {
    "Resizing",
    "Resize",
    "RandomFlip",
    "RandomTranslation",
    "RandomRotation",
    "RandomZoom",
}


def _pooling(trace: ChannelTrace, call: Call) -> list[Channels]:
    """Pooling and resizing, over all axes but the channel axis."""
    axis = channel_axis(call, len(call.inputs[0].shape))
    reason = f"{call.kind} {call.name!r} computes over it as over places"
    return [Channels({axis: trace.only(call.inputs[0], axis, reason)})]


def _global_pooling(trace: ChannelTrace, call: Call) -> list[Channels]:
    axis = channel_axis(call, len(call.inputs[0].shape))
    reason = f"{call.kind} {call.name!r} reduces it as places"
    ids = trace.only(call.inputs[0], axis, reason)
    keep = getattr(call.operation, "keepdims", False)
    return [Channels({axis if keep else 1: ids})]


def _concatenate(trace: ChannelTrace, call: Call) -> list[Channels]:
    rank = len(call.outputs[0].shape)
    joined = int(getattr(call.operation, "axis", -1)) % rank
    known = [trace.known(value).axes for value in call.inputs]
    reason = f"{call.kind} {call.name!r}"
    found = {}
    for axis in range(rank):
        rows = [axes.get(axis) for axes in known]
        sizes = [value.shape[axis] for value in call.inputs]
        if axis != joined:
            ids = trace.meet(rows, sizes, reason)
        elif any(row is not None for row in rows) and None not in sizes:
            ids = np.concatenate([trace.along(v, axis, f"{reason} has it") for v in call.inputs])
        else:
            ids = None
            for row in rows:
                if row is not None:
                    trace.ids.lock(row, f"{reason} has an unknown size")
        if ids is not None:
            found[axis] = ids
    return [Channels(found)]


def _stack(trace: ChannelTrace, call: Call) -> list[Channels]:
    rank = len(call.outputs[0].shape)
    new = int(call.operation.axis) % rank
    found = {}
    for axis in range(rank - 1):
        rows = [trace.known(value).axes.get(axis) for value in call.inputs]
        sizes = [value.shape[axis] for value in call.inputs]
        ids = trace.meet(rows, sizes, f"{call.kind} {call.name!r}")
        if ids is not None:
            found[axis + (axis >= new)] = ids
    return [Channels(found)]


def _moves(trace: ChannelTrace, call: Call) -> list[Channels]:
    """The same elements with the axes in another order."""
    order = _order(call, len(call.inputs[0].shape))
    return [trace.known(call.inputs[0]).moved({old: new for new, old in enumerate(order)})]


def _order(call: Call, rank: int) -> list[int]:
    """The old number of each axis of the output of a move."""
    operation, order = call.operation, list(range(rank))
    if call.kind == "Permute":
        return [0, *operation.dims]
    if call.kind == "Swapaxes":
        one, other = operation.axis1 % rank, operation.axis2 % rank
        order[one], order[other] = other, one
    elif call.kind == "Moveaxis":
        sources = [axis % rank for axis in operation.source]
        targets = [axis % rank for axis in operation.destination]
        order = [axis for axis in order if axis not in sources]
        for target, source in sorted(zip(targets, sources, strict=True)):
            order.insert(target, source)
    else:
        axes = getattr(operation, "axes", None)
        return order[::-1] if axes is None else [int(axis) % rank for axis in axes]
    return order


def _expand(trace: ChannelTrace, call: Call) -> list[Channels]:
    rank = len(call.outputs[0].shape)
    added = axes_of(call.operation.axis, rank)
    old_axes = [a for a in range(rank) if a not in added]
    return [trace.known(call.inputs[0]).moved(dict(enumerate(old_axes)))]


def _squeeze(trace: ChannelTrace, call: Call) -> list[Channels]:
    shape, axis = call.inputs[0].shape, call.operation.axis
    ones = {place for place, size in enumerate(shape) if size == 1}
    gone = ones if axis is None else axes_of(axis, len(shape))
    return [without_axes(trace, call, gone, f"{call.kind} {call.name!r} removes its axis")]


def without_axes(trace: ChannelTrace, call: Call, gone: Iterable[int], reason: str) -> Channels:
    """Returns the channels of a call's input without some axes; locks those along these.

    Args:
        trace: The state of the trace.
        call: The call.
        gone: The removed axes, counted with the batch.
        reason: Why channels along removed axes have to stay.
    """
    value, rank = call.inputs[0], len(call.inputs[0].shape)
    removed = axes_of(gone, rank)
    trace.lock(value, reason, removed)
    return trace.known(value).without(removed, rank)


def _reduce(trace: ChannelTrace, call: Call) -> list[Channels]:
    """A mean, sum or maximum over positions; a sum also over channels."""
    value, rank = call.inputs[0], len(call.inputs[0].shape)
    reduced = axes_of(getattr(call.operation, "axis", None), rank)
    known = trace.known(value)
    reason = f"{call.kind} {call.name!r} reduces the channel axis"
    if 0 in reduced:
        return trace.opaque(call, f"{call.kind} {call.name!r} reduces the batch axis")
    if call.kind != "Sum":
        trace.lock(value, reason, reduced)
    if getattr(call.operation, "keepdims", False):
        return [Channels({axis: ids for axis, ids in known.axes.items() if axis not in reduced})]
    return [known.without(reduced, rank)]


def _normalizing(trace: ChannelTrace, call: Call) -> list[Channels]:
    """A softmax or the like: over places it keeps channels apart; over channels it locks them."""
    value, rank = call.inputs[0], len(call.inputs[0].shape)
    if len(call.inputs) != 1:
        return trace.opaque(call, f"{call.kind} {call.name!r} takes several tensors")
    over = axes_of(getattr(call.operation, "axis", -1), rank)
    trace.lock(value, f"{call.kind} {call.name!r} is computed over all channels", over)
    return [trace.known(value)]


AXIS_RULES: dict[str, Rule] = {
    **dict.fromkeys(_IMAGES, _pooling),
    **{
        f"{p}Pooling{n}D": _pooling
        for p in ("Max", "Average", "AdaptiveMax", "AdaptiveAverage")
        for n in (1, 2, 3)
    },
    **{f"Global{p}Pooling{n}D": _global_pooling for p in ("Max", "Average") for n in (1, 2, 3)},
    **dict.fromkeys(("Mean", "Sum", "Max", "Min", "Prod", "Std", "Var", "Amax", "Amin"), _reduce),
    **dict.fromkeys(("Argmax", "Argmin", "Any", "All", "Logsumexp"), _reduce),
    **dict.fromkeys(("Permute", "Transpose", "Swapaxes", "Moveaxis"), _moves),
    **dict.fromkeys(("Softmax", "LogSoftmax", "Sparsemax"), _normalizing),
    "Concatenate": _concatenate,
    "Stack": _stack,
    "ExpandDims": _expand,
    "Squeeze": _squeeze,
}
