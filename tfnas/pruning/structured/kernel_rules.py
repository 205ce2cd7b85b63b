"""Rules of layers with a kernel: convolutions, Dense and Embedding.

Their output channels are new ids, but for depthwise convolutions: these pass on the ids of the
input. A grouped convolution keeps its number of groups: channel j of each group is removed from
all groups or from none.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tfnas.graph.functional import Call
from tfnas.pruning.structured.activation_rules import own_activation
from tfnas.pruning.structured.channel_ids import Channels
from tfnas.pruning.structured.channel_trace import (
    ChannelLayer,
    ChannelTrace,
    ChannelWeight,
    Rule,
    channel_axis,
)


def _convolution(trace: ChannelTrace, call: Call) -> list[Channels | None]:
    layer, rank = call.operation, len(call.inputs[0].shape)
    axis = channel_axis(call, rank)
    incoming = trace.channels(call.inputs[0], axis)
    groups = int(getattr(layer, "groups", 1))
    if groups > 1 and groups == len(incoming.ids):
        return _channelwise(trace, call, incoming)
    own, first = trace.layer(call)
    if groups > 1:
        _tie_groups(trace, incoming.ids, groups)
    if first:
        new = trace.ids.new(layer.filters, call.name)
        if groups > 1:
            _tie_groups(trace, new, groups)
        entering = incoming.ids[: len(incoming.ids) // groups]
        dims = len(layer.kernel.shape)
        axes = {dims - 2: entering, dims - 1: new}
        own.weights.append(ChannelWeight(layer.kernel, axes, "kernel", dims - 1))
        _bias(own, layer, new)
        own.sizes["filters"] = new
    outputs = _output_channels(trace, call, own, incoming, dims_in=-2, groups=groups, axis=axis)
    return own_activation(trace, call, outputs)


def _channelwise(trace: ChannelTrace, call: Call, incoming: Channels) -> list[Channels | None]:
    """A convolution with one group per channel, which is a depthwise convolution."""
    layer = call.operation
    own, first = trace.layer(call)
    out = np.repeat(incoming.ids, layer.filters // len(incoming.ids))
    if first:
        last = len(layer.kernel.shape) - 1
        own.weights.append(ChannelWeight(layer.kernel, {last: out}, "kernel"))
        _bias(own, layer, out)
        own.sizes.update(groups=incoming.ids, filters=out)
    else:
        trace.ids.join(incoming.ids, own.sizes["groups"])
    _count_positions(own, call, incoming.axis)
    return own_activation(trace, call, [Channels(incoming.axis, out)])


def _tie_groups(trace: ChannelTrace, ids: np.ndarray, groups: int) -> None:
    rows = ids.reshape(groups, -1)
    for row in rows[1:]:
        trace.ids.join(rows[0], row)


def _output_channels(
    trace: ChannelTrace,
    call: Call,
    own: ChannelLayer,
    incoming: Channels,
    *,
    dims_in: int,
    axis: int,
    groups: int = 1,
) -> list[Channels | None]:
    """The new channels of a layer; the inputs of all its calls are coupled."""
    kernel = next(weight for weight in own.weights if weight.role == "kernel")
    entering = kernel.axes[(len(kernel.variable.shape) + dims_in)]
    trace.ids.join(incoming.ids[: len(incoming.ids) // groups], entering)
    _count_positions(own, call, axis)
    outputs = [
        weight.axes[weight.output_axis] for weight in own.weights if weight.output_axis is not None
    ]
    return [Channels(axis, outputs[0])]


def _count_positions(own: ChannelLayer, call: Call, axis: int) -> None:
    shape = call.outputs[0].shape
    if call.kind.endswith("Transpose"):
        shape = call.inputs[0].shape
    positions = math.prod(int(n or 1) for i, n in enumerate(shape) if i not in (0, axis))
    for weight in own.weights:
        if weight.role == "kernel":
            weight.positions += positions


def _bias(own: ChannelLayer, layer: Any, ids: np.ndarray) -> None:
    if getattr(layer, "use_bias", False) and layer.bias is not None:
        own.weights.append(ChannelWeight(layer.bias, {0: ids}))


def _transposed(trace: ChannelTrace, call: Call) -> list[Channels | None]:
    layer, rank = call.operation, len(call.inputs[0].shape)
    if getattr(layer, "groups", 1) != 1:
        return trace.opaque(call, f"{call.kind} {call.name!r} has groups")
    axis = channel_axis(call, rank)
    incoming = trace.channels(call.inputs[0], axis)
    own, first = trace.layer(call)
    if first:
        new = trace.ids.new(layer.filters, call.name)
        dims = len(layer.kernel.shape)  # (*sizes, filters, channels)
        axes = {dims - 2: new, dims - 1: incoming.ids}
        own.weights.append(ChannelWeight(layer.kernel, axes, "kernel", dims - 2))
        _bias(own, layer, new)
        own.sizes["filters"] = new
    outputs = _output_channels(trace, call, own, incoming, dims_in=-1, axis=axis)
    return own_activation(trace, call, outputs)


def _dense(trace: ChannelTrace, call: Call) -> list[Channels | None]:
    layer, axis = call.operation, len(call.inputs[0].shape) - 1
    incoming = trace.channels(call.inputs[0], axis)
    own, first = trace.layer(call)
    if first:
        new = trace.ids.new(layer.units, call.name)
        axes = {0: incoming.ids, 1: new}
        own.weights.append(ChannelWeight(layer.kernel, axes, "kernel", 1))
        _bias(own, layer, new)
        own.sizes["units"] = new
    return own_activation(
        trace, call, _output_channels(trace, call, own, incoming, dims_in=-2, axis=axis)
    )


def _depthwise(trace: ChannelTrace, call: Call) -> list[Channels | None]:
    layer, rank = call.operation, len(call.inputs[0].shape)
    axis = channel_axis(call, rank)
    incoming = trace.channels(call.inputs[0], axis)
    own, first = trace.layer(call)
    if not first:
        kernel = own.weights[0]
        trace.ids.join(incoming.ids, kernel.axes[len(kernel.variable.shape) - 2])
    out = np.repeat(incoming.ids, layer.depth_multiplier)
    if first:
        kernel_axis = len(layer.kernel.shape) - 2
        own.weights.append(ChannelWeight(layer.kernel, {kernel_axis: incoming.ids}, "kernel"))
        _bias(own, layer, out)
    _count_positions(own, call, axis)
    return own_activation(trace, call, [Channels(axis, out)])


def _separable(trace: ChannelTrace, call: Call) -> list[Channels | None]:
    layer, rank = call.operation, len(call.inputs[0].shape)
    axis = channel_axis(call, rank)
    incoming = trace.channels(call.inputs[0], axis)
    own, first = trace.layer(call)
    if first:
        new = trace.ids.new(layer.filters, call.name)
        dims = len(layer.depthwise_kernel.shape)
        between = np.repeat(incoming.ids, layer.depth_multiplier)
        own.weights.append(
            ChannelWeight(layer.depthwise_kernel, {dims - 2: incoming.ids}, "kernel")
        )
        pointwise = {dims - 2: between, dims - 1: new}
        own.weights.append(ChannelWeight(layer.pointwise_kernel, pointwise, "kernel", dims - 1))
        _bias(own, layer, new)
        own.sizes["filters"] = new
    outputs = _output_channels(trace, call, own, incoming, dims_in=-2, axis=axis)
    return own_activation(trace, call, outputs)


def _embedding(trace: ChannelTrace, call: Call) -> list[Channels | None]:
    layer = call.operation
    trace.lock(call.inputs[0], f"Embedding {call.name!r} takes it as indices")
    own, first = trace.layer(call)
    if first:
        new = trace.ids.new(layer.output_dim, call.name)
        own.weights.append(ChannelWeight(layer.embeddings, {1: new}, "kernel", 1))
        own.sizes["output_dim"] = new
    new = own.sizes["output_dim"]
    return [Channels(len(call.outputs[0].shape) - 1, new)]


KERNEL_RULES: dict[str, Rule] = {
    **dict.fromkeys(("Conv1D", "Conv2D", "Conv3D"), _convolution),
    **dict.fromkeys(("Conv1DTranspose", "Conv2DTranspose", "Conv3DTranspose"), _transposed),
    **dict.fromkeys(("DepthwiseConv1D", "DepthwiseConv2D"), _depthwise),
    **dict.fromkeys(("SeparableConv1D", "SeparableConv2D"), _separable),
    "Dense": _dense,
    "Embedding": _embedding,
}
