"""Rules of layers with one weight per channel: normalizations, LayerScale and PReLU.

Their output channels are those of the input. The statistics of LayerNormalization are over fewer
channels after pruning: an approximation that fine-tuning has to repair.
"""

from __future__ import annotations

from tfnas.graph.functional import Call
from tfnas.pruning.structured.channel_ids import Channels
from tfnas.pruning.structured.channel_trace import ChannelTrace, ChannelWeight, Rule


def _batch_norm(trace: ChannelTrace, call: Call) -> list[Channels | None]:
    layer, rank = call.operation, len(call.inputs[0].shape)
    axis = int(layer.axis) % rank
    incoming = trace.channels(call.inputs[0], axis)
    names = ("gamma", "beta", "moving_mean", "moving_variance")
    return [_per_channel(trace, call, incoming, dict.fromkeys(names, 0))]


def _layer_norm(trace: ChannelTrace, call: Call) -> list[Channels | None]:
    layer, rank = call.operation, len(call.inputs[0].shape)
    axes = layer.axis if isinstance(layer.axis, list | tuple) else [layer.axis]
    if len(axes) != 1:
        return trace.opaque(call, f"{call.kind} {call.name!r} normalizes several axes")
    incoming = trace.channels(call.inputs[0], int(axes[0]) % rank)
    return [_per_channel(trace, call, incoming, {"gamma": 0, "beta": 0})]


def _layer_scale(trace: ChannelTrace, call: Call) -> list[Channels | None]:
    incoming = trace.channels(call.inputs[0])
    found = _per_channel(trace, call, incoming, {"gamma": 0})
    trace.layers[id(call.operation)].sizes["projection_dim"] = found.ids
    return [found]


def _normalization(trace: ChannelTrace, call: Call) -> list[Channels | None]:
    layer, rank = call.operation, len(call.inputs[0].shape)
    axes = layer.axis if isinstance(layer.axis, list | tuple) else (layer.axis,)
    known = trace.values.get(call.inputs[0])
    if axes in ((None,), ()):
        return [known]
    if len(axes) != 1 or known is None or int(axes[0]) % rank != known.axis:
        return trace.opaque(call, f"{call.kind} {call.name!r} normalizes other axes")
    if layer.input_mean is not None:
        return trace.opaque(call, f"{call.kind} {call.name!r} has constant statistics")
    return [_per_channel(trace, call, known, {"adapt_mean": 0, "adapt_variance": 0})]


def _prelu(trace: ChannelTrace, call: Call) -> list[Channels | None]:
    incoming = trace.channels(call.inputs[0])
    alpha = call.operation.alpha
    axis = incoming.axis - 1
    if alpha.shape[axis] == 1 < len(incoming.ids):
        return [incoming]
    return [_per_channel(trace, call, incoming, {"alpha": axis})]


def _per_channel(
    trace: ChannelTrace, call: Call, incoming: Channels, weights: dict[str, int]
) -> Channels:
    """A layer with one weight per channel; `weights` maps attributes to channel axes."""
    own, first = trace.layer(call)
    if not first and own.weights:
        (ids,) = {id(x): x for x in own.weights[0].axes.values()}.values()
        trace.ids.join(incoming.ids, ids)
    if first:
        for name, axis in weights.items():
            variable = getattr(call.operation, name, None)
            if variable is not None:
                role = "scale" if name == "gamma" else "other"
                own.weights.append(ChannelWeight(variable, {axis: incoming.ids}, role))
    return incoming


PER_CHANNEL_RULES: dict[str, Rule] = {
    "BatchNormalization": _batch_norm,
    "LayerNormalization": _layer_norm,
    "LayerScale": _layer_scale,
    "Normalization": _normalization,
    "PReLU": _prelu,
}
