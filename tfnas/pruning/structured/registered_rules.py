"""The rule of layers of the user that :func:`tfnas.register_layer` has told how channels pass."""

from __future__ import annotations

import math

import numpy as np

from tfnas.graph.functional import Call
from tfnas.graph.known_sizes import product
from tfnas.graph.macs import call_macs
from tfnas.graph.registered_layers import ChannelAxes, registered_layer, weight_of
from tfnas.pruning.structured.channel_ids import Channels
from tfnas.pruning.structured.channel_trace import ChannelLayer, ChannelTrace, ChannelWeight, Use


def registered_rule(trace: ChannelTrace, call: Call) -> list[Channels] | None:
    """Applies the registration of a call's layer; None where its channels are not registered.

    Args:
        trace: The state of the trace.
        call: The call.

    Raises:
        ValueError: The registration does not fit the layer.
    """
    record = registered_layer(call.operation)
    if record is None or record.channels is None:
        return None
    axes = record.channels
    if axes.produces:
        return _produced(trace, call, axes)
    return _passed(trace, call, axes)


def _passed(trace: ChannelTrace, call: Call, axes: ChannelAxes) -> list[Channels]:
    """The channels of all inputs, coupled; each output has them."""
    rows = [trace.along(value) for value in call.inputs]
    first = rows[0]
    if any(len(other) != len(first) for other in rows[1:]):
        return trace.opaque(call, f"{call.kind} {call.name!r} takes tensors of unlike channels")
    for value in call.inputs:
        trace.only(value, -1, f"{call.kind} {call.name!r} takes it as places")
    for value in call.outputs:
        if value.shape[-1] != len(first):
            raise ValueError(
                f"channels of register_layer must fit {call.kind}, got channels that pass, but "
                f"{call.name!r} takes {len(first)} and returns {value.shape[-1]}"
            )
    for other in rows[1:]:
        trace.ids.join(first, other)
    own, is_first = trace.layer(call)
    if is_first:
        for name, axis in axes.passes.items():
            _add(own, call, name, {axis: first}, "other")
        _size(own, call, axes, first)
    else:
        for weight in own.weights:
            for ids in weight.axes.values():
                trace.ids.join(first, ids)
    return [Channels({len(value.shape) - 1: first}) for value in call.outputs]


def _produced(trace: ChannelTrace, call: Call, axes: ChannelAxes) -> list[Channels]:
    """New channels, one output's."""
    if len(call.inputs) != 1 or len(call.outputs) != 1:
        raise ValueError(
            f"channels of register_layer must have 'passes' for several tensors, got "
            f"'produces' for {call.name!r} of class {call.kind}"
        )
    reason = f"{call.kind} {call.name!r} takes it as places"
    incoming = trace.only(call.inputs[0], -1, reason)
    own, is_first = trace.layer(call)
    output = call.outputs[0]
    size = output.shape[-1]
    if size is None:
        return trace.opaque(call, f"{call.kind} {call.name!r} has an unknown number of channels")
    if is_first:
        outgoing = trace.ids.new(size, call.name)
        sides = ((axes.consumes, incoming), (axes.produces, outgoing))
        for name in dict.fromkeys((*axes.consumes, *axes.produces)):
            found = {side[name]: channels for side, channels in sides if name in side}
            makes = axes.produces.get(name) if name in axes.consumes else None
            _add(own, call, name, found, "kernel" if name in axes.consumes else "other", makes)
        _size(own, call, axes, outgoing)
    else:
        for weight in own.weights:
            for name, axis in axes.consumes.items():
                if weight.variable is getattr(call.operation, name):
                    trace.ids.join(incoming, weight.axes[axis % len(weight.shape)])
    _count(own, call)
    return [Channels({len(output.shape) - 1: own.sizes[axes.size or ""]})]


def _add(
    own: ChannelLayer,
    call: Call,
    name: str,
    found: dict[int, np.ndarray],
    role: str,
    output_axis: int | None = None,
) -> None:
    """Records a weight with the channels along its axes."""
    weight = weight_of(call.operation, name, "channels")
    rank = len(weight.shape)
    for axis, channels in found.items():
        if not -rank <= axis < rank or weight.shape[axis] != len(channels):
            raise ValueError(
                f"channels of register_layer must fit {call.kind}, got axis {axis} of {name!r} of "
                f"shape {tuple(weight.shape)} for {len(channels)} channels of {call.name!r}"
            )
    ids = {axis % rank: channels for axis, channels in found.items()}
    made = None if output_axis is None else output_axis % rank
    own.weights.append(ChannelWeight(weight, ids, role, made))


def _size(own: ChannelLayer, call: Call, axes: ChannelAxes, channels: np.ndarray) -> None:
    """Records the argument of the constructor that is the number of output channels."""
    if axes.size is None:
        return
    config = call.operation.get_config()
    if config.get(axes.size) != len(channels):
        raise ValueError(
            f"channels['size'] of register_layer must name an argument in get_config() of "
            f"{call.kind} that is its number of output channels, {len(channels)}, got "
            f"{axes.size!r}, which is {config.get(axes.size)!r}"
        )
    own.sizes[axes.size] = channels


def _count(own: ChannelLayer, call: Call) -> None:
    """The cost falls with the kernels' sizes, where it is that of kernels at each place."""
    kernels = [weight for weight in own.weights if weight.role == "kernel"]
    places = product(call.outputs[0].shape[1:-1])
    counted = sum(math.prod(weight.shape) for weight in kernels)
    if places is not None and call_macs(call) == places * counted:
        for weight in kernels:
            weight.uses.append(Use(places))
