"""Rules of LSTM, GRU and SimpleRNN: their units are channels.

The kernels hold the gates beside each other, (inputs, gates x units); a unit is removed from each
gate, and from the rows of the recurrent kernel.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tfnas.graph.call_arguments import named_arguments
from tfnas.graph.functional import Call, Value
from tfnas.pruning.structured.activation_rules import locking_activation
from tfnas.pruning.structured.channel_ids import Channels
from tfnas.pruning.structured.channel_trace import (
    ChannelLayer,
    ChannelTrace,
    ChannelWeight,
    Rule,
    Use,
)

_GATES = {"LSTM": 4, "GRU": 3, "SimpleRNN": 1}


def _recurrent(trace: ChannelTrace, call: Call) -> list[Channels]:
    layer, value = call.operation, call.inputs[0]
    incoming = trace.only(value, 2, f"{call.kind} {call.name!r} runs over it")
    own, first = trace.layer(call)
    if first:
        own.sizes["units"] = _units(trace, own, layer, incoming, call.name)
    units = own.sizes["units"]
    trace.ids.join(incoming, own.weights[0].axes[0])
    _count_steps(own, own.weights, value)
    for state in _states(trace, call):
        trace.ids.join(trace.along(state), units)
    return [Channels({len(value.shape) - 1: units}) for value in call.outputs]


def _states(trace: ChannelTrace, call: Call) -> list[Value]:
    """The initial states that a call takes. Its mask, which is no state, is locked."""
    mask = named_arguments(call).get("mask")
    for value in call.inputs[1:]:
        if value is mask:
            trace.lock(value, f"{call.kind} {call.name!r} takes it as a mask")
    return [value for value in call.inputs[1:] if value is not mask]


def _units(
    trace: ChannelTrace, own: ChannelLayer, layer: Any, incoming: np.ndarray, maker: str
) -> np.ndarray:
    """New channel ids for the units of a recurrent layer, whose weights it records."""
    units, cell = trace.ids.new(layer.units, maker), layer.cell
    gates = np.tile(units, _GATES[type(layer).__name__])
    own.weights.append(ChannelWeight(cell.kernel, {0: incoming, 1: gates}, "kernel", 1))
    own.weights.append(ChannelWeight(cell.recurrent_kernel, {0: units, 1: gates}, "kernel", 1))
    if cell.bias is not None:
        own.weights.append(ChannelWeight(cell.bias, {len(cell.bias.shape) - 1: gates}))
    for name in ("activation", "recurrent_activation"):
        if reason := locking_activation(getattr(layer, name, None), maker):
            trace.ids.lock(units, reason)
    return units


def _count_steps(own: ChannelLayer, weights: list[ChannelWeight], value: Value) -> None:
    steps = int(value.shape[1] or 1)
    for weight in weights:
        if weight.role == "kernel":
            weight.uses.append(Use(steps))


def _bidirectional(trace: ChannelTrace, call: Call) -> list[Channels]:
    """Two layers, whose units are joined as `merge_mode` says."""
    layer, value = call.operation, call.inputs[0]
    inner = (layer.forward_layer, layer.backward_layer)
    kinds = {type(each).__name__ for each in inner}
    if not kinds <= set(_GATES) or _states(trace, call) or len(kinds) > 1:
        return trace.opaque(call, f"{call.kind} {call.name!r} has other layers or states inside")
    incoming = trace.only(value, 2, f"{call.kind} {call.name!r} runs over it")
    own, first = trace.layer(call)
    names = ("layer.config.units", "backward_layer.config.units")
    if first:
        for name, each, way in zip(names, inner, ("forward", "backward"), strict=True):
            maker = f"{call.name} ({way})"
            own.sizes[name] = _units(trace, own, each, incoming, maker)
    kernels = [weight for weight in own.weights if weight.role == "kernel"]
    for kernel in kernels[::2]:
        trace.ids.join(incoming, kernel.axes[0])
    _count_steps(own, own.weights, value)
    forward, backward = (own.sizes[name] for name in names)
    trace.ids.join(forward, backward)  # Keras takes both to be of one size
    merged = {None: [forward, backward], "concat": [np.concatenate([forward, backward])]}
    merges = 1 if layer.merge_mode is not None else 2
    states = (len(call.outputs) - merges) // 2  # of each
    rows = [*merged.get(layer.merge_mode, [forward]), *[forward] * states, *[backward] * states]
    return [
        Channels({len(output.shape) - 1: ids})
        for output, ids in zip(call.outputs, rows, strict=True)
    ]


RECURRENT_RULES: dict[str, Rule] = {
    **dict.fromkeys(_GATES, _recurrent),
    "Bidirectional": _bidirectional,
}
