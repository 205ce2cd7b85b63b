"""Rules of layers with a kernel: convolutions, Dense and Embedding.

Their output channels are new ids, but for depthwise convolutions: these pass on the ids of the
input. A grouped convolution keeps its number of groups: channel j of each group is removed from
all groups or from none.
"""

from __future__ import annotations

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


def _incoming(trace: ChannelTrace, call: Call) -> tuple[int, np.ndarray]:
    """The channel axis of a convolution and the ids along it; others are locked."""
    axis = channel_axis(call, len(call.inputs[0].shape))
    reason = f"{call.kind} {call.name!r} takes it as places"
    return axis, trace.only(call.inputs[0], axis, reason)


def _convolution(trace: ChannelTrace, call: Call) -> list[Channels]:
    layer = call.operation
    axis, incoming = _incoming(trace, call)
    groups = int(getattr(layer, "groups", 1))
    if groups > 1 and groups == len(incoming):
        return _channelwise(trace, call, axis, incoming)
    own, first = trace.layer(call)
    if groups > 1:
        _tie_groups(trace, incoming, groups)
    entering = incoming[: len(incoming) // groups]
    if first:
        new = trace.ids.new(layer.filters, call.name)
        if groups > 1:
            _tie_groups(trace, new, groups)
        dims = len(layer.kernel.shape)
        axes = {dims - 2: entering, dims - 1: new}
        own.weights.append(ChannelWeight(layer.kernel, axes, "kernel", dims - 1))
        _bias(own, layer, new)
        own.sizes["filters"] = new
    out = _output_channels(trace, call, own, entering, dims_in=-2, axis=axis)
    return own_activation(trace, call, [Channels({axis: out})])


def _channelwise(
    trace: ChannelTrace, call: Call, axis: int, incoming: np.ndarray
) -> list[Channels]:
    """A convolution with one group per channel, which is a depthwise convolution."""
    layer = call.operation
    own, first = trace.layer(call)
    out = np.repeat(incoming, layer.filters // len(incoming))
    if first:
        last = len(layer.kernel.shape) - 1
        own.weights.append(ChannelWeight(layer.kernel, {last: out}, "kernel"))
        _bias(own, layer, out)
        own.sizes.update(groups=incoming, filters=out)
    else:
        trace.ids.join(incoming, own.sizes["groups"])
    count_positions(trace, own, call, [axis])
    return own_activation(trace, call, [Channels({axis: out})])


def _tie_groups(trace: ChannelTrace, ids: np.ndarray, groups: int) -> None:
    rows = ids.reshape(groups, -1)
    for row in rows[1:]:
        trace.ids.join(rows[0], row)


def _output_channels(
    trace: ChannelTrace,
    call: Call,
    own: ChannelLayer,
    entering: np.ndarray,
    *,
    dims_in: int,
    axis: int,
) -> np.ndarray:
    """The new channels of a layer; the inputs of all its calls are coupled."""
    kernel = next(weight for weight in own.weights if weight.role == "kernel")
    trace.ids.join(entering, kernel.axes[len(kernel.variable.shape) + dims_in])
    count_positions(trace, own, call, [axis])
    return next(w.axes[w.output_axis] for w in own.weights if w.output_axis is not None)


def count_positions(trace: ChannelTrace, own: ChannelLayer, call: Call, without: list[int]) -> None:
    """Adds the positions of a call to the uses of a layer's kernels.

    Args:
        trace: The state of the trace.
        own: The layer.
        call: A call of it.
        without: The axes of its output that are no positions, beside the batch.
    """
    shape = call.outputs[0].shape
    if call.kind.endswith("Transpose"):
        shape = call.inputs[0].shape
    use = trace.places(shape, trace.known(call.inputs[0]), without)
    for weight in own.weights:
        if weight.role == "kernel":
            weight.uses.append(use)


def _bias(own: ChannelLayer, layer: Any, ids: np.ndarray) -> None:
    if getattr(layer, "use_bias", False) and layer.bias is not None:
        own.weights.append(ChannelWeight(layer.bias, {0: ids}))


def _transposed(trace: ChannelTrace, call: Call) -> list[Channels]:
    layer = call.operation
    if getattr(layer, "groups", 1) != 1:
        return trace.opaque(call, f"{call.kind} {call.name!r} has groups")
    axis, incoming = _incoming(trace, call)
    own, first = trace.layer(call)
    if first:
        new = trace.ids.new(layer.filters, call.name)
        dims = len(layer.kernel.shape)  # (*sizes, filters, channels)
        axes = {dims - 2: new, dims - 1: incoming}
        own.weights.append(ChannelWeight(layer.kernel, axes, "kernel", dims - 2))
        _bias(own, layer, new)
        own.sizes["filters"] = new
    out = _output_channels(trace, call, own, incoming, dims_in=-1, axis=axis)
    return own_activation(trace, call, [Channels({axis: out})])


def _dense(trace: ChannelTrace, call: Call) -> list[Channels]:
    """A Dense layer, over the last axis; channels along other axes pass."""
    layer, value = call.operation, call.inputs[0]
    axis = len(value.shape) - 1
    incoming = trace.along(value, axis, f"{call.kind} {call.name!r} takes places")
    own, first = trace.layer(call)
    if first:
        new = trace.ids.new(layer.units, call.name)
        own.weights.append(ChannelWeight(layer.kernel, {0: incoming, 1: new}, "kernel", 1))
        _bias(own, layer, new)
        own.sizes["units"] = new
    out = _output_channels(trace, call, own, incoming, dims_in=-2, axis=axis)
    return own_activation(trace, call, [Channels({**trace.beside(value, axis), axis: out})])


def _depthwise(trace: ChannelTrace, call: Call) -> list[Channels]:
    layer = call.operation
    axis, incoming = _incoming(trace, call)
    own, first = trace.layer(call)
    if not first:
        kernel = own.weights[0]
        trace.ids.join(incoming, kernel.axes[len(kernel.variable.shape) - 2])
    out = np.repeat(incoming, layer.depth_multiplier)
    if first:
        kernel_axis = len(layer.kernel.shape) - 2
        own.weights.append(ChannelWeight(layer.kernel, {kernel_axis: incoming}, "kernel"))
        _bias(own, layer, out)
    count_positions(trace, own, call, [axis])
    return own_activation(trace, call, [Channels({axis: out})])


def _separable(trace: ChannelTrace, call: Call) -> list[Channels]:
    layer = call.operation
    axis, incoming = _incoming(trace, call)
    own, first = trace.layer(call)
    if first:
        new = trace.ids.new(layer.filters, call.name)
        dims = len(layer.depthwise_kernel.shape)
        between = np.repeat(incoming, layer.depth_multiplier)
        own.weights.append(ChannelWeight(layer.depthwise_kernel, {dims - 2: incoming}, "kernel"))
        pointwise = {dims - 2: between, dims - 1: new}
        own.weights.append(ChannelWeight(layer.pointwise_kernel, pointwise, "kernel", dims - 1))
        _bias(own, layer, new)
        own.sizes["filters"] = new
    out = _output_channels(trace, call, own, incoming, dims_in=-2, axis=axis)
    return own_activation(trace, call, [Channels({axis: out})])


def _embedding(trace: ChannelTrace, call: Call) -> list[Channels]:
    layer = call.operation
    trace.lock(call.inputs[0], f"Embedding {call.name!r} takes it as indices")
    own, first = trace.layer(call)
    if first:
        new = trace.ids.new(layer.output_dim, call.name)
        own.weights.append(ChannelWeight(layer.embeddings, {1: new}, "kernel", 1))
        own.sizes["output_dim"] = new
    return [Channels({len(call.outputs[0].shape) - 1: own.sizes["output_dim"]})]


KERNEL_RULES: dict[str, Rule] = {
    **dict.fromkeys(("Conv1D", "Conv2D", "Conv3D"), _convolution),
    **dict.fromkeys(("Conv1DTranspose", "Conv2DTranspose", "Conv3DTranspose"), _transposed),
    **dict.fromkeys(("DepthwiseConv1D", "DepthwiseConv2D"), _depthwise),
    **dict.fromkeys(("SeparableConv1D", "SeparableConv2D"), _separable),
    "Dense": _dense,
    "Embedding": _embedding,
}
