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
_DROPOUTS = {"Dropout", "AlphaDropout", "SpatialDropout1D", "SpatialDropout2D", "SpatialDropout3D"}
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


def _activation(trace: ChannelTrace, call: Call) -> list[Channels | None]:
    return own_activation(trace, call, _same(trace, call))


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


ELEMENTWISE_RULES: dict[str, Rule] = {
    **dict.fromkeys(_SAME_KINDS, _same),
    **dict.fromkeys(_DROPOUTS, _dropout),
    **dict.fromkeys(_MERGES, _elementwise),
    "Activation": _activation,
    "Average": _average,
    "Clip": _clip,
    "Rescaling": _rescaling,
}
