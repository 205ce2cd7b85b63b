"""Counts the multiply-accumulates (MACs) of one call of a layer, per example.

One multiplication with its addition counts as one, as in the MobileNetV2 paper: in convolutions,
dense layers, einsums and matrix products. Normalization, activations, additions and pooling count
as zero.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from tfnas.graph.functional import Call, Value
from tfnas.graph.idle_layers import IDLE


def call_macs(call: Call) -> int | None:
    """Returns the number of MACs of a call; None where it is unknown."""
    counter = _COUNTERS.get(call.kind)
    if counter is not None:
        return counter(call)
    is_free = not weights_of(call.operation) or call.kind in _FREE_WITH_WEIGHTS
    return 0 if is_free else None


def _convolution(call: Call) -> int:
    kernel = call.operation.kernel.shape  # (*sizes, channels in a group, filters)
    return elements(kernel) * _positions(call.outputs[0], call)


def _transposed(call: Call) -> int:
    return elements(call.operation.kernel.shape) * _positions(call.inputs[0], call)


def _depthwise(call: Call) -> int:
    return elements(call.operation.kernel.shape) * _positions(call.outputs[0], call)


def _separable(call: Call) -> int:
    layer = call.operation
    kernels = elements(layer.depthwise_kernel.shape) + elements(layer.pointwise_kernel.shape)
    return kernels * _positions(call.outputs[0], call)


def _dense(call: Call) -> int:
    return elements(call.operation.kernel.shape) * elements(call.outputs[0].shape[1:-1])


def _einsum_dense(call: Call) -> int | None:
    layer = call.operation
    left, right = layer.equation.replace(" ", "").split("->")[0].split(",")
    if "." in left:
        leading = len(call.inputs[0].shape) - len(left.replace(".", ""))
        left = "ABCDEFGH"[:leading] + left.replace(".", "")
        right = right.replace(".", "")
    sizes = dict(zip(left, call.inputs[0].shape, strict=True))
    sizes.update(zip(right, layer.kernel.shape, strict=True))
    sizes.pop(left[0])  # the batch
    return elements(tuple(sizes.values()))


def _matmul(call: Call) -> int:
    return elements(call.outputs[0].shape[1:]) * int(call.inputs[0].shape[-1] or 0)


_COUNTERS: dict[str, Callable[[Call], int | None]] = {
    **dict.fromkeys(("Conv1D", "Conv2D", "Conv3D"), _convolution),
    **dict.fromkeys(("Conv1DTranspose", "Conv2DTranspose", "Conv3DTranspose"), _transposed),
    **dict.fromkeys(("DepthwiseConv1D", "DepthwiseConv2D"), _depthwise),
    **dict.fromkeys(("SeparableConv1D", "SeparableConv2D"), _separable),
    "Dense": _dense,
    "EinsumDense": _einsum_dense,
    "Matmul": _matmul,
}
_FREE_WITH_WEIGHTS = {
    "BatchNormalization",
    "LayerNormalization",
    "GroupNormalization",
    "Normalization",
    "PReLU",
    "Embedding",
    "Rescaling",
    *IDLE,
}


def _positions(value: Value, call: Call) -> int:
    """Number of positions at which the kernel is applied."""
    data_format = getattr(call.operation, "data_format", "channels_last")
    return elements(value.shape[2:] if data_format == "channels_first" else value.shape[1:-1])


def elements(shape: tuple[int | None, ...]) -> int:
    """Returns the number of elements; an unknown size counts as 1."""
    return math.prod(int(size or 1) for size in shape)


def weights_of(operation: Any) -> list[Any]:
    """Returns a layer's weights; an operation has none."""
    return list(getattr(operation, "weights", ()))
