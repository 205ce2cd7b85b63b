"""Whether XNNPACK can run the convolutions of a file with sparse kernels.

XNNPACK's sparse inference requires an unbroken section of the graph: from a 3x3 stride-2 stem over
an RGB image to the global average pooling. The verdict is about the structure of the graph only. It
does not say that the weights are sparse enough (two thirds of the weights of all 1x1 kernels), or
that inference would be faster: on x86 with AVX sparse kernels are not used at all. The delegate
considers them only for files in sparse encoding: `to_tflite(model, sparse=True)`.

References:
    Elsen et al., "Fast Sparse ConvNets", CVPR 2020; the rules are those of TensorFlow
    Lite's XNNPACK delegate, section "Sparse inference".
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tfnas.tflite.artifact import Artifact
from tfnas.tflite.flatbuffer import OperatorInfo, TensorInfo

_UNARY = {
    "ABS",
    "CEIL",
    "ELU",
    "FLOOR",
    "HARD_SWISH",
    "LEAKY_RELU",
    "LOGISTIC",
    "NEG",
    "RELU",
    "RELU6",
    "RELU_N1_TO_1",
    "ROUND",
    "SQUARE",
    "RESIZE_BILINEAR",
}


@dataclasses.dataclass(frozen=True)
class SparseVerdict:
    """Whether a file's graph is eligible for XNNPACK's sparse kernels.

    Args:
        eligible: Whether it is.
        layer: The first layer that prevents it, None if the graph is eligible.
        reason: Why the layer prevents it.
    """

    eligible: bool
    layer: str | None = None
    reason: str = ""

    def __str__(self) -> str:
        if self.eligible:
            return "eligible for sparse kernels"
        return f"not eligible for sparse kernels: {self.reason} (layer {self.layer})"


def sparse_eligibility(artifact: Artifact) -> SparseVerdict:
    """Checks whether a file's graph is eligible for XNNPACK's sparse kernels.

    Example:
        >>> import tfnas
        >>> space = tfnas.MobileNetV2Space((96, 96, 1), 2)
        >>> model = space.build(tfnas.mobilenet_v2((96, 96, 1), 2, 0.35))
        >>> str(tfnas.sparse_eligibility(tfnas.to_tflite(model)))
        'not eligible for sparse kernels: the stem has 1 input channels, not 3 (layer stem_relu)'

    Args:
        artifact: A float32 or float16 file; integer files are never eligible.

    Returns:
        The verdict, with the first layer that prevents it.

    References:
        Elsen et al. 2020, Fast Sparse ConvNets, https://arxiv.org/abs/1911.09723
    """
    padding: dict[int, tuple[int, ...]] = {}  # tensor index -> (top, bottom, left, right)
    after_stem = False
    for op in artifact.graph.operators:
        if op.outputs and artifact.graph.constant_behind(op.outputs[0]) is not None:
            continue  # DEQUANTIZE or DENSIFY of weights, computed once before the first run
        if not op.outputs:
            return SparseVerdict(False, None, f"operator {op.name} has no sparse kernel")
        if op.outputs[0].dtype != "float32":
            return SparseVerdict(False, op.layer, f"{op.outputs[0].dtype} activations, not float32")
        if op.name == "PAD" and _pads(op) is not None:
            padding[op.outputs[0].index] = _pads(op) or ()
            continue
        if not after_stem and op.name != "CONV_2D":
            continue  # operators before the stem may be of any kind
        if after_stem and op.name in ("MEAN", "DEPTH_TO_SPACE"):
            return SparseVerdict(True)
        check = _CHECKS.get(op.name) if after_stem else _check_stem
        if check is None and op.name not in _UNARY:
            return SparseVerdict(False, op.layer, f"operator {op.name} has no sparse kernel")
        reason = check(op, padding.get(op.inputs[0].index)) if check else None
        if reason:
            return SparseVerdict(False, op.layer, reason)
        after_stem = True
    last = artifact.graph.operators[-1].layer if artifact.graph.operators else None
    return SparseVerdict(False, last, "no convolution begins, or no global average pooling ends it")


def _check_stem(op: OperatorInfo, pads: tuple[int, ...] | None) -> str | None:
    options: schema.Conv2DOptionsT = op.options
    kernel = op.inputs[1].shape
    if kernel[3] != 3:
        return f"the stem has {kernel[3]} input channels, not 3"
    if kernel[1:3] != (3, 3) or (options.strideH, options.strideW) != (2, 2):
        return f"the stem is {_form(kernel, options)}, not 3x3 with stride 2"
    return _check_padding(op, pads, 1)


def _check_convolution(op: OperatorInfo, pads: tuple[int, ...] | None) -> str | None:
    options: schema.Conv2DOptionsT = op.options
    kernel = op.inputs[1].shape
    if kernel[1:3] != (1, 1) or (options.strideH, options.strideW) != (1, 1):
        return f"the convolution is {_form(kernel, options)}, not 1x1 with stride 1"
    return "a 1x1 convolution is padded" if pads and any(pads) else None


def _check_depthwise(op: OperatorInfo, pads: tuple[int, ...] | None) -> str | None:
    options: schema.DepthwiseConv2DOptionsT = op.options
    kernel = op.inputs[1].shape
    if kernel[1:3] not in ((3, 3), (5, 5)):
        return f"the depthwise kernel is {kernel[1]}x{kernel[2]}, not 3x3 or 5x5"
    if (
        options.depthMultiplier != 1
        or options.dilationHFactor != 1
        or max(options.strideH, options.strideW) > 2
    ):
        return "the depthwise convolution has a multiplier, a dilation or a stride above 2"
    return _check_padding(op, pads, kernel[1] // 2)


def _check_binary(op: OperatorInfo, pads: tuple[int, ...] | None) -> str | None:
    wrong = [t for t in op.inputs if len(t.shape) != 4 and (t.constant is None or len(t.shape) > 1)]
    return f"{op.name} takes a tensor of {len(wrong[0].shape)} dimensions" if wrong else None


_CHECKS: dict[str, Callable[[OperatorInfo, tuple[int, ...] | None], str | None]] = {
    "CONV_2D": _check_convolution,
    "DEPTHWISE_CONV_2D": _check_depthwise,
    "ADD": _check_binary,
    "MUL": _check_binary,
}


def _check_padding(op: OperatorInfo, pads: tuple[int, ...] | None, required: int) -> str | None:
    """The padding, by a PAD before the operator or "same", must be `required` on each side."""
    if op.options.padding == schema.Padding.SAME:  # type: ignore[attr-defined]
        size, out = op.inputs[0].shape[1:3], op.outputs[0].shape[1:3]
        stride = op.options.strideH  # type: ignore[attr-defined]
        kernel = op.inputs[1].shape[1]
        total = [max(0, (o - 1) * stride + kernel - s) for s, o in zip(size, out, strict=True)]
        found = tuple(side for t in total for side in (t // 2, t - t // 2))
    else:
        found = pads or (0, 0, 0, 0)
    return None if found == (required,) * 4 else f"padding is {found}, not {required} on each side"


def _pads(op: OperatorInfo) -> tuple[int, ...] | None:
    """(top, bottom, left, right) of a PAD of height and width only; None for other ones."""
    table: TensorInfo = op.inputs[1]
    if table.constant is None or table.shape != (4, 2):
        return None
    rows = np.frombuffer(table.constant, table.dtype).reshape(4, 2)
    return None if rows[0].any() or rows[3].any() else tuple(int(n) for n in rows[1:3].ravel())


def _form(kernel: tuple[int, ...], options: schema.Conv2DOptionsT) -> str:
    return f"{kernel[1]}x{kernel[2]} with stride {options.strideH}"
