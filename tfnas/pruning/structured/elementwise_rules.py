"""Rules of elementwise layers and operations, and of those over positions alone.

With one input the output channels are those of the input; with several the channels of all
operands are coupled.
"""

from __future__ import annotations

import numpy as np

from tfnas.graph.functional import Call
from tfnas.graph.idle_layers import IDLE
from tfnas.pruning.structured.activation_rules import own_activation
from tfnas.pruning.structured.channel_ids import Channels
from tfnas.pruning.structured.channel_trace import ChannelTrace, Rule

_SAME_KINDS = {
    *IDLE,
    *("ReLU", "LeakyReLU", "ELU", "Relu", "Relu6", "LeakyRelu", "Elu", "Selu", "Celu", "Gelu"),
    *("Sigmoid", "Silu", "HardSilu", "HardSigmoid", "Tanh", "HardTanh", "Softplus", "Softsign"),
    *("Mish", "Swish", "SoftShrink", "HardShrink", "TanhShrink", "Squareplus", "LogSigmoid"),
    *("SparsePlus", "SparseSigmoid", "Threshold"),
    *("Exp", "Expm1", "Log", "Log1p", "Log2", "Log10", "Absolute", "Abs", "Negative", "Sign"),
    *("Square", "Sqrt", "Rsqrt", "Cbrt", "Reciprocal", "Sin", "Cos", "Tan", "Arctan", "Sinh"),
    *("Cosh", "Floor", "Ceil", "Round", "Trunc", "Isnan", "Isfinite", "LogicalNot", "NanToNum"),
    *("Cast", "Copy", "StopGradient", "ConvertToTensor", "ZerosLike", "OnesLike"),
    *("Pad", *(f"ZeroPadding{n}D" for n in (1, 2, 3)), *(f"Cropping{n}D" for n in (1, 2, 3))),
    *(f"UpSampling{n}D" for n in (1, 2, 3)),
}
_DROPOUTS = {"Dropout", "AlphaDropout", "SpatialDropout1D", "SpatialDropout2D", "SpatialDropout3D"}
_MERGES = {
    *("Add", "Subtract", "Multiply", "Maximum", "Minimum", "Divide", "TrueDivide", "Power", "Mod"),
    *("SquaredDifference", "FloorDivide", "DivideNoNan", "Logaddexp", "Hypot", "Arctan2", "Where"),
    *("Equal", "NotEqual", "Greater", "GreaterEqual", "Less", "LessEqual"),
    *("LogicalAnd", "LogicalOr", "LogicalXor"),
}


def _same(trace: ChannelTrace, call: Call) -> list[Channels]:
    """Elementwise, or over positions alone: the channels are those of the input."""
    if len(call.inputs) != 1:
        return trace.opaque(call, f"{call.kind} {call.name!r} takes several tensors")
    value, known = call.inputs[0], trace.known(call.inputs[0])
    if len(call.outputs[0].shape) != len(value.shape):
        return trace.opaque(call, f"{call.kind} {call.name!r} changes the number of axes")
    changed = [axis for axis in known.axes if call.outputs[0].shape[axis] != value.shape[axis]]
    if not changed:
        return [known]
    trace.lock(value, f"{call.kind} {call.name!r} changes the number of channels", changed)
    return [Channels({axis: ids for axis, ids in known.axes.items() if axis not in changed})]


def _dropout(trace: ChannelTrace, call: Call) -> list[Channels]:
    noise, known = getattr(call.operation, "noise_shape", None), trace.known(call.inputs[0])
    if noise is not None and any(noise[axis] not in (None, 1) for axis in known.axes):
        return trace.opaque(call, f"{call.kind} {call.name!r} has a noise_shape")
    return _same(trace, call)


def _clip(trace: ChannelTrace, call: Call) -> list[Channels]:
    if np.size(call.operation.x_min) > 1 or np.size(call.operation.x_max) > 1:
        return trace.opaque(call, f"{call.kind} {call.name!r} has one constant per channel")
    return _same(trace, call)


def _activation(trace: ChannelTrace, call: Call) -> list[Channels]:
    return own_activation(trace, call, _same(trace, call))


def _rescaling(trace: ChannelTrace, call: Call) -> list[Channels]:
    layer = call.operation
    if np.size(layer.scale) > 1 or np.size(layer.offset) > 1:
        return trace.opaque(call, f"{call.kind} {call.name!r} has one constant per channel")
    return _same(trace, call)


def _elementwise(trace: ChannelTrace, call: Call) -> list[Channels]:
    """Sums, products and other elementwise operations with broadcasting."""
    rank = len(call.outputs[0].shape)
    constants = _constant_shapes(call)
    found = {}
    for axis in range(rank):
        behind = rank - axis  # axes are counted from the right, as in broadcasting
        present = [value for value in call.inputs if len(value.shape) >= behind]
        rows = [trace.known(v).axes.get(len(v.shape) - behind) for v in present]
        sizes = [v.shape[len(v.shape) - behind] for v in present]
        ids = trace.meet(rows, sizes, f"{call.kind} {call.name!r}")
        if ids is None:
            continue
        if any(len(shape) >= behind and shape[-behind] > 1 for shape in constants):
            trace.ids.lock(ids, f"{call.kind} {call.name!r} has one constant per channel")
        found[axis] = ids
    return [Channels(found)]


def _constant_shapes(call: Call) -> list[tuple[int, ...]]:
    """The shapes of the arguments that are no tensors of the model."""
    arguments = call.node.arguments
    flat = [*arguments.args, *arguments.kwargs.values()]
    items = [x for part in flat for x in (part if isinstance(part, list | tuple) else [part])]
    symbolic = {id(tensor) for tensor in call.node.input_tensors}
    return [tuple(np.shape(x)) for x in items if hasattr(x, "shape") and id(x) not in symbolic]


def _average(trace: ChannelTrace, call: Call) -> list[Channels]:
    """The layer Average adds up its inputs; the operation of this name reduces an axis."""
    if hasattr(call.operation, "axis"):
        return trace.opaque(call, f"{call.kind} {call.name!r} is not supported")
    return _elementwise(trace, call)


ELEMENTWISE_RULES: dict[str, Rule] = {
    **dict.fromkeys(_SAME_KINDS, _same),
    **dict.fromkeys(_DROPOUTS, _dropout),
    **dict.fromkeys(_MERGES, _elementwise),
    "Activation": _activation,
    "Average": _average,
    "Clip": _clip,
    "Rescaling": _rescaling,
}
