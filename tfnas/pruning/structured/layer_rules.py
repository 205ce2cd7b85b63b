"""What each layer or operation does to channels.

A rule takes the :class:`~tfnas.pruning.structured.channel_groups.Trace` and a call, records which
weights run over which channels, and returns the channels of each output. What has no rule is
opaque: its inputs' channels are locked, with the reason.

| kind of layer                             | channels                                        |
|-------------------------------------------|-------------------------------------------------|
| convolution, Dense, Embedding             | new ones come out                               |
| depthwise, elementwise, pooling, norms    | pass through                                    |
| sums, products, concatenation over places | of all operands are joined                      |
| concatenation over channels               | one row after the other                         |
| Flatten, Reshape, Permute                 | moved and repeated as the numbers are           |

A grouped convolution keeps its number of groups: position j of every group goes or stays
together. Normalization over channels (LayerNormalization) is understood, but its statistics
are then over fewer channels: an approximation that training has to mend.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tfnas.graph.functional import Call
from tfnas.pruning.structured.channel_groups import Slices, Trace
from tfnas.pruning.structured.channel_ids import Channels
from tfnas.pruning.structured.reshape_rules import reshaped

Rule = Callable[[Trace, Call], list[Channels | None]]


def rule(trace: Trace, call: Call) -> list[Channels | None]:
    """Applies the rule of a call."""
    found = _RULES.get(call.kind)
    if found is None or not (_is_of_keras(call) or call.kind in _FOREIGN):
        return trace.opaque(call, f"{call.kind} {call.name!r} is not understood")
    if getattr(call.operation, "quantization_mode", None):
        return trace.opaque(call, f"{call.kind} {call.name!r} is quantized")
    if getattr(call.operation, "lora_enabled", False):
        return trace.opaque(call, f"{call.kind} {call.name!r} has LoRA weights")
    return found(trace, call)


def _is_of_keras(call: Call) -> bool:
    """A class of someone else's may have the name of one of Keras' and compute anything."""
    return type(call.operation).__module__.split(".")[0] == "keras"


def _channel_axis(call: Call, value_rank: int) -> int:
    first = getattr(call.operation, "data_format", "channels_last") == "channels_first"
    return 1 if first else value_rank - 1


def _convolution(trace: Trace, call: Call) -> list[Channels | None]:
    layer, rank = call.operation, len(call.inputs[0].shape)
    axis = _channel_axis(call, rank)
    taken = trace.channels(call.inputs[0], axis)
    groups = int(getattr(layer, "groups", 1))
    if groups > 1 and groups == len(taken.labels):
        return _channelwise(trace, call, taken)
    unit, first = trace.unit(call)
    if groups > 1:
        _tie_groups(trace, taken.labels, groups)
    if first:
        made = trace.atoms.fresh(layer.filters, call.name)
        if groups > 1:
            _tie_groups(trace, made, groups)
        entering = taken.labels[: len(taken.labels) // groups]
        dims = len(layer.kernel.shape)
        axes = {dims - 2: entering, dims - 1: made}
        unit.slices.append(Slices(layer.kernel, axes, "kernel", dims - 1))
        _bias(unit, layer, made)
        unit.sizes["filters"] = made
    outputs = _again(trace, call, unit, taken, dims_in=-2, groups=groups, axis=axis)
    return _own_activation(trace, call, outputs)


def _channelwise(trace: Trace, call: Call, taken: Channels) -> list[Channels | None]:
    """A convolution with a group a channel: a depthwise one."""
    layer = call.operation
    unit, first = trace.unit(call)
    out = np.repeat(taken.labels, layer.filters // len(taken.labels))
    if first:
        last = len(layer.kernel.shape) - 1
        unit.slices.append(Slices(layer.kernel, {last: out}, "kernel"))
        _bias(unit, layer, out)
        unit.sizes.update(groups=taken.labels, filters=out)
    else:
        trace.atoms.join(taken.labels, unit.sizes["groups"])
    _count_positions(unit, call, taken.axis)
    return _own_activation(trace, call, [Channels(taken.axis, out)])


def _tie_groups(trace: Trace, labels: np.ndarray, groups: int) -> None:
    rows = labels.reshape(groups, -1)
    for row in rows[1:]:
        trace.atoms.join(rows[0], row)


def _again(
    trace: Trace,
    call: Call,
    unit: Any,
    taken: Channels,
    *,
    dims_in: int,
    axis: int,
    groups: int = 1,
) -> list[Channels | None]:
    """The outputs of a layer that makes channels; a second call is held to the first."""
    kernel = next(part for part in unit.slices if part.role == "kernel")
    entering = kernel.axes[(len(kernel.variable.shape) + dims_in)]
    trace.atoms.join(taken.labels[: len(taken.labels) // groups], entering)
    made = next(part for part in unit.slices if part.makes is not None)
    _count_positions(unit, call, axis)
    return [Channels(axis, made.axes[made.makes])]


def _count_positions(unit: Any, call: Call, axis: int) -> None:
    shape = call.outputs[0].shape
    if call.kind.endswith("Transpose"):
        shape = call.inputs[0].shape
    places = math.prod(int(n or 1) for i, n in enumerate(shape) if i not in (0, axis))
    for part in unit.slices:
        if part.role == "kernel":
            part.positions += places


def _bias(unit: Any, layer: Any, labels: np.ndarray) -> None:
    if getattr(layer, "use_bias", False) and layer.bias is not None:
        unit.slices.append(Slices(layer.bias, {0: labels}))


def _transposed(trace: Trace, call: Call) -> list[Channels | None]:
    layer, rank = call.operation, len(call.inputs[0].shape)
    if getattr(layer, "groups", 1) != 1:
        return trace.opaque(call, f"{call.kind} {call.name!r} has groups")
    axis = _channel_axis(call, rank)
    taken = trace.channels(call.inputs[0], axis)
    unit, first = trace.unit(call)
    if first:
        made = trace.atoms.fresh(layer.filters, call.name)
        dims = len(layer.kernel.shape)  # (*sizes, filters, channels)
        axes = {dims - 2: made, dims - 1: taken.labels}
        unit.slices.append(Slices(layer.kernel, axes, "kernel", dims - 2))
        _bias(unit, layer, made)
        unit.sizes["filters"] = made
    outputs = _again(trace, call, unit, taken, dims_in=-1, axis=axis)
    return _own_activation(trace, call, outputs)


def _dense(trace: Trace, call: Call) -> list[Channels | None]:
    layer, axis = call.operation, len(call.inputs[0].shape) - 1
    taken = trace.channels(call.inputs[0], axis)
    unit, first = trace.unit(call)
    if first:
        made = trace.atoms.fresh(layer.units, call.name)
        axes = {0: taken.labels, 1: made}
        unit.slices.append(Slices(layer.kernel, axes, "kernel", 1))
        _bias(unit, layer, made)
        unit.sizes["units"] = made
    return _own_activation(trace, call, _again(trace, call, unit, taken, dims_in=-2, axis=axis))


def _depthwise(trace: Trace, call: Call) -> list[Channels | None]:
    layer, rank = call.operation, len(call.inputs[0].shape)
    axis = _channel_axis(call, rank)
    taken = trace.channels(call.inputs[0], axis)
    unit, first = trace.unit(call)
    if not first:
        kernel = unit.slices[0]
        trace.atoms.join(taken.labels, kernel.axes[len(kernel.variable.shape) - 2])
    out = np.repeat(taken.labels, layer.depth_multiplier)
    if first:
        kernel_axis = len(layer.kernel.shape) - 2
        unit.slices.append(Slices(layer.kernel, {kernel_axis: taken.labels}, "kernel"))
        _bias(unit, layer, out)
    _count_positions(unit, call, axis)
    return _own_activation(trace, call, [Channels(axis, out)])


def _separable(trace: Trace, call: Call) -> list[Channels | None]:
    layer, rank = call.operation, len(call.inputs[0].shape)
    axis = _channel_axis(call, rank)
    taken = trace.channels(call.inputs[0], axis)
    unit, first = trace.unit(call)
    if first:
        made = trace.atoms.fresh(layer.filters, call.name)
        dims = len(layer.depthwise_kernel.shape)
        between = np.repeat(taken.labels, layer.depth_multiplier)
        unit.slices.append(Slices(layer.depthwise_kernel, {dims - 2: taken.labels}, "kernel"))
        pointwise = {dims - 2: between, dims - 1: made}
        unit.slices.append(Slices(layer.pointwise_kernel, pointwise, "kernel", dims - 1))
        _bias(unit, layer, made)
        unit.sizes["filters"] = made
    outputs = _again(trace, call, unit, taken, dims_in=-2, axis=axis)
    return _own_activation(trace, call, outputs)


def _embedding(trace: Trace, call: Call) -> list[Channels | None]:
    layer = call.operation
    trace.lock(call.inputs[0], f"Embedding {call.name!r} takes it as numbers of its rows")
    unit, first = trace.unit(call)
    if first:
        made = trace.atoms.fresh(layer.output_dim, call.name)
        unit.slices.append(Slices(layer.embeddings, {1: made}, "kernel", 1))
        unit.sizes["output_dim"] = made
    made = unit.sizes["output_dim"]
    return [Channels(len(call.outputs[0].shape) - 1, made)]


def _batch_norm(trace: Trace, call: Call) -> list[Channels | None]:
    layer, rank = call.operation, len(call.inputs[0].shape)
    axis = int(layer.axis) % rank
    taken = trace.channels(call.inputs[0], axis)
    names = ("gamma", "beta", "moving_mean", "moving_variance")
    return [_per_channel(trace, call, taken, dict.fromkeys(names, 0))]


def _layer_norm(trace: Trace, call: Call) -> list[Channels | None]:
    layer, rank = call.operation, len(call.inputs[0].shape)
    axes = layer.axis if isinstance(layer.axis, list | tuple) else [layer.axis]
    if len(axes) != 1:
        return trace.opaque(call, f"{call.kind} {call.name!r} is over several axes")
    taken = trace.channels(call.inputs[0], int(axes[0]) % rank)
    return [_per_channel(trace, call, taken, {"gamma": 0, "beta": 0})]


def _layer_scale(trace: Trace, call: Call) -> list[Channels | None]:
    taken = trace.channels(call.inputs[0])
    found = _per_channel(trace, call, taken, {"gamma": 0})
    trace.units[id(call.operation)].sizes["projection_dim"] = found.labels
    return [found]


def _normalization(trace: Trace, call: Call) -> list[Channels | None]:
    layer, rank = call.operation, len(call.inputs[0].shape)
    axes = layer.axis if isinstance(layer.axis, list | tuple) else (layer.axis,)
    known = trace.values.get(call.inputs[0])
    if axes in ((None,), ()):
        return [known]
    if len(axes) != 1 or known is None or int(axes[0]) % rank != known.axis:
        return trace.opaque(call, f"{call.kind} {call.name!r} is over other axes")
    if layer.input_mean is not None:
        return trace.opaque(call, f"{call.kind} {call.name!r} holds constants")
    return [_per_channel(trace, call, known, {"adapt_mean": 0, "adapt_variance": 0})]


def _prelu(trace: Trace, call: Call) -> list[Channels | None]:
    taken = trace.channels(call.inputs[0])
    alpha = call.operation.alpha
    axis = taken.axis - 1
    if alpha.shape[axis] == 1 < len(taken.labels):
        return [taken]
    return [_per_channel(trace, call, taken, {"alpha": axis})]


def _per_channel(trace: Trace, call: Call, taken: Channels, weights: dict[str, int]) -> Channels:
    """A layer with weights a channel: attribute -> axis; channels pass through."""
    unit, first = trace.unit(call)
    if not first and unit.slices:
        (labels,) = {id(x): x for x in unit.slices[0].axes.values()}.values()
        trace.atoms.join(taken.labels, labels)
    if first:
        for name, axis in weights.items():
            variable = getattr(call.operation, name, None)
            if variable is not None:
                role = "scale" if name == "gamma" else "other"
                unit.slices.append(Slices(variable, {axis: taken.labels}, role))
    return taken


def _same(trace: Trace, call: Call) -> list[Channels | None]:
    """Elementwise, or over places alone: channels stay where they are."""
    known = trace.values.get(call.inputs[0])
    if len(call.inputs) != 1:
        return trace.opaque(call, f"{call.kind} {call.name!r} takes several tensors")
    same_rank = len(call.outputs[0].shape) == len(call.inputs[0].shape)
    if known is None or not same_rank:
        return trace.opaque(call, f"{call.kind} {call.name!r} changes the number of axes")
    if call.outputs[0].shape[known.axis] != len(known.labels):
        return trace.opaque(call, f"{call.kind} {call.name!r} changes the number of channels")
    return [known]


def _dropout(trace: Trace, call: Call) -> list[Channels | None]:
    noise, known = getattr(call.operation, "noise_shape", None), trace.values.get(call.inputs[0])
    if noise is not None and known is not None and noise[known.axis] not in (None, 1):
        return trace.opaque(call, f"{call.kind} {call.name!r} has a noise_shape")
    return _same(trace, call)


def _clip(trace: Trace, call: Call) -> list[Channels | None]:
    if np.size(call.operation.x_min) > 1 or np.size(call.operation.x_max) > 1:
        return trace.opaque(call, f"{call.kind} {call.name!r} holds constants a channel")
    return _same(trace, call)


def _pooling(trace: Trace, call: Call) -> list[Channels | None]:
    """Pooling and the like, over places along all axes but that of the channels."""
    axis = _channel_axis(call, len(call.inputs[0].shape))
    return [trace.channels(call.inputs[0], axis)]


def _global_pooling(trace: Trace, call: Call) -> list[Channels | None]:
    taken = trace.channels(call.inputs[0], _channel_axis(call, len(call.inputs[0].shape)))
    keep = getattr(call.operation, "keepdims", False)
    return [Channels(taken.axis if keep else 1, taken.labels)]


def _activation(trace: Trace, call: Call) -> list[Channels | None]:
    return _own_activation(trace, call, _same(trace, call))


def _own_activation(
    trace: Trace, call: Call, outputs: list[Channels | None]
) -> list[Channels | None]:
    """Locks channels that an activation weighs, or may weigh, against each other."""
    activation = getattr(call.operation, "activation", None)
    if activation is None or _is_elementwise(activation):
        return outputs
    name = getattr(activation, "__name__", type(activation).__name__)
    if name in ("softmax", "log_softmax", "sparsemax", "glu"):
        reason = f"{name} of {call.name!r} weighs channels against each other"
    else:
        reason = f"the activation {name} of {call.name!r} is not understood"
    for found in outputs:
        if found is not None:
            trace.atoms.lock(found.labels, reason)
    return outputs


def _is_elementwise(activation: Any) -> bool:
    """Whether it is a function, or a layer, of Keras' (or TensorFlow's) on single numbers."""
    known = activation if hasattr(activation, "__name__") else type(activation)
    name, module = known.__name__, str(getattr(known, "__module__", ""))
    allowed = _ACTIVATIONS if known is activation else _ACTIVATION_LAYERS
    return name in allowed and module.split(".")[0] in ("keras", "tensorflow")


def _rescaling(trace: Trace, call: Call) -> list[Channels | None]:
    layer = call.operation
    if np.size(layer.scale) > 1 or np.size(layer.offset) > 1:
        return trace.opaque(call, f"{call.kind} {call.name!r} holds constants a channel")
    return _same(trace, call)


def _elementwise(trace: Trace, call: Call) -> list[Channels | None]:
    """Sums, products and the like, of tensors that broadcast against each other."""
    if _has_wide_constant(call):
        return trace.opaque(call, f"{call.kind} {call.name!r} holds a constant a channel")
    rank = len(call.outputs[0].shape)
    known = [trace.values.get(value) for value in call.inputs]
    # Counted from the right, as broadcasting does.
    axes = {len(v.shape) - k.axis for v, k in zip(call.inputs, known, strict=True) if k}
    if None in known or len(axes) != 1:
        return trace.opaque(call, f"{call.kind} {call.name!r} meets channels on several axes")
    wide = [k.labels for k in known if k is not None and len(k.labels) > 1]
    for k in known:
        if k is not None and len(k.labels) == 1:
            trace.atoms.lock(k.labels, f"{call.kind} {call.name!r} spreads it over all channels")
    if not wide:
        wide = [known[0].labels]  # type: ignore[union-attr]
    for labels in wide[1:]:
        trace.atoms.join(wide[0], labels)
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


def _average(trace: Trace, call: Call) -> list[Channels | None]:
    """The layer is a merge; the operation of this name reduces an axis."""
    if hasattr(call.operation, "axis"):
        return trace.opaque(call, f"{call.kind} {call.name!r} is not understood")
    return _elementwise(trace, call)


def _concatenate(trace: Trace, call: Call) -> list[Channels | None]:
    rank = len(call.outputs[0].shape)
    axis = int(getattr(call.operation, "axis", -1)) % rank
    known = [trace.values.get(value) for value in call.inputs]
    if None in known or len({k.axis for k in known if k}) != 1:
        return trace.opaque(call, f"{call.kind} {call.name!r} meets channels on several axes")
    rows = [k.labels for k in known if k is not None]
    where = known[0].axis  # type: ignore[union-attr]
    if where == axis:
        return [Channels(axis, np.concatenate(rows))]
    for row in rows[1:]:
        trace.atoms.join(rows[0], row)
    return [Channels(where, rows[0])]


def _reshape(trace: Trace, call: Call) -> list[Channels | None]:
    known = trace.values.get(call.inputs[0])
    found = None if known is None else reshaped(known, call.inputs[0].shape, call.outputs[0].shape)
    if found is None:
        return trace.opaque(call, f"{call.kind} {call.name!r} mixes channels with places")
    unit, first = trace.unit(call)
    if first:
        unit.sizes["channels"] = found.labels
    elif len(unit.sizes["channels"]) == len(found.labels):
        trace.atoms.join(unit.sizes["channels"], found.labels)
    return [found]


def _flatten(trace: Trace, call: Call) -> list[Channels | None]:
    known, shape = trace.values.get(call.inputs[0]), call.inputs[0].shape
    if known is not None and call.operation.data_format == "channels_first":
        order = [0, *range(2, len(shape)), *([1] if len(shape) > 1 else [])]
        known, shape = _moved(known, order), tuple(shape[axis] for axis in order)
    found = None if known is None else reshaped(known, shape, call.outputs[0].shape)
    if found is None:
        return trace.opaque(call, f"{call.kind} {call.name!r} is of an open size")
    return [found]


def _permute(trace: Trace, call: Call) -> list[Channels | None]:
    known = trace.values.get(call.inputs[0])
    axes = getattr(call.operation, "axes", None)
    dims = getattr(call.operation, "dims", None)
    order = [0, *dims] if dims is not None else axes
    if known is None or order is None:
        return trace.opaque(call, f"{call.kind} {call.name!r} is not understood")
    return [_moved(known, [int(axis) % len(order) for axis in order])]


def _moved(known: Channels, order: Sequence[int]) -> Channels:
    return Channels(order.index(known.axis), known.labels)


def _reduce(trace: Trace, call: Call) -> list[Channels | None]:
    """A mean, sum or largest value over places."""
    known = trace.values.get(call.inputs[0])
    rank = len(call.inputs[0].shape)
    axes = getattr(call.operation, "axis", None)
    given = [axes] if isinstance(axes, int) else axes
    if known is None or given is None or known.axis in {int(a) % rank for a in given}:
        return trace.opaque(call, f"{call.kind} {call.name!r} is over channels")
    if call.operation.keepdims:
        return [known]
    before = sum(int(a) % rank < known.axis for a in given)
    return [Channels(known.axis - before, known.labels)]


def _get_item(trace: Trace, call: Call) -> list[Channels | None]:
    """Part of the places; a part of the channels is not understood."""
    known = trace.values.get(call.inputs[0])
    arguments = call.node.arguments
    key = arguments.kwargs.get("key", arguments.args[1] if len(arguments.args) > 1 else None)
    parts = key if isinstance(key, tuple) else (key,)
    plain = all(isinstance(part, slice) for part in parts)
    if known is None or not plain or any(p != slice(None) for p in parts[known.axis :]):
        return trace.opaque(call, f"{call.kind} {call.name!r} may take some channels alone")
    return [known]


_SAME_KINDS = {
    *("GaussianNoise", "GaussianDropout", "Identity", "ActivityRegularization"),
    *("StochasticDepth", "DropPath"),
    *("ReLU", "LeakyReLU", "ELU", "Relu", "Relu6", "LeakyRelu", "Elu", "Selu", "Sigmoid"),
    *("Silu", "HardSilu", "HardSigmoid", "Tanh", "HardTanh", "Gelu", "Softplus", "Softsign"),
    *("Exp", "Absolute", "Abs", "Negative", "Square", "Sqrt", "Rsqrt", "Cast", "Log"),
    *("Celu", "Mish", "Swish", "Log1p", "Reciprocal"),
    *("ZeroPadding1D", "ZeroPadding2D", "ZeroPadding3D", "Pad"),
    *("Cropping1D", "Cropping2D", "Cropping3D"),
    *("UpSampling1D", "UpSampling2D", "UpSampling3D"),
}
_FOREIGN = ("DropPath", "StochasticDepth")  # not of Keras, but by these names everywhere
_DROPOUTS = {"Dropout", "AlphaDropout", "SpatialDropout1D", "SpatialDropout2D", "SpatialDropout3D"}
_IMAGES = {
    *("Resizing", "Resize"),
    *("RandomFlip", "RandomTranslation", "RandomRotation", "RandomZoom"),
}
_ACTIVATIONS = {
    *("linear", "relu", "relu6", "leaky_relu", "elu", "selu", "celu", "gelu", "silu", "swish"),
    *("mish", "sigmoid", "hard_sigmoid", "hard_silu", "hard_swish", "hard_tanh", "hard_shrink"),
    *("soft_shrink", "tanh_shrink", "threshold", "squareplus", "tanh", "softplus", "softsign"),
    *("exponential", "exp", "log_sigmoid", "sparse_plus", "sparse_sigmoid"),
}
_ACTIVATION_LAYERS = {"ReLU", "LeakyReLU", "ELU"}
_MERGES = {
    *("Add", "Subtract", "Multiply", "Maximum", "Minimum", "Divide", "TrueDivide"),
    *("Power", "Mod", "SquaredDifference"),
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
