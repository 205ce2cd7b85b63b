"""A network as the operators of its file, known before anything is converted.

The converter folds normalization and clipping into the layer before, where nothing else needs
what that one gives, and drops what is nothing at inference. What is left is what takes time.
An :class:`~tfnas.search_space.architecture.Architecture` is told without building a model: a search
asks for thousands.
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Callable
from typing import Any

from tfnas.graph.functional import Call, Value, Walk, walk
from tfnas.search_space.architecture import (
    FUSED_INVERTED_RESIDUAL,
    IDENTITY,
    INVERTED_RESIDUAL,
    Architecture,
    BlockSpec,
    scale_filters,
)

Shape = tuple[int, ...]
FREE = {
    *("Dropout", "SpatialDropout2D", "Identity", "ActivityRegularization", "GaussianNoise"),
    *("GaussianDropout", "StochasticDepth"),
}
CLIPPED = ("relu", "relu6")
# Operators that clip what they give by themselves.
_CLIPS = {"convolution", "depthwise", "dense", "add", "multiply", "scale"}
_BLOCKS = {INVERTED_RESIDUAL, FUSED_INVERTED_RESIDUAL, IDENTITY}
_HAS_WEIGHTS = {"convolution", "depthwise", "dense"}


@dataclasses.dataclass(frozen=True)
class Operator:
    """One operator of the file.

    Args:
        kind: What it computes, such as "depthwise"; "layer" where only the converter knows.
        sources: Where its inputs come from: an operator's place in the list, or -1 - n for the
            model's n-th input.
        inputs: Shapes of its inputs without the batch.
        output: Shape of its output without the batch.
        kernel: (height, width) of the window that it looks at.
        strides: (height, width) between windows.
        same: Whether windows reach over the border.
        clip: "relu" or "relu6" where it clips its output, else "".
        layer: The layer, where only the converter knows: class, shapes and a hash.
    """

    kind: str
    sources: tuple[int, ...]
    inputs: tuple[Shape, ...]
    output: Shape
    kernel: tuple[int, int] = (1, 1)
    strides: tuple[int, int] = (1, 1)
    same: bool = True
    clip: str = ""
    layer: str = ""


@dataclasses.dataclass(frozen=True)
class Operators:
    """The operators of a network.

    Args:
        inputs: Shapes of the network's inputs without the batch.
        operators: In the order of execution.
        outputs: Places of the operators that give the network's outputs.
        calls: Place -> the layer's call; empty where there is no model.
    """

    inputs: tuple[Shape, ...]
    operators: tuple[Operator, ...]
    outputs: tuple[int, ...]
    calls: dict[int, Call] = dataclasses.field(default_factory=dict, compare=False, repr=False)


def operators_of(model: Any, layer_key: Callable[[Call], str]) -> Operators:
    """Returns the operators that the file of a functional model has.

    Args:
        model: A built functional or Sequential Keras model of known input sizes.
        layer_key: Names a call of which only the converter knows what it becomes.

    Raises:
        ValueError: The model has no known connections, or an input of open size.
    """
    flow = walk(model)
    for value in flow.inputs:
        if None in value.shape[1:]:
            raise ValueError(f"model must have inputs of known size, got {value.shape}")
    return _Lowering(flow, layer_key).result()


def operators_of_architecture(arch: Architecture) -> Operators | None:
    """Returns the operators of :func:`tfnas.search_space.blocks.build_model`'s model, in
    microseconds.

    Args:
        arch: The architecture.

    Returns:
        The operators; None where they do not follow from the architecture alone: it has a block
        of an unknown kind, or is compressed on its way to the file.
    """
    kinds = {stage.kind for stage in arch.stages}
    if kinds - _BLOCKS or getattr(arch, "compression", None) is not None:
        return None
    return _Architecture(arch).result()


# --- from a model


class _Lowering:
    """Goes through the calls and keeps, for each value, the operator that gives it."""

    def __init__(self, flow: Walk, layer_key: Callable[[Call], str]) -> None:
        self.flow, self.layer_key = flow, layer_key
        self.uses = Counter([*flow.outputs, *(v for call in flow.calls for v in call.inputs)])
        self.places: dict[Value, int] = {value: -1 - i for i, value in enumerate(flow.inputs)}
        self.operators: list[Operator] = []
        self.calls: dict[int, Call] = {}

    def result(self) -> Operators:
        for call in self.flow.calls:
            self._take(call)
        shapes = tuple(_shape(value) for value in self.flow.inputs)
        ends = tuple(self.places[value] for value in self.flow.outputs)
        return Operators(shapes, tuple(self.operators), ends, self.calls)

    def _take(self, call: Call) -> None:
        if len(call.outputs) != 1 or not call.inputs:
            self._only_the_converter(call)
        elif call.kind in FREE or _activation(call) == "linear":
            self.places[call.outputs[0]] = self.places[call.inputs[0]]
        elif call.kind == "BatchNormalization":
            if not self._folds(call, _HAS_WEIGHTS):
                self._add(call, "scale")
        elif (clip := _clip(call)) is not None:
            if self._folds(call, _CLIPS):
                place = self.places[call.outputs[0]]
                self.operators[place] = dataclasses.replace(self.operators[place], clip=clip)
            else:
                self._add(call, "clip", clip=clip)
        elif (fields := _fields(call)) is not None:
            activation = _own_activation(call)
            clip = activation if activation in CLIPPED else ""
            self._add(call, clip=clip, **fields)
            if activation == "softmax" and fields["kind"] != "softmax":
                self._add_after(call, "softmax")
        else:
            self._only_the_converter(call)

    def _folds(self, call: Call, kinds: set[str]) -> bool:
        """Whether a call goes into the operator before it; the value is then that one's."""
        source = call.inputs[0]
        place = self.places[source]
        before = self.operators[place] if place >= 0 else None
        if before is None or before.kind not in kinds or before.clip or self.uses[source] > 1:
            return False
        self.places[call.outputs[0]] = place
        return True

    def _add(self, call: Call, kind: str, **fields: Any) -> None:
        sources = tuple(self.places[value] for value in call.inputs)
        shapes = tuple(_shape(value) for value in call.inputs)
        self.operators.append(Operator(kind, sources, shapes, _shape(call.outputs[0]), **fields))
        self.calls[len(self.operators) - 1] = call
        for value in call.outputs:
            self.places[value] = len(self.operators) - 1

    def _add_after(self, call: Call, kind: str) -> None:
        shape, [output] = _shape(call.outputs[0]), call.outputs
        self.operators.append(Operator(kind, (self.places[output],), (shape,), shape))
        self.places[output] = len(self.operators) - 1
        self.calls[len(self.operators) - 1] = call

    def _only_the_converter(self, call: Call) -> None:
        self._add(call, "layer", layer=self.layer_key(call))


def _fields(call: Call) -> dict[str, Any] | None:
    """What an operator is beside its shapes; None where only the converter knows."""
    read = _READERS.get(call.kind)
    shapes = [value.shape[1:] for value in (*call.inputs, *call.outputs)]
    if read is None or any(size is None for shape in shapes for size in shape):
        return None
    if getattr(call.operation, "data_format", "channels_last") not in (None, "channels_last"):
        return None
    return read(call)


def _convolution(call: Call) -> dict[str, Any] | None:
    layer = call.operation
    if layer.groups != 1 or not _plain(call):
        return None
    return {"kind": "convolution", **_window(layer, layer.kernel_size)}


def _depthwise(call: Call) -> dict[str, Any] | None:
    layer = call.operation
    if layer.depth_multiplier != 1 or not _plain(call):
        return None
    return {"kind": "depthwise", **_window(layer, layer.kernel_size)}


def _plain(call: Call) -> bool:
    layer = call.operation
    simple = layer.padding in ("same", "valid") and set(layer.dilation_rate) == {1}
    return simple and _own_activation(call) in ("linear", *CLIPPED)


def _window(layer: Any, size: Any) -> dict[str, Any]:
    """Size, strides and padding, which some layers keep as one number and some as two."""
    kernel, strides = _pair(size), _pair(layer.strides)
    return {"kernel": kernel, "strides": strides, "same": layer.padding == "same"}


def _pair(size: Any) -> tuple[int, int]:
    first, second = (size, size) if isinstance(size, int) else size
    return int(first), int(second)


def _pool(kind: str) -> Callable[[Call], dict[str, Any] | None]:
    return lambda call: {"kind": kind, **_window(call.operation, call.operation.pool_size)}


def _dense(call: Call) -> dict[str, Any] | None:
    vector = len(call.inputs[0].shape) == 2
    known = _own_activation(call) in ("linear", "softmax", *CLIPPED)
    return {"kind": "dense"} if vector and known else None


def _binary(kind: str) -> Callable[[Call], dict[str, Any] | None]:
    def read(call: Call) -> dict[str, Any] | None:
        return {"kind": kind} if len(call.inputs) == 2 else None

    return read


def _average(call: Call) -> dict[str, Any] | None:
    return None if call.operation.keepdims else {"kind": "mean"}


def _resizing(call: Call) -> dict[str, Any] | None:
    layer = call.operation
    plain = layer.interpolation == "bilinear" and not layer.crop_to_aspect_ratio
    return {"kind": "resize"} if plain and not layer.pad_to_aspect_ratio else None


def _softmax(call: Call) -> dict[str, Any] | None:
    last = _activation(call) == "softmax" or getattr(call.operation, "axis", None) == -1
    return {"kind": "softmax"} if last else None


_READERS: dict[str, Callable[[Call], dict[str, Any] | None]] = {
    "Conv2D": _convolution,
    "DepthwiseConv2D": _depthwise,
    "Dense": _dense,
    "Add": _binary("add"),
    "Multiply": _binary("multiply"),
    "MaxPooling2D": _pool("max_pool"),
    "AveragePooling2D": _pool("average_pool"),
    "GlobalAveragePooling2D": _average,
    "Resizing": _resizing,
    "Rescaling": lambda call: {"kind": "scale"},
    "ZeroPadding2D": lambda call: {"kind": "pad"},
    "Flatten": lambda call: {"kind": "reshape"},
    "Reshape": lambda call: {"kind": "reshape"},
    "Softmax": _softmax,
    "Activation": _softmax,
}


def _activation(call: Call) -> str | None:
    """The function of an Activation layer, None of another."""
    return _own_activation(call) if call.kind == "Activation" else None


def _own_activation(call: Call) -> str:
    function = getattr(call.operation, "activation", None)
    return "linear" if function is None else getattr(function, "__name__", "unknown")


def _clip(call: Call) -> str | None:
    """How a call clips, None where it does something else."""
    if _activation(call) in CLIPPED:
        return _activation(call)
    if call.kind != "ReLU":
        return {"Relu": "relu", "Relu6": "relu6"}.get(call.kind)
    layer = call.operation
    limit = None if layer.max_value is None else float(layer.max_value)
    if layer.negative_slope or layer.threshold or limit not in (None, 6.0):
        return None
    return "relu" if limit is None else "relu6"


def _shape(value: Value) -> Shape:
    return tuple(int(size or 1) for size in value.shape[1:])


# --- from an architecture


class _Architecture:
    """Stacks the operators of :func:`tfnas.search_space.blocks.build_model`."""

    def __init__(self, arch: Architecture) -> None:
        self.arch, self.shape = arch, arch.input_shape
        self.operators: list[Operator] = []

    def result(self) -> Operators:
        arch, width = self.arch, self.arch.width_multiplier
        height, breadth = arch.working_resolution
        if (height, breadth) != arch.input_shape[:2]:
            self._then("resize", (height, breadth, self.shape[2]))
        self._then("scale", self.shape)
        self._conv(scale_filters(arch.stem_filters, width), 3, arch.stem_stride)
        for stage in arch.stages:
            for index in range(stage.repeats):
                filters = scale_filters(stage.filters, width)
                self._block(stage, filters, stage.stride if index == 0 else 1)
        self._conv(scale_filters(arch.head_filters, max(1.0, width)), 1)
        self._then("mean", self.shape[2:])
        self._then("dense", (arch.num_classes,))
        self._then("softmax", (arch.num_classes,))
        return Operators((arch.input_shape,), tuple(self.operators), (len(self.operators) - 1,))

    def _block(self, stage: BlockSpec, filters: int, stride: int) -> None:
        entry, shape = len(self.operators) - 1, self.shape
        hidden = shape[2] * stage.expansion
        if stage.kind == FUSED_INVERTED_RESIDUAL:
            self._conv(hidden, stage.kernel, stride)
        else:
            if stage.expansion > 1:
                self._conv(hidden, 1)
            self._conv(None, stage.kernel, stride)
        self._conv(filters, 1, clip="")
        if stride == 1 and shape[2] == filters:
            sources = (entry, len(self.operators) - 1)
            self.operators.append(Operator("add", sources, (shape, shape), shape))

    def _conv(self, filters: int | None, kernel: int, stride: int = 1, clip: str = "relu6") -> None:
        height, width, channels = self.shape
        if stride > 1:
            border = 2 * (kernel // 2)
            self._then("pad", (height + border, width + border, channels))
        size = (math.ceil(height / stride), math.ceil(width / stride))
        self._then(
            "depthwise" if filters is None else "convolution",
            (*size, channels if filters is None else filters),
            kernel=(kernel, kernel),
            strides=(stride, stride),
            same=stride == 1,
            clip=clip,
        )

    def _then(self, kind: str, output: Shape, **fields: Any) -> None:
        sources = (len(self.operators) - 1,)
        self.operators.append(Operator(kind, sources, (self.shape,), output, **fields))
        self.shape = output  # type: ignore[assignment]
