"""What each layer or operation becomes in an integer file.

| role    | meaning                                                                   |
|---------|---------------------------------------------------------------------------|
| KERNEL  | has a kernel that is rounded; its output is rounded                       |
| NORM    | BatchNormalization: folded into a kernel before it, else a factor a channel|
| AFFINE  | a factor and an offset a channel: Rescaling, Normalization                |
| RELU    | clipping, which the rounding of what comes before it does                 |
| COMPUTE | computes in integers; its output is rounded                               |
| FIXED   | its output has a range that TFLite fixes                                  |
| SAME    | moves numbers without changing them: the grid stays                       |
| OPEN    | laid open first: what it computes with has roles of its own               |
| FLOAT   | stays float                                                               |

A layer class of the user's own is what it was registered as (:mod:`.roles`), else FLOAT.
"""

from __future__ import annotations

import math
from typing import Any

from tfnas.graph.functional import Call
from tfnas.quantization.layer_registry import Role, registered_role

_KERNELS = {
    *("Dense", "Conv1D", "Conv2D", "DepthwiseConv1D", "DepthwiseConv2D", "Conv2DTranspose"),
}
# The converter wants one scale for the whole kernel of these ("'tfl.transpose' op has
# mismatched quantized axes" otherwise); all others have one a channel.
ONE_SCALE = ("Dense", "Conv2DTranspose")
_EIGHT_BITS = ("Conv2DTranspose",)  # TFLite has no 4-bit kernel for these
# Nor these with 16-bit activations: the interpreter takes such a file and misreads it.
_EIGHT_BITS_16 = ("Conv2DTranspose", "DepthwiseConv1D", "DepthwiseConv2D")
_SAME = {
    *("Dropout", "SpatialDropout1D", "SpatialDropout2D", "GaussianNoise", "GaussianDropout"),
    *("Identity", "ActivityRegularization", "Flatten", "Reshape", "Permute", "Squeeze"),
    *("ExpandDims", "Transpose", "GetItem", "ZeroPadding1D", "ZeroPadding2D", "Pad"),
    *("Cropping1D", "Cropping2D", "UpSampling1D", "UpSampling2D", "RepeatVector"),
    *("MaxPooling1D", "MaxPooling2D", "AveragePooling1D", "AveragePooling2D"),
    *("GlobalMaxPooling1D", "GlobalMaxPooling2D", "StochasticDepth", "DropPath"),
}
_COMPUTE = {
    *("Add", "Subtract", "Multiply", "Maximum", "Minimum", "Concatenate"),
    *("GlobalAveragePooling1D", "GlobalAveragePooling2D", "LeakyReLU", "LeakyRelu", "Mean"),
    *("Silu", "HardSilu", "Relu"),
}
_ACTIVATIONS = {
    **dict.fromkeys(("silu", "swish", "hard_silu", "hard_swish", "leaky_relu"), Role.COMPUTE),
    **dict.fromkeys(("relu", "relu6"), Role.RELU),
    **dict.fromkeys(("sigmoid", "tanh", "softmax"), Role.FIXED),
    "linear": Role.SAME,
}
_OPERATIONS = {"Relu": "relu", "Relu6": "relu6", "Sigmoid": "sigmoid", "Tanh": "tanh"}
_FIXED_RANGES = {
    **dict.fromkeys(("sigmoid", "softmax"), (0.0, 255.0 / 256.0)),
    "tanh": (-1.0, 127.0 / 128.0),
}
_REGISTER = " (tfnas.register_quantizable can give it one)"
_FIXED_16 = (-32767.0 / 32768.0, 32767.0 / 32768.0)  # a step of 2^-15, for all of them


def role(call: Call) -> Role:
    """Returns what a call becomes."""
    kind, registered = call.kind, registered_role(call.operation)
    if registered is not None:
        return registered
    if kind in _KERNELS:
        return Role.KERNEL
    if kind == "BatchNormalization":
        return Role.NORM
    if kind in ("Rescaling", "Normalization"):
        return Role.AFFINE
    if kind in _SAME:
        return Role.SAME
    name = activation_name(call)
    if name is not None:
        return _ACTIVATIONS.get(name, Role.FLOAT)
    if kind in _COMPUTE:
        return Role.COMPUTE if len(call.inputs) > 1 or kind not in _BINARY else Role.FLOAT
    return Role.FLOAT


_BINARY = {"Add", "Subtract", "Multiply", "Maximum", "Minimum"}


def kernel_bits(kind: str, bits: int, activation_bits: int) -> int:
    """The bits that TFLite has a kernel for, where others were asked for."""
    without = _EIGHT_BITS_16 if activation_bits > 8 else _EIGHT_BITS
    return max(bits, 8) if kind in without else bits


def fuses_relu(call: Call) -> bool:
    """Whether TFLite's operator for a call has a ReLU inside, so that one rounding does."""
    fusing = ("Add", "Subtract", "Multiply", "Concatenate")
    return role(call) in (Role.KERNEL, Role.NORM, Role.AFFINE) or call.kind in fusing


def is_channel_norm(call: Call) -> bool:
    """Whether a BatchNormalization is a factor and an offset a channel of the last axis."""
    rank = len(call.inputs[0].shape)
    return rank <= 4 and call.operation.axis in (-1, rank - 1)


def activation_name(call: Call) -> str | None:
    """Name of the activation function that a call is, None where it is something else."""
    kind, operation = call.kind, call.operation
    if kind == "Activation":
        return str(getattr(operation.activation, "__name__", ""))
    if kind == "ReLU":
        plain = not operation.negative_slope and not operation.threshold
        return "relu" if plain else None
    if kind in ("Softmax", "LeakyReLU"):
        return {"Softmax": "softmax", "LeakyReLU": "leaky_relu"}[kind]
    return _OPERATIONS.get(kind)


def relu_limit(call: Call) -> float:
    """The highest value that a call with the role RELU lets through."""
    highest = getattr(call.operation, "max_value", None)
    if highest is not None:
        return float(highest)
    return 6.0 if activation_name(call) == "relu6" else math.inf


def fixed_range(call: Call, bits: int = 8) -> tuple[float, float]:
    """The range of a call with the role FIXED, as TFLite's kernels of 8 or 16 bits have it."""
    return _FIXED_16 if bits > 8 else _FIXED_RANGES[activation_name(call) or ""]


def reason_for_float(call: Call) -> str:
    """Why a call stays float."""
    if registered_role(call.operation) is Role.FLOAT:
        return f"{call.kind} is registered as float"
    name = activation_name(call)
    if name is not None:
        return f"no integer form of the activation {name!r}"
    if call.kind in _BINARY:
        return f"{call.kind} with a constant, not another tensor"
    hint = "" if type(call.operation).__module__.startswith("keras.") else _REGISTER
    return f"no integer form of {call.kind}{hint}"


def activation_of(layer: Any) -> str | None:
    """Name of a layer's own activation, None where it has none."""
    name = getattr(getattr(layer, "activation", None), "__name__", None)
    return None if name in (None, "linear") else str(name)
