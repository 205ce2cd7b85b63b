"""Roles: what each layer or operation becomes in an integer file.

| role    | meaning                                                                    |
|---------|----------------------------------------------------------------------------|
| KERNEL  | has a kernel, which is quantized as its output is                          |
| WEIGHTS | a registered layer with weights: they are quantized as its output is       |
| LOOP    | a recurrent layer: each step computes in integers, and its output is       |
|         | quantized                                                                  |
| ROWS    | rows of a table, which is quantized as its output is: Embedding; and the     |
|         | product with the table of a ReversibleEmbedding                            |
| NORM    | BatchNormalization: folded into the kernel before it, else like AFFINE     |
| AFFINE  | a factor and an offset for each channel: Rescaling, Normalization,         |
|         | LayerScale                                                                 |
| RELU    | clipping, which is part of the quantization of the output before it        |
| COMPUTE | computes in integers; its output is quantized                              |
| FORM    | several integer operators with ranges of their own compute it              |
| TABLE   | a function of single numbers: the file looks its 256 values up             |
| FIXED   | its output has a range that TFLite prescribes                              |
| SAME    | moves values without changing them; scale and zero point stay              |
| OPEN    | a registered layer that is unfolded into the layers and operations inside  |
| FLOAT   | stays float                                                                |

A custom layer class has the role that it was registered with
(:func:`tfnas.register_layer`), else FLOAT.
"""

from __future__ import annotations

import math
from typing import Any

from tfnas.graph.functional import Call
from tfnas.graph.idle_layers import IDLE
from tfnas.graph.place_tables import reads_sizes_alone
from tfnas.graph.registered_layers import is_of_keras
from tfnas.keras_private import mask_of
from tfnas.quantization.call_forms import (
    computes_integers,
    fills,
    is_equal_scores,
    is_zeroed,
    masked_scores,
    number_compared,
    product_equation,
    repeats_places,
)
from tfnas.quantization.einsum_axes import dense_axes
from tfnas.quantization.layer_registry import Role, registered_role
from tfnas.quantization.normalization_rules import NORMALIZATIONS, reason_against_form
from tfnas.quantization.recurrent_cells import KINDS, reason_for_float_loop
from tfnas.quantization.table_functions import TABLE_FUNCTIONS, table_function

KERNEL_LAYERS = (
    "Dense",
    "Conv1D",
    "Conv2D",
    "DepthwiseConv1D",
    "DepthwiseConv2D",
    "Conv2DTranspose",
    "EinsumDense",
)
# The converter requires one scale for the entire kernel of these ("'tfl.transpose' op has
# mismatched quantized axes" otherwise); all others have one scale per channel.
ONE_SCALE = ("Dense", "EinsumDense", "Conv2DTranspose")
_EIGHT_BITS = ("Conv2DTranspose",)  # TFLite has no 4-bit kernel for these
# Nor for these with 16-bit activations: the interpreter accepts such a file and misreads it.
_EIGHT_BITS_16 = ("Conv2DTranspose", "DepthwiseConv1D", "DepthwiseConv2D")
_SAME = {
    *IDLE,
    "Flatten",
    "Flip",
    "Reshape",
    "Permute",
    "Squeeze",
    "ExpandDims",
    "Transpose",
    "Swapaxes",
    "Moveaxis",
    "GetItem",
    "ZeroPadding1D",
    "ZeroPadding2D",
    "Pad",
    "Cropping1D",
    "Cropping2D",
    "UpSampling1D",
    "UpSampling2D",
    "RepeatVector",
    "MaxPooling1D",
    "MaxPooling2D",
    "AveragePooling1D",
    "AveragePooling2D",
    "GlobalMaxPooling1D",
    "GlobalMaxPooling2D",
    "TopK",
}
# Rows at constant places become a constant of 8 bits, which no operator of 16 bits takes; the
# converter has no TOPK_V2 of 16 bits.
_AT_MOST_8_BITS = ("Constant", "TopK")
_COMPUTE = {
    "Add",
    "Subtract",
    "Multiply",
    "Maximum",
    "Minimum",
    "Concatenate",
    "GlobalAveragePooling1D",
    "GlobalAveragePooling2D",
    "LeakyReLU",
    "LeakyRelu",
    "Matmul",
    "Mean",
    "OneHotCategories",
    "Silu",
    "SixteenBitActivation",
    "HardSilu",
    "Relu",
}
_ACTIVATIONS = {
    **dict.fromkeys(
        ("silu", "swish", "hard_silu", "hard_swish", "leaky_relu", "gelu"), Role.COMPUTE
    ),
    **dict.fromkeys(("relu", "relu6"), Role.RELU),
    **dict.fromkeys(("sigmoid", "tanh", "softmax"), Role.FIXED),
    "linear": Role.SAME,
    **dict.fromkeys(TABLE_FUNCTIONS, Role.TABLE),
}
_OPERATIONS = {
    "Relu": "relu",
    "Relu6": "relu6",
    "Sigmoid": "sigmoid",
    "Tanh": "tanh",
    "Gelu": "gelu",
}
_FIXED_RANGES = {
    **dict.fromkeys(("sigmoid", "softmax"), (0.0, 255.0 / 256.0)),
    "tanh": (-1.0, 127.0 / 128.0),
}
_REGISTER = " (tfnas.register_layer can give it one)"
_FIXED_16 = (-32767.0 / 32768.0, 32767.0 / 32768.0)  # a scale of 2^-15 for all functions


def role(call: Call, bits: int = 8) -> Role:
    """Returns the role of a call between activations of a number of bits."""
    found = _role(call)
    narrow = found is Role.TABLE or call.kind in _AT_MOST_8_BITS
    return Role.FLOAT if narrow and bits > 8 else found


def _role(call: Call) -> Role:
    kind, registered = call.kind, registered_role(call.operation)
    if registered is not None:
        return registered
    if kind == "EinsumDense" and dense_axes(call.operation) is None:
        return Role.FLOAT
    if kind in KERNEL_LAYERS:
        return Role.FLOAT if is_dilated_depthwise(call) else Role.KERNEL
    if kind in KINDS:
        return Role.LOOP if reason_for_float_loop(call) is None else Role.FLOAT
    if kind in ("Embedding", "ReversibleEmbedding"):
        return Role.ROWS
    if kind == "BatchNormalization":
        return Role.NORM
    if kind in ("Rescaling", "Normalization") or is_layer_scale(call):
        return Role.AFFINE
    if kind in NORMALIZATIONS:
        return Role.FLOAT if reason_against_form(call) else Role.FORM
    if kind == "PReLU":
        return Role.FORM
    if kind in ("Max", "Min"):
        return Role.SAME if call.operation.initial is None else Role.FLOAT
    if kind == "Constant":
        return Role.COMPUTE if "float" in call.outputs[0].dtype else Role.SAME
    if kind in _SAME or computes_integers(call) or repeats_places(call):
        return Role.SAME
    if kind in ("Einsum", "Dot"):
        return Role.COMPUTE if product_equation(call) is not None else Role.FLOAT
    if kind == "Where":
        known = masked_scores(call) or is_zeroed(call) or is_equal_scores(call)
        return Role.COMPUTE if known else Role.FLOAT
    if reads_sizes_alone(call) or fills(call) or number_compared(call) is not None:
        return Role.COMPUTE
    name = activation_name(call)
    if name is not None:
        return _ACTIVATIONS.get(name, Role.FLOAT)
    if kind in _COMPUTE:
        if averages_by_mask(call):
            return Role.FLOAT
        return Role.COMPUTE if len(call.inputs) > 1 or kind not in BINARY else Role.FLOAT
    return Role.FLOAT


def is_dilated_depthwise(call: Call) -> bool:
    """Whether a call is a depthwise convolution with holes.

    TensorFlow computes it by several operations, which the converter does not join where they are
    rounded; its one operation for it runs on no CPU.
    """
    return call.kind.startswith("Depthwise") and max(call.operation.dilation_rate) > 1


def averages_by_mask(call: Call) -> bool:
    """Whether a call averages over the steps that a mask leaves, which no integer operator does."""
    masked = len(call.inputs) > 1 or mask_of(call.inputs[0]) is not None
    return call.kind == "GlobalAveragePooling1D" and masked


BINARY = {"Add", "Subtract", "Multiply", "Maximum", "Minimum", "Matmul"}


def kernel_bits(kind: str, bits: int, activation_bits: int) -> int:
    """Returns the requested bits, or 8 where TFLite has no kernel with fewer."""
    eight_only = _EIGHT_BITS_16 if activation_bits > 8 else _EIGHT_BITS
    return max(bits, 8) if kind in eight_only else bits


def fuses_relu(call: Call) -> bool:
    """Whether TFLite's operator for a call can include a ReLU after it."""
    fusing = ("Add", "Subtract", "Multiply", "Concatenate")
    return role(call) in (Role.KERNEL, Role.NORM, Role.AFFINE) or call.kind in fusing


def is_layer_scale(call: Call) -> bool:
    """Whether a call is one of keras.applications' LayerScale, over at most 4 dimensions."""
    of_keras = is_of_keras(type(call.operation))
    return call.kind == "LayerScale" and of_keras and len(call.inputs[0].shape) <= 4


def is_channel_norm(call: Call) -> bool:
    """Whether a BatchNormalization is over the last axis of at most 4 dimensions."""
    rank = len(call.inputs[0].shape)
    return rank <= 4 and call.operation.axis in (-1, rank - 1)


def activation_name(call: Call) -> str | None:
    """Returns the name of the activation function that a call is; None for other calls."""
    kind, operation = call.kind, call.operation
    if kind == "Activation":
        return str(getattr(operation.activation, "__name__", ""))
    if kind == "ReLU" and not operation.negative_slope and not operation.threshold:
        return "relu"
    if kind in ("Softmax", "LeakyReLU"):
        return {"Softmax": "softmax", "LeakyReLU": "leaky_relu"}[kind]
    return _OPERATIONS.get(kind) or table_function(call)


def relu_limit(call: Call) -> float:
    """Returns the maximum output of a call with the role RELU, math.inf if there is none."""
    max_value = getattr(call.operation, "max_value", None)
    if max_value is not None:
        return float(max_value)
    return 6.0 if activation_name(call) == "relu6" else math.inf


def fixed_range(call: Call, bits: int = 8) -> tuple[float, float]:
    """Returns the output range that TFLite's kernels prescribe for a call with the role FIXED."""
    return _FIXED_16 if bits > 8 else _FIXED_RANGES[activation_name(call) or ""]


def reason_for_float(call: Call) -> str:
    """Why a call stays float."""
    if registered_role(call.operation) is Role.FLOAT:
        return f"{call.kind} is registered as float"
    if call.kind in KINDS:
        return reason_for_float_loop(call) or ""
    if averages_by_mask(call):
        return f"no integer form of {call.kind} with a mask"
    if is_dilated_depthwise(call):
        return f"no integer form of {call.kind} with dilation in training"
    if call.kind in NORMALIZATIONS:
        return f"no integer form of {reason_against_form(call)}"
    name = activation_name(call)
    if name is not None:
        bits = "16-bit" if _role(call) is Role.TABLE else "integer"
        return f"no {bits} form of the activation {name!r}"
    if call.kind in _AT_MOST_8_BITS:
        bits = "integer" if _role(call) is Role.FLOAT else "16-bit"
        return f"no {bits} form of {'a constant' if call.kind == 'Constant' else call.kind}"
    if call.kind in BINARY:
        return f"{call.kind} with a constant, not another tensor"
    hint = "" if is_of_keras(type(call.operation)) else _REGISTER
    return f"no integer form of {call.kind}{hint}"


def activation_of(layer: Any) -> str | None:
    """Returns the name of a layer's `activation` argument, None where it is linear."""
    name = getattr(getattr(layer, "activation", None), "__name__", None)
    return None if name in (None, "linear") else str(name)
