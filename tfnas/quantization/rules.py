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
| FLOAT   | stays float                                                               |
"""

from __future__ import annotations

import enum
import math
from typing import Any

from tfnas.rewrite import Call


class Role(enum.Enum):
    """See the module's table."""

    KERNEL = enum.auto()
    NORM = enum.auto()
    AFFINE = enum.auto()
    RELU = enum.auto()
    COMPUTE = enum.auto()
    FIXED = enum.auto()
    SAME = enum.auto()
    FLOAT = enum.auto()


_KERNELS = {
    *("Dense", "Conv1D", "Conv2D", "DepthwiseConv1D", "DepthwiseConv2D", "Conv2DTranspose"),
}
# The converter wants one scale for the whole kernel of these ("'tfl.transpose' op has
# mismatched quantized axes" otherwise); all others have one a channel.
ONE_SCALE = ("Dense", "Conv2DTranspose")
LEAST_BITS = {"Conv2DTranspose": 8}  # TFLite has no 4-bit kernel for these
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


def role(call: Call) -> Role:
    """Returns what a call becomes."""
    kind = call.kind
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


def fixed_range(call: Call) -> tuple[float, float]:
    """The range of a call with the role FIXED, as TFLite's 8-bit kernels have it."""
    return _FIXED_RANGES[activation_name(call) or ""]


def reason_for_float(call: Call) -> str:
    """Why a call stays float."""
    name = activation_name(call)
    if name is not None:
        return f"no integer form of the activation {name!r}"
    if call.kind in _BINARY:
        return f"{call.kind} with a number, not another tensor"
    return f"no integer form of {call.kind}"


def activation_of(layer: Any) -> str | None:
    """Name of a layer's own activation, None where it has none."""
    name = getattr(getattr(layer, "activation", None), "__name__", None)
    return None if name in (None, "linear") else str(name)
