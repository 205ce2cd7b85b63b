"""What each layer or operation does to channels.

A rule takes the :class:`~tfnas.pruning.structured.channel_trace.ChannelTrace` and a call, records
the channels along the axes of the layer's weights, and returns the channels of each output.
An operation without a rule is opaque: the channels of its inputs are locked, with the reason.

| kind of layer                                | output channels                              |
|----------------------------------------------|----------------------------------------------|
| convolution, Dense, Embedding                | new                                          |
| depthwise, elementwise, pooling, norms       | those of the input                           |
| sums, products, concatenation over positions | those of all operands, coupled               |
| concatenation over channels                  | those of all operands, one after the other   |
| Flatten, Reshape, Permute                    | moved and repeated as the elements are       |

A grouped convolution keeps its number of groups: channel j of each group is removed from all
groups or from none. LayerNormalization over the channels is supported, but its statistics are
then over fewer channels: an approximation that fine-tuning has to repair.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tfnas.graph.functional import Call
from tfnas.pruning.structured.channel_ids import Channels
from tfnas.pruning.structured.channel_trace import ChannelLayer, ChannelTrace, ChannelWeight
from tfnas.pruning.structured.reshape_rules import reshaped

Rule = Callable[[ChannelTrace, Call], list[Channels | None]]


def apply_rule(trace: ChannelTrace, call: Call) -> list[Channels | None]:
    """Applies the rule of a call: returns the channels of its outputs, None where unknown."""
    found = _RULES.get(call.kind)
    if found is None or not (_is_of_keras(call) or call.kind in _FOREIGN):
        return trace.opaque(call, f"{call.kind} {call.name!r} is not supported")
    if getattr(call.operation, "quantization_mode", None):
        return trace.opaque(call, f"{call.kind} {call.name!r} is quantized")
    if getattr(call.operation, "lora_enabled", False):
        return trace.opaque(call, f"{call.kind} {call.name!r} has LoRA weights")
    return found(trace, call)


def _is_of_keras(call: Call) -> bool:
    """Whether the class is of Keras: a custom layer of the same name may compute anything."""
    return type(call.operation).__module__.split(".")[0] == "keras"


def _channel_axis(call: Call, value_rank: int) -> int:
    first = getattr(call.operation, "data_format", "channels_last") == "channels_first"
    return 1 if first else value_rank - 1


def _convolution(trace: ChannelTrace, call: Call) -> list[Channels | None]:
    layer, rank = call.operation, len(call.inputs[0].shape)
    axis = _channel_axis(call, rank)
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
    return _own_activation(trace, call, outputs)


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
    return _own_activation(trace, call, [Channels(incoming.axis, out)])


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
    axis = _channel_axis(call, rank)
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
    return _own_activation(trace, call, outputs)


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
    return _own_activation(
        trace, call, _output_channels(trace, call, own, incoming, dims_in=-2, axis=axis)
    )


def _depthwise(trace: ChannelTrace, call: Call) -> list[Channels | None]:
    layer, rank = call.operation, len(call.inputs[0].shape)
    axis = _channel_axis(call, rank)
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
    return _own_activation(trace, call, [Channels(axis, out)])


def _separable(trace: ChannelTrace, call: Call) -> list[Channels | None]:
    layer, rank = call.operation, len(call.inputs[0].shape)
    axis = _channel_axis(call, rank)
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
    return _own_activation(trace, call, outputs)


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


def _same(trace: ChannelTrace, call: Call) -> list[Channels | None]:
    """Elementwise, or over positions alone: the channels are those of the input."""
    known = trace.values.get(call.inputs[0])
    if len(call.inputs) != 1:
        return trace.opaque(call, f"{call.kind} {call.name!r} takes several tensors")
    same_rank = len(call.outputs[0].shape) == len(call.inputs[0].shape)
    if known is None or not same_rank:
        return trace.opaque(call, f"{call.kind} {call.name!r} changes the number of axes")
    if call.outputs[0].shape[known.axis] != len(known.ids):
        return trace.opaque(call, f"{call.kind} {call.name!r} changes the number of channels")
    return [known]


def _dropout(trace: ChannelTrace, call: Call) -> list[Channels | None]:
    noise, known = getattr(call.operation, "noise_shape", None), trace.values.get(call.inputs[0])
    if noise is not None and known is not None and noise[known.axis] not in (None, 1):
        return trace.opaque(call, f"{call.kind} {call.name!r} has a noise_shape")
    return _same(trace, call)


def _clip(trace: ChannelTrace, call: Call) -> list[Channels | None]:
    if np.size(call.operation.x_min) > 1 or np.size(call.operation.x_max) > 1:
        return trace.opaque(call, f"{call.kind} {call.name!r} has one constant per channel")
    return _same(trace, call)


def _pooling(trace: ChannelTrace, call: Call) -> list[Channels | None]:
    """Pooling and resizing, over all axes but the channel axis."""
    axis = _channel_axis(call, len(call.inputs[0].shape))
    return [trace.channels(call.inputs[0], axis)]


def _global_pooling(trace: ChannelTrace, call: Call) -> list[Channels | None]:
    incoming = trace.channels(call.inputs[0], _channel_axis(call, len(call.inputs[0].shape)))
    keep = getattr(call.operation, "keepdims", False)
    return [Channels(incoming.axis if keep else 1, incoming.ids)]


def _activation(trace: ChannelTrace, call: Call) -> list[Channels | None]:
    return _own_activation(trace, call, _same(trace, call))


def _own_activation(
    trace: ChannelTrace, call: Call, outputs: list[Channels | None]
) -> list[Channels | None]:
    """Locks the channels unless the activation is known to be elementwise."""
    activation = getattr(call.operation, "activation", None)
    if activation is None or _is_elementwise(activation):
        return outputs
    name = getattr(activation, "__name__", type(activation).__name__)
    if name in ("softmax", "log_softmax", "sparsemax", "glu"):
        reason = f"{name} of {call.name!r} is computed over all channels"
    else:
        reason = f"the activation {name} of {call.name!r} is not supported"
    for found in outputs:
        if found is not None:
            trace.ids.lock(found.ids, reason)
    return outputs


def _is_elementwise(activation: Any) -> bool:
    """Whether the activation is an elementwise function or layer of Keras or TensorFlow."""
    known = activation if hasattr(activation, "__name__") else type(activation)
    name, module = known.__name__, str(getattr(known, "__module__", ""))
    allowed = _ACTIVATIONS if known is activation else _ACTIVATION_LAYERS
    return name in allowed and module.split(".")[0] in ("keras", "tensorflow")


def _rescaling(trace: ChannelTrace, call: Call) -> list[Channels | None]:
    layer = call.operation
    if np.size(layer.scale) > 1 or np.size(layer.offset) > 1:
        return trace.opaque(call, f"{call.kind} {call.name!r} has one constant per channel")
    return _same(trace, call)


def _elementwise(trace: ChannelTrace, call: Call) -> list[Channels | None]:
    """Sums, products and other elementwise operations with broadcasting."""
    if _has_wide_constant(call):
        return trace.opaque(call, f"{call.kind} {call.name!r} has one constant per channel")
    rank = len(call.outputs[0].shape)
    known = [trace.values.get(value) for value in call.inputs]
    # Axes are counted from the right, as in broadcasting.
    axes = {len(v.shape) - k.axis for v, k in zip(call.inputs, known, strict=True) if k}
    if None in known or len(axes) != 1:
        return trace.opaque(
            call, f"{call.kind} {call.name!r} has inputs with channels on different axes"
        )
    wide = [k.ids for k in known if k is not None and len(k.ids) > 1]
    for k in known:
        if k is not None and len(k.ids) == 1:
            trace.ids.lock(k.ids, f"{call.kind} {call.name!r} broadcasts it to all channels")
    if not wide:
        wide = [known[0].ids]  # type: ignore[union-attr]
    for ids in wide[1:]:
        trace.ids.join(wide[0], ids)
    return [Channels(rank - axes.pop(), wide[0])]


def _has_wide_constant(call: Call) -> bool:
    """Whether an argument that is no tensor of the model has more than one element."""
    arguments = call.node.arguments
    flat = [*arguments.args, *arguments.kwargs.values()]
    items = [x for part in flat for x in (part if isinstance(part, list | tuple) else [part])]
    symbolic = {id(tensor) for tensor in call.node.input_tensors}
    return any(
        np.size(x) > 1
        for x in items
        if hasattr(x, "shape") and id(x) not in symbolic and not isinstance(x, bool)
    )


def _average(trace: ChannelTrace, call: Call) -> list[Channels | None]:
    """The layer Average adds up its inputs; the operation of this name reduces an axis."""
    if hasattr(call.operation, "axis"):
        return trace.opaque(call, f"{call.kind} {call.name!r} is not supported")
    return _elementwise(trace, call)


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


_SAME_KINDS = {
    "GaussianNoise",
    "GaussianDropout",
    "Identity",
    "ActivityRegularization",
    "StochasticDepth",
    "DropPath",
    "ReLU",
    "LeakyReLU",
    "ELU",
    "Relu",
    "Relu6",
    "LeakyRelu",
    "Elu",
    "Selu",
    "Sigmoid",
    "Silu",
    "HardSilu",
    "HardSigmoid",
    "Tanh",
    "HardTanh",
    "Gelu",
    "Softplus",
    "Softsign",
    "Exp",
    "Absolute",
    "Abs",
    "Negative",
    "Square",
    "Sqrt",
    "Rsqrt",
    "Cast",
    "Log",
    "Celu",
    "Mish",
    "Swish",
    "Log1p",
    "Reciprocal",
    "ZeroPadding1D",
    "ZeroPadding2D",
    "ZeroPadding3D",
    "Pad",
    "Cropping1D",
    "Cropping2D",
    "Cropping3D",
    "UpSampling1D",
    "UpSampling2D",
    "UpSampling3D",
}
_FOREIGN = ("DropPath", "StochasticDepth")  # custom layers, elementwise in all libraries
_DROPOUTS = {"Dropout", "AlphaDropout", "SpatialDropout1D", "SpatialDropout2D", "SpatialDropout3D"}
_IMAGES = {
    "Resizing",
    "Resize",
    "RandomFlip",
    "RandomTranslation",
    "RandomRotation",
    "RandomZoom",
}
_ACTIVATIONS = {
    "linear",
    "relu",
    "relu6",
    "leaky_relu",
    "elu",
    "selu",
    "celu",
    "gelu",
    "silu",
    "swish",
    "mish",
    "sigmoid",
    "hard_sigmoid",
    "hard_silu",
    "hard_swish",
    "hard_tanh",
    "hard_shrink",
    "soft_shrink",
    "tanh_shrink",
    "threshold",
    "squareplus",
    "tanh",
    "softplus",
    "softsign",
    "exponential",
    "exp",
    "log_sigmoid",
    "sparse_plus",
    "sparse_sigmoid",
}
_ACTIVATION_LAYERS = {"ReLU", "LeakyReLU", "ELU"}
_MERGES = {
    "Add",
    "Subtract",
    "Multiply",
    "Maximum",
    "Minimum",
    "Divide",
    "TrueDivide",
    "Power",
    "Mod",
    "SquaredDifference",
}
_RULES: dict[str, Rule] = {
    **dict.fromkeys(_SAME_KINDS, _same),
    **dict.fromkeys(_DROPOUTS, _dropout),
    **dict.fromkeys(_IMAGES, _pooling),
    **dict.fromkeys(_MERGES, _elementwise),
    **dict.fromkeys(("Conv1D", "Conv2D", "Conv3D"), _convolution),
    **dict.fromkeys(("Conv1DTranspose", "Conv2DTranspose", "Conv3DTranspose"), _transposed),
    **dict.fromkeys(("DepthwiseConv1D", "DepthwiseConv2D"), _depthwise),
    **dict.fromkeys(("SeparableConv1D", "SeparableConv2D"), _separable),
    **{f"{p}Pooling{n}D": _pooling for p in ("Max", "Average") for n in (1, 2, 3)},
    **{f"Global{p}Pooling{n}D": _global_pooling for p in ("Max", "Average") for n in (1, 2, 3)},
    **dict.fromkeys(("Mean", "Sum", "Max", "Min"), _reduce),
    **dict.fromkeys(("Permute", "Transpose"), _permute),
    "Dense": _dense,
    "Embedding": _embedding,
    "BatchNormalization": _batch_norm,
    "LayerNormalization": _layer_norm,
    "LayerScale": _layer_scale,
    "Normalization": _normalization,
    "PReLU": _prelu,
    "Activation": _activation,
    "Average": _average,
    "Clip": _clip,
    "Rescaling": _rescaling,
    "Concatenate": _concatenate,
    "Reshape": _reshape,
    "Flatten": _flatten,
    "GetItem": _get_item,
}
