"""Rules of layers with one weight per channel: normalizations, LayerScale and PReLU.

Their output channels are those of the input. A normalization over the channels mixes them:

    BatchNormalization   each channel alone
    GroupNormalization   whole groups are removed; what is in a group stays together
    RMSNormalization     exact: its scale and epsilon are adapted to the number of channels
    UnitNormalization    exact: the norm of the channels that stay
    LayerNormalization   its mean and variance are over all channels, so these stay; with
                         `approximate` they may be removed, and fine-tuning has to repair it
"""

from __future__ import annotations

from tfnas.graph.functional import Call
from tfnas.pruning.structured.channel_ids import Channels
from tfnas.pruning.structured.channel_trace import (
    ChannelTrace,
    ChannelWeight,
    Kept,
    Rule,
    axes_of,
)


def _batch_norm(trace: ChannelTrace, call: Call) -> list[Channels]:
    layer, value = call.operation, call.inputs[0]
    axis = int(layer.axis) % len(value.shape)
    names = ("gamma", "beta", "moving_mean", "moving_variance")
    reason = f"{call.kind} {call.name!r} has statistics over it"
    trace.only(value, axis, reason)
    return _per_channel(trace, call, axis, dict.fromkeys(names, 0))


def _layer_norm(trace: ChannelTrace, call: Call) -> list[Channels]:
    layer, value, rank = call.operation, call.inputs[0], len(call.inputs[0].shape)
    over = axes_of(layer.axis, rank)
    if len(over) != 1:
        trace.lock(value, f"{call.kind} {call.name!r} normalizes several axes", over)
        return [trace.known(value)]
    if not trace.approximate:
        trace.lock(value, f"the mean of {call.kind} {call.name!r} is over all channels", over)
    [axis] = over
    return _per_channel(trace, call, axis, {"gamma": 0, "beta": 0})


def _rms_norm(trace: ChannelTrace, call: Call) -> list[Channels]:
    """With n of N channels: x / sqrt(sum(x^2) / N + e) = x sqrt(N/n) / sqrt(sum / n + e N/n)."""
    layer, value, rank = call.operation, call.inputs[0], len(call.inputs[0].shape)
    over, known = axes_of(layer.axis, rank), trace.known(value)
    if len(over) != 1 or not over & set(known.axes):
        trace.lock(value, f"{call.kind} {call.name!r} normalizes several axes", over)
        return [known]
    [axis] = over
    found = _per_channel(trace, call, axis, {"scale": 0})
    own, ids = trace.layers[id(layer)], trace.along(value, axis)
    for weight in own.weights:
        weight.rescaled = (ids, -0.5)

    def epsilon(kept: Kept) -> float:
        return float(layer.epsilon * len(ids) / kept(ids).sum())

    own.settings["epsilon"] = epsilon
    return found


def _group_norm(trace: ChannelTrace, call: Call) -> list[Channels]:
    layer, value = call.operation, call.inputs[0]
    axis = int(layer.axis) % len(value.shape)
    ids = trace.only(value, axis, f"{call.kind} {call.name!r} has statistics over it")
    groups = len(ids) if layer.groups == -1 else int(layer.groups)
    rows = ids.reshape(groups, -1)
    if groups == 1:
        trace.ids.lock(ids, f"the mean of {call.kind} {call.name!r} is over all channels")
    for column in rows.T[1:]:
        trace.ids.join(rows[:, 0], column)
    found = _per_channel(trace, call, axis, {"gamma": 0, "beta": 0})
    trace.layers[id(layer)].sizes["groups"] = rows[:, 0]
    return found


def _unit_norm(trace: ChannelTrace, call: Call) -> list[Channels]:
    return [trace.known(call.inputs[0])]


def _layer_scale(trace: ChannelTrace, call: Call) -> list[Channels]:
    axis = len(call.inputs[0].shape) - 1
    found = _per_channel(trace, call, axis, {"gamma": 0})
    trace.layers[id(call.operation)].sizes["projection_dim"] = found[0].axes[axis]
    return found


def _normalization(trace: ChannelTrace, call: Call) -> list[Channels]:
    layer, value, rank = call.operation, call.inputs[0], len(call.inputs[0].shape)
    axes = layer.axis if isinstance(layer.axis, list | tuple) else (layer.axis,)
    known = trace.known(value)
    if axes in ((None,), ()):
        return [known]
    if len(axes) != 1 or int(axes[0]) % rank not in known.axes:
        return trace.opaque(call, f"{call.kind} {call.name!r} normalizes other axes")
    if layer.input_mean is not None:
        return trace.opaque(call, f"{call.kind} {call.name!r} has constant statistics")
    axis = int(axes[0]) % rank
    return _per_channel(trace, call, axis, {"adapt_mean": 0, "adapt_variance": 0})


def _prelu(trace: ChannelTrace, call: Call) -> list[Channels]:
    value, alpha = call.inputs[0], call.operation.alpha
    known = trace.known(value)
    wide = {axis: ids for axis, ids in known.axes.items() if alpha.shape[axis - 1] > 1}
    own, first = trace.layer(call)
    if first:
        own.weights.append(
            ChannelWeight(alpha, {axis - 1: ids for axis, ids in wide.items()}, "other")
        )
    for axis, ids in wide.items():
        before = own.weights[0].axes.get(axis - 1)
        if before is None:
            trace.ids.lock(ids, f"{call.kind} {call.name!r} is used for other axes too")
        else:
            trace.ids.join(ids, before)
    return [known]


def _per_channel(
    trace: ChannelTrace, call: Call, axis: int, weights: dict[str, int]
) -> list[Channels]:
    """A layer with one weight per channel; `weights` maps attributes to channel axes.

    Channels along other axes pass.
    """
    value = call.inputs[0]
    ids = trace.along(value, axis, f"{call.kind} {call.name!r} has one weight for each place")
    own, first = trace.layer(call)
    if not first and own.weights:
        (before,) = {id(x): x for x in own.weights[0].axes.values()}.values()
        trace.ids.join(ids, before)
    if first:
        for name, weight_axis in weights.items():
            variable = getattr(call.operation, name, None)
            if variable is not None:
                role = "scale" if name in ("gamma", "scale") else "other"
                own.weights.append(ChannelWeight(variable, {weight_axis: ids}, role))
    return [Channels({**trace.beside(value, axis), axis: ids})]


PER_CHANNEL_RULES: dict[str, Rule] = {
    "BatchNormalization": _batch_norm,
    "GroupNormalization": _group_norm,
    "LayerNormalization": _layer_norm,
    "LayerScale": _layer_scale,
    "Normalization": _normalization,
    "PReLU": _prelu,
    "RMSNormalization": _rms_norm,
    "UnitNormalization": _unit_norm,
}
