"""Predicts the operators of a network's file without converting it.

The converter fuses normalization and clipping into the operator before, if nothing else uses that
operator's output, and drops layers that do nothing at inference. The operators that remain
determine the latency. The operators of an
:class:`~tfnas.search_space.architecture.Architecture` are found without building a model, since a
search needs those of thousands.
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from tfnas.graph.functional import Call, Value, Walk, walk
from tfnas.graph.idle_layers import IDLE
from tfnas.search_space.architecture import Architecture, scale_filters
from tfnas.search_space.block_spec import (
    FUSED_INVERTED_RESIDUAL,
    IDENTITY,
    INVERTED_RESIDUAL,
    BlockSpec,
)

if TYPE_CHECKING:
    import keras

Shape = tuple[int, ...]
CLIPPED = ("relu", "relu6")
# Operators that can include a ReLU.
_FUSES_CLIP = {"convolution", "depthwise", "dense", "add", "multiply", "scale"}
_BLOCKS = {INVERTED_RESIDUAL, FUSED_INVERTED_RESIDUAL, IDENTITY}
_HAS_WEIGHTS = {"convolution", "depthwise", "dense"}


@dataclasses.dataclass(frozen=True)
class Operator:
    """One operator of the file.

    Args:
        kind: Kind of computation, such as "depthwise"; "layer" for a layer whose operators only
            the converter knows.
        sources: Where each input comes from: the index of an operator, or -1 - n for the n-th
            input of the model.
        inputs: Shapes of the inputs without the batch.
        output: Shape of the output without the batch.
        kernel: Kernel or pool size (height, width).
        strides: Strides (height, width).
        same: Whether the padding is "same", not "valid".
        clip: "relu" or "relu6" if the operator clips its output, else "".
        layer: For the kind "layer": a key of class, shapes and a hash of the configuration.
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
        outputs: Indices of the operators whose outputs are the network's outputs.
        calls: Index of an operator -> call of its layer; empty without a model.
    """

    inputs: tuple[Shape, ...]
    operators: tuple[Operator, ...]
    outputs: tuple[int, ...]
    calls: dict[int, Call] = dataclasses.field(default_factory=dict, compare=False, repr=False)


def operators_of(model: keras.Model, layer_key: Callable[[Call], str]) -> Operators:
    """Returns the operators that the file of a functional model will have.

    Args:
        model: A built functional or Sequential Keras model with known input sizes.
        layer_key: Returns the key of a call whose operators only the converter knows.

    Raises:
        ValueError: The model is not functional, or an input has an open size.
    """
    flow = walk(model)
    for value in flow.inputs:
        if None in value.shape[1:]:
            raise ValueError(f"model must have inputs of known size, got {value.shape}")
    return _Lowering(flow, layer_key).result()


def operators_of_architecture(arch: Architecture) -> Operators | None:
    """Returns the operators of an architecture's file, without building the model.

    Finding them takes microseconds. They are those of the model that
    :func:`tfnas.search_space.blocks.build_model` builds.

    Args:
        arch: The architecture.

    Returns:
        The operators; None if the architecture does not determine them, because it has a custom
        kind of block or is compressed.
    """
    kinds = {stage.kind for stage in arch.stages}
    if kinds - _BLOCKS or getattr(arch, "compression", None) is not None:
        return None
    return _Architecture(arch).result()


# --- from a model


class _Lowering:
    """Translates calls to operators; keeps the index of the operator that computes each value."""

    def __init__(self, flow: Walk, layer_key: Callable[[Call], str]) -> None:
        self.flow, self.layer_key = flow, layer_key
        self.uses = Counter([*flow.outputs, *(v for call in flow.calls for v in call.inputs)])
        self.indices: dict[Value, int] = {value: -1 - i for i, value in enumerate(flow.inputs)}
        self.operators: list[Operator] = []
        self.calls: dict[int, Call] = {}

    def result(self) -> Operators:
        for call in self.flow.calls:
            self._lower(call)
        shapes = tuple(_shape(value) for value in self.flow.inputs)
        ends = tuple(self.indices[value] for value in self.flow.outputs)
        return Operators(shapes, tuple(self.operators), ends, self.calls)

    def _lower(self, call: Call) -> None:
        if len(call.outputs) != 1 or not call.inputs:
            self._add_unknown(call)
        elif call.kind in IDLE or _activation(call) == "linear":
            self.indices[call.outputs[0]] = self.indices[call.inputs[0]]
        elif call.kind == "BatchNormalization":
            if not self._folds(call, _HAS_WEIGHTS):
                self._add(call, "scale")
        elif (clip := _clip(call)) is not None:
            if self._folds(call, _FUSES_CLIP):
                index = self.indices[call.outputs[0]]
                self.operators[index] = dataclasses.replace(self.operators[index], clip=clip)
            else:
                self._add(call, "clip", clip=clip)
        elif (fields := _fields(call)) is not None:
            activation = _own_activation(call)
            clip = activation if activation in CLIPPED else ""
            self._add(call, clip=clip, **fields)
            if activation == "softmax" and fields["kind"] != "softmax":
                self._add_after(call, "softmax")
        else:
            self._add_unknown(call)

    def _folds(self, call: Call, kinds: set[str]) -> bool:
        """Whether a call is fused into the operator before it, which then computes its value."""
        source = call.inputs[0]
        index = self.indices[source]
        before = self.operators[index] if index >= 0 else None
        if before is None or before.kind not in kinds or before.clip or self.uses[source] > 1:
            return False
        self.indices[call.outputs[0]] = index
        return True

    def _add(self, call: Call, kind: str, **fields: Any) -> None:
        sources = tuple(self.indices[value] for value in call.inputs)
        shapes = tuple(_shape(value) for value in call.inputs)
        self.operators.append(Operator(kind, sources, shapes, _shape(call.outputs[0]), **fields))
        self.calls[len(self.operators) - 1] = call
        for value in call.outputs:
            self.indices[value] = len(self.operators) - 1

    def _add_after(self, call: Call, kind: str) -> None:
        shape, [output] = _shape(call.outputs[0]), call.outputs
        self.operators.append(Operator(kind, (self.indices[output],), (shape,), shape))
        self.indices[output] = len(self.operators) - 1
        self.calls[len(self.operators) - 1] = call

    def _add_unknown(self, call: Call) -> None:
        self._add(call, "layer", layer=self.layer_key(call))


def _fields(call: Call) -> dict[str, Any] | None:
    """Fields of an operator other than its shapes; None if only the converter knows them."""
    read = _READERS.get(call.kind)
    shapes = [value.shape[1:] for value in (*call.inputs, *call.outputs)]
    if read is None or any(size is None for shape in shapes for size in shape):
        return None
    if getattr(call.operation, "data_format", "channels_last") not in (None, "channels_last"):
        return None
    return read(call)


def _convolution(call: Call) -> dict[str, Any] | None:
    layer = call.operation
    if layer.groups != 1 or not _is_simple(call):
        return None
    return {"kind": "convolution", **_window(layer, layer.kernel_size)}


def _depthwise(call: Call) -> dict[str, Any] | None:
    layer = call.operation
    if layer.depth_multiplier != 1 or not _is_simple(call):
        return None
    return {"kind": "depthwise", **_window(layer, layer.kernel_size)}


def _is_simple(call: Call) -> bool:
    layer = call.operation
    simple = layer.padding in ("same", "valid") and set(layer.dilation_rate) == {1}
    return simple and _own_activation(call) in ("linear", *CLIPPED)


def _window(layer: Any, size: Any) -> dict[str, Any]:
    """Size, strides and padding."""
    kernel, strides = _pair(size), _pair(layer.strides)
    return {"kernel": kernel, "strides": strides, "same": layer.padding == "same"}


def _pair(size: Any) -> tuple[int, int]:
    """Some layers keep a size as one number, some as two."""
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


def _expand(call: Call) -> dict[str, Any] | None:
    """A row of images; other places of the new axis need the converter."""
    return {"kind": "expand"} if call.operation.axis == 1 else None


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
    "ExpandDims": _expand,
    "Softmax": _softmax,
    "Activation": _softmax,
}


def _activation(call: Call) -> str | None:
    """The function of an Activation layer; None for other layers."""
    return _own_activation(call) if call.kind == "Activation" else None


def _own_activation(call: Call) -> str:
    function = getattr(call.operation, "activation", None)
    return "linear" if function is None else getattr(function, "__name__", "unknown")


def _clip(call: Call) -> str | None:
    """The kind of ReLU that a call is; None for other calls."""
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
        self.arch = arch
        self.shape: Shape = arch.input_shape
        self.operators: list[Operator] = []

    def result(self) -> Operators:
        arch, width = self.arch, self.arch.width_multiplier
        if arch.is_series:
            self._then("expand", arch.image_shape)
        if arch.working_resolution != arch.image_shape[:2]:
            self._then("resize", (*arch.working_resolution, self.shape[2]))
        if arch.include_rescaling:
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
        tall = 1 if self.arch.is_series else kernel
        if stride > 1:
            above, beside = 2 * (tall // 2), 2 * (kernel // 2)
            self._then("pad", (height + above, width + beside, channels))
        size = (math.ceil(height / stride), math.ceil(width / stride))
        self._then(
            "depthwise" if filters is None else "convolution",
            (*size, channels if filters is None else filters),
            kernel=(tall, kernel),
            strides=(stride, stride),
            same=stride == 1,
            clip=clip,
        )

    def _then(self, kind: str, output: Shape, **fields: Any) -> None:
        sources = (len(self.operators) - 1,)
        self.operators.append(Operator(kind, sources, (self.shape,), output, **fields))
        self.shape = output
