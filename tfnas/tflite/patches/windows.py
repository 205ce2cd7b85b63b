"""Which part of its input an operator needs for a part of its output."""

from __future__ import annotations

import dataclasses

import numpy as np

from tfnas.tflite.flatbuffer import OperatorInfo, TensorInfo

_SAME = 0  # the schema's Padding.SAME
_ELEMENTWISE = """
    ABS ADD DEQUANTIZE DIV ELU EXP FLOOR GELU HARD_SWISH LEAKY_RELU LOGISTIC MAXIMUM MINIMUM MUL NEG
    PRELU QUANTIZE RELU RELU6 RELU_N1_TO_1 ROUND RSQRT SQRT SQUARE SQUARED_DIFFERENCE SUB TANH
"""
RESIZES = ("RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR")  # their second input is the output's size


class NotLocal(ValueError):
    """An operator needs more of its input than a window; the message says why."""


@dataclasses.dataclass(frozen=True)
class Span:
    """Places of one axis, from `start` up to but without `stop`."""

    start: int
    stop: int

    @property
    def length(self) -> int:
        """Number of places."""
        return self.stop - self.start

    def with_(self, other: Span) -> Span:
        """Returns the smallest span that holds both."""
        return Span(min(self.start, other.start), max(self.stop, other.stop))


Region = tuple[Span, Span]  # rows, columns
Pads = tuple[tuple[int, int], tuple[int, int]]  # (before, after) of rows, of columns


@dataclasses.dataclass(frozen=True)
class Window:
    """How the places of an output's axis come from those of its input.

    Args:
        kernel: Places of the input that one of the output needs.
        stride: Places of the input from one of the output to the next.
        dilation: Places of the input from one that is needed to the next.
        before: Places of padding before the first.
        size: Places of the input.
    """

    kernel: int
    stride: int
    dilation: int
    before: int
    size: int

    def needs(self, output: Span) -> tuple[Span, tuple[int, int]]:
        """Returns the places of the input, and the padding before and after them.

        Example:
            >>> Window(kernel=3, stride=1, dilation=1, before=1, size=8).needs(Span(0, 4))
            (Span(start=0, stop=5), (1, 0))

        Args:
            output: Places of the output.
        """
        first = output.start * self.stride - self.before
        last = (output.stop - 1) * self.stride - self.before + (self.kernel - 1) * self.dilation + 1
        inside = Span(max(first, 0), min(last, self.size))
        if inside.length < 1:
            raise NotLocal("a part of its output that comes from padding alone")
        return inside, (inside.start - first, last - inside.stop)


def windows(op: OperatorInfo) -> tuple[Window, Window]:
    """Returns how the rows and columns of an operator's output come from those of its inputs.

    Args:
        op: An operator on images of shape (batch, height, width, channels).

    Raises:
        NotLocal: It needs other parts of its input too, or its parts would be computed otherwise.
    """
    images = [tensor for tensor in op.inputs if tensor.constant is None]
    if not images or any(len(t.shape) != 4 for t in (*images, *op.outputs)) or len(op.outputs) != 1:
        raise NotLocal(f"{op.name}: no images in and out")
    size = images[0].shape[1:3]
    if op.name in ("CONV_2D", "DEPTHWISE_CONV_2D"):
        kernel = op.inputs[1]
        if kernel.constant is None:
            raise NotLocal(f"{op.name}: a kernel that is computed")
        options = op.options
        strides = (options.strideH, options.strideW)  # type: ignore[attr-defined]
        dilations = (options.dilationHFactor, options.dilationWFactor)  # type: ignore[attr-defined]
        return _of_kernel(kernel.shape[1:3], strides, dilations, size, options.padding == _SAME)  # type: ignore[attr-defined]
    if op.name in ("MAX_POOL_2D", "AVERAGE_POOL_2D"):
        return _pooling(op, size)
    if op.name == "PAD":
        (top, _), (left, _) = _paddings(op)
        return Window(1, 1, 1, top, size[0]), Window(1, 1, 1, left, size[1])
    if op.name in RESIZES:
        return _resizing(op, size)
    if op.name == "CONCATENATION":
        if getattr(op.options, "axis", 3) not in (3, -1):
            raise NotLocal("CONCATENATION: another axis than the channels")
    elif op.name not in _ELEMENTWISE.split():
        raise NotLocal(f"{op.name}: it needs its whole input")
    if any(tensor.shape[1:3] != size for tensor in (*images, op.outputs[0])):
        raise NotLocal(f"{op.name}: inputs of several sizes")
    for tensor in op.inputs:
        if tensor.constant is not None and not _is_per_channel(tensor):
            raise NotLocal(f"{op.name}: a constant image")
    return Window(1, 1, 1, 0, size[0]), Window(1, 1, 1, 0, size[1])


def _of_kernel(
    kernel: tuple[int, ...],
    strides: tuple[int, int],
    dilations: tuple[int, int],
    size: tuple[int, ...],
    same: bool,
) -> tuple[Window, Window]:
    found = []
    for width, stride, dilation, length in zip(kernel, strides, dilations, size, strict=True):
        reach = (width - 1) * dilation + 1
        pad = max((-(-length // stride) - 1) * stride + reach - length, 0) if same else 0
        found.append(Window(width, stride, dilation, pad // 2, length))
    return found[0], found[1]


def _pooling(op: OperatorInfo, size: tuple[int, ...]) -> tuple[Window, Window]:
    options = op.options
    kernel = (options.filterHeight, options.filterWidth)  # type: ignore[attr-defined]
    strides = (options.strideH, options.strideW)  # type: ignore[attr-defined]
    same = options.padding == _SAME  # type: ignore[attr-defined]
    found = _of_kernel(kernel, strides, (1, 1), size, same)
    for window, length in zip(found, op.outputs[0].shape[1:3], strict=True):
        _, pads = window.needs(Span(0, length))
        if same and pads != (0, 0) and max(pads) > 0:
            # Padding counts neither as a value of the mean nor as one of the maximum.
            raise NotLocal(f"{op.name}: padding, which no other operator can add")
    return found


def _resizing(op: OperatorInfo, size: tuple[int, ...]) -> tuple[Window, Window]:
    """Windows of an image that shrinks by whole numbers.

    Each pixel comes from the block of pixels that it stands for, from the same places of each
    block. By other ratios those places differ from block to block, and depend on how the position
    of a pixel is rounded, which differs between an image and a part of it.
    """
    smaller = op.outputs[0].shape[1:3]
    if op.inputs[1].constant is None:
        raise NotLocal(f"{op.name}: a size that is computed")
    if any(length % short for length, short in zip(size, smaller, strict=True)):
        raise NotLocal(f"{op.name}: from {size} to {smaller}, not a whole number of times smaller")
    if op.options.alignCorners:  # type: ignore[attr-defined]
        raise NotLocal(f"{op.name}: aligned corners")
    height, width = (length // short for length, short in zip(size, smaller, strict=True))
    return Window(height, height, 1, 0, size[0]), Window(width, width, 1, 0, size[1])


def _paddings(op: OperatorInfo) -> Pads:
    content = op.inputs[1].constant
    if content is None:
        raise NotLocal("PAD: paddings that are computed")
    kind = np.int64 if op.inputs[1].dtype == "int64" else np.int32
    values = np.frombuffer(content, kind).reshape(-1, 2).tolist()
    if len(values) != 4 or values[0] != [0, 0] or values[3] != [0, 0]:
        raise NotLocal("PAD: padding of the batch or of channels")
    (top, bottom), (left, right) = values[1:3]
    return (top, bottom), (left, right)


def _is_per_channel(tensor: TensorInfo) -> bool:
    return all(size == 1 for size in tensor.shape[:-1])
