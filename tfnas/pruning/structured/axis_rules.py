"""Rules of layers that change or reduce axes: pooling, concatenation, reshapes and slices."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tfnas.graph.functional import Call
from tfnas.pruning.structured.channel_ids import Channels
from tfnas.pruning.structured.channel_trace import ChannelTrace, Rule, channel_axis
from tfnas.pruning.structured.reshape_rules import reshaped

_IMAGES = {
    "Resizing",
    "Resize",
    "RandomFlip",
    "RandomTranslation",
    "RandomRotation",
    "RandomZoom",
}


def _pooling(trace: ChannelTrace, call: Call) -> list[Channels | None]:
    """Pooling and resizing, over all axes but the channel axis."""
    axis = channel_axis(call, len(call.inputs[0].shape))
    return [trace.channels(call.inputs[0], axis)]


def _global_pooling(trace: ChannelTrace, call: Call) -> list[Channels | None]:
    incoming = trace.channels(call.inputs[0], channel_axis(call, len(call.inputs[0].shape)))
    keep = getattr(call.operation, "keepdims", False)
    return [Channels(incoming.axis if keep else 1, incoming.ids)]


def _concatenate(trace: ChannelTrace, call: Call) -> list[Channels | None]:
    rank = len(call.outputs[0].shape)
    axis = int(getattr(call.operation, "axis", -1)) % rank
    known = [trace.values.get(value) for value in call.inputs]
    if None in known or len({k.axis for k in known if k}) != 1:
        return trace.opaque(
            call, f"{call.kind} {call.name!r} has inputs with channels on different axes"
        )
    rows = [k.ids for k in known if k is not None]
    where = known[0].axis  # type: ignore[union-attr]
    if where == axis:
        return [Channels(axis, np.concatenate(rows))]
    for row in rows[1:]:
        trace.ids.join(rows[0], row)
    return [Channels(where, rows[0])]


def _reshape(trace: ChannelTrace, call: Call) -> list[Channels | None]:
    known = trace.values.get(call.inputs[0])
    found = None if known is None else reshaped(known, call.inputs[0].shape, call.outputs[0].shape)
    if found is None:
        return trace.opaque(call, f"{call.kind} {call.name!r} mixes channels with positions")
    own, first = trace.layer(call)
    if first:
        own.sizes["channels"] = found.ids
    elif len(own.sizes["channels"]) == len(found.ids):
        trace.ids.join(own.sizes["channels"], found.ids)
    return [found]


def _flatten(trace: ChannelTrace, call: Call) -> list[Channels | None]:
    known, shape = trace.values.get(call.inputs[0]), call.inputs[0].shape
    if known is not None and call.operation.data_format == "channels_first":
        order = [0, *range(2, len(shape)), *([1] if len(shape) > 1 else [])]
        known, shape = _moved(known, order), tuple(shape[axis] for axis in order)
    found = None if known is None else reshaped(known, shape, call.outputs[0].shape)
    if found is None:
        return trace.opaque(call, f"{call.kind} {call.name!r} has an unknown size")
    return [found]


def _permute(trace: ChannelTrace, call: Call) -> list[Channels | None]:
    known = trace.values.get(call.inputs[0])
    axes = getattr(call.operation, "axes", None)
    dims = getattr(call.operation, "dims", None)
    order = [0, *dims] if dims is not None else axes
    if known is None or order is None:
        return trace.opaque(call, f"{call.kind} {call.name!r} is not supported")
    return [_moved(known, [int(axis) % len(order) for axis in order])]


def _moved(known: Channels, order: Sequence[int]) -> Channels:
    return Channels(order.index(known.axis), known.ids)


def _reduce(trace: ChannelTrace, call: Call) -> list[Channels | None]:
    """A mean, sum or maximum over positions."""
    known = trace.values.get(call.inputs[0])
    rank = len(call.inputs[0].shape)
    axes = getattr(call.operation, "axis", None)
    reduced = [axes] if isinstance(axes, int) else axes
    if known is None or reduced is None or known.axis in {int(a) % rank for a in reduced}:
        return trace.opaque(call, f"{call.kind} {call.name!r} reduces the channel axis")
    if call.operation.keepdims:
        return [known]
    before = sum(int(a) % rank < known.axis for a in reduced)
    return [Channels(known.axis - before, known.ids)]


def _get_item(trace: ChannelTrace, call: Call) -> list[Channels | None]:
    """A slice of the positions; slices of the channels are not supported."""
    known = trace.values.get(call.inputs[0])
    arguments = call.node.arguments
    key = arguments.kwargs.get("key", arguments.args[1] if len(arguments.args) > 1 else None)
    parts = key if isinstance(key, tuple) else (key,)
    plain = all(isinstance(part, slice) for part in parts)
    if known is None or not plain or any(p != slice(None) for p in parts[known.axis :]):
        return trace.opaque(call, f"{call.kind} {call.name!r} may take a part of the channels")
    return [known]


AXIS_RULES: dict[str, Rule] = {
    **dict.fromkeys(_IMAGES, _pooling),
    **{f"{p}Pooling{n}D": _pooling for p in ("Max", "Average") for n in (1, 2, 3)},
    **{f"Global{p}Pooling{n}D": _global_pooling for p in ("Max", "Average") for n in (1, 2, 3)},
    **dict.fromkeys(("Mean", "Sum", "Max", "Min"), _reduce),
    **dict.fromkeys(("Permute", "Transpose"), _permute),
    "Concatenate": _concatenate,
    "Reshape": _reshape,
    "Flatten": _flatten,
    "GetItem": _get_item,
}
