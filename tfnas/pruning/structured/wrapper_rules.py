"""Rule of TimeDistributed: the channels of each step are those of the layer inside."""

from __future__ import annotations

from typing import Any

from tfnas.graph.functional import Call, Value
from tfnas.graph.registered_layers import kind_of
from tfnas.pruning.structured.axis_rules import AXIS_RULES
from tfnas.pruning.structured.channel_ids import Channels
from tfnas.pruning.structured.channel_trace import ChannelLayer, ChannelTrace, Rule, Use
from tfnas.pruning.structured.elementwise_rules import ELEMENTWISE_RULES
from tfnas.pruning.structured.kernel_rules import KERNEL_RULES
from tfnas.pruning.structured.per_channel_rules import PER_CHANNEL_RULES

# Their rules look at the layer and the channels alone, and rewrite no call.
_INSIDE = {
    *(*KERNEL_RULES, *PER_CHANNEL_RULES, *ELEMENTWISE_RULES, "Flatten"),
    *(kind for kind in AXIS_RULES if "Pooling" in kind),
}
_CONFIG = "layer.config."  # where the wrapper's configuration has that of the layer


def time_distributed(apply: Rule) -> Rule:
    """Returns the rule of TimeDistributed.

    Args:
        apply: Applies the rule of the layer inside.
    """

    def rule(trace: ChannelTrace, call: Call) -> list[Channels]:
        wrapper, value, rest = call.operation, call.inputs[0], call.inputs[1:]
        kind = kind_of(type(wrapper.layer))
        if kind not in _INSIDE:
            return trace.opaque(call, f"{call.kind} {call.name!r} has a {kind} inside")
        for mask in rest:
            trace.lock(mask, f"{call.kind} {call.name!r} takes it as a mask")
        trace.lock(value, f"{call.kind} {call.name!r} takes it as steps", {1})
        step = _of_a_step(trace, call)
        before = trace.layers.get(id(wrapper))
        if before is not None:
            trace.layers[id(wrapper.layer)] = _as_inside(before, wrapper.layer)
        counts = [len(weight.uses) for weight in before.weights] if before else []
        [found] = apply(trace, step)
        inside = trace.layers.pop(id(wrapper.layer), None)
        if inside is not None:
            _count_steps(inside, counts, int(value.shape[1] or 1))
            trace.layers.setdefault(id(wrapper), _as_outside(inside, wrapper))
        del trace.values[step.inputs[0]]
        return [Channels({axis + 1: ids for axis, ids in found.axes.items()})]

    return rule


def _of_a_step(trace: ChannelTrace, call: Call) -> Call:
    """The call of the layer inside on one step, whose input has channels already."""
    value, output = (Value((v.shape[0], *v.shape[2:]), v.dtype) for v in _ends(call))
    known = trace.known(call.inputs[0]).axes
    trace.values[value] = Channels({axis - 1: ids for axis, ids in known.items() if axis > 1})
    return Call(call.name, call.operation.layer, (value,), (output,), call.node, call.training)


def _ends(call: Call) -> tuple[Value, Value]:
    return call.inputs[0], call.outputs[0]


def _as_outside(record: ChannelLayer, wrapper: Any) -> ChannelLayer:
    """The record of the layer inside as one of the wrapper."""
    sizes = {f"{_CONFIG}{name}": ids for name, ids in record.sizes.items()}
    settings = {f"{_CONFIG}{name}": value for name, value in record.settings.items()}
    # A setting of a layer that has none is written too: so its sizes of before are forgotten.
    settings[f"{_CONFIG}name"] = lambda kept: record.layer.name
    return ChannelLayer(record.path, wrapper, record.weights, sizes, settings, record.products)


def _as_inside(record: ChannelLayer, layer: Any) -> ChannelLayer:
    """The record of the wrapper as one of the layer inside, which is called again."""
    sizes = {name.removeprefix(_CONFIG): ids for name, ids in record.sizes.items()}
    return ChannelLayer(record.path, layer, record.weights, sizes, {}, record.products)


def _count_steps(record: ChannelLayer, counts: list[int], steps: int) -> None:
    """Multiplies the positions of the uses that a call has added by the number of steps."""
    for place, weight in enumerate(record.weights):
        first = counts[place] if place < len(counts) else 0
        weight.uses[first:] = [Use(use.positions * steps, use.ids) for use in weight.uses[first:]]
