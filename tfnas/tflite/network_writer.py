"""Writes a file of a network's operators with random weights, without the converter.

The converter takes seconds per network, this module milliseconds: hundreds of networks can be
measured in a minute instead of ten. Operators, shapes and number formats are those that the
converter writes, so XNNPACK runs them as fast. The outputs are meaningless.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tfnas.tflite.artifact import Artifact
from tfnas.tflite.flatbuffer import pack
from tfnas.tflite.network_operators import Operator, Operators, Shape

MODES = ("float32", "int8")
_CODE, _TYPE, _OPTIONS = schema.BuiltinOperator, schema.TensorType, schema.BuiltinOptions
_CLIP = {"": 0, "relu": 1, "relu6": 3}  # schema.ActivationFunctionType
# Scales with which XNNPACK accepts all operators; TFLite prescribes that of probabilities.
_STEP, _ZERO, _WEIGHT_STEP, _PROBABILITY = 0.05, -1, 0.01, (1 / 256, -128)
# Versions of the operators with int8 inputs, as the converter writes them.
_INT8_VERSION = {_CODE.CONV_2D: 3, _CODE.DEPTHWISE_CONV_2D: 3, _CODE.FULLY_CONNECTED: 4}
_VERSION = {_CODE.RESIZE_BILINEAR: 3, _CODE.RESHAPE: 1, _CODE.EXPAND_DIMS: 1}


def writable(network: Operators) -> bool:
    """Returns whether this module can write all operators of a network.

    Args:
        network: The operators; layers that are no single operator need the converter.
    """
    return all(operator.kind != "layer" for operator in network.operators)


def write(network: Operators, mode: str, seed: int = 0) -> Artifact:
    """Returns a file of a network's operators with random weights.

    Args:
        network: The operators; :func:`writable` must hold for them.
        mode: "float32" or "int8".
        seed: Seed of the random weights.
    """
    return Artifact(_Writer(mode, seed).file(network), mode, {"made": "random weights"})


class _Writer:
    """Collects the tensors, buffers and operators of one file."""

    def __init__(self, mode: str, seed: int) -> None:
        self.integer = mode == "int8"
        self.rng = np.random.default_rng(seed)
        self.model = schema.ModelT()
        self.graph = schema.SubGraphT()
        self.graph.tensors, self.graph.operators = [], []
        self.model.version, self.model.subgraphs = 3, [self.graph]
        self.model.buffers, self.model.operatorCodes = [schema.BufferT()], []
        self.codes: dict[int, int] = {}

    def file(self, network: Operators) -> bytes:
        inputs = [self.activation(shape) for shape in network.inputs]
        outputs: list[int] = []  # tensor index of each operator's output
        for operator in network.operators:
            sources = [outputs[i] if i >= 0 else inputs[-1 - i] for i in operator.sources]
            outputs.append(_WRITERS[operator.kind](self, operator, sources))
        self.graph.inputs = inputs
        self.graph.outputs = [outputs[i] if i >= 0 else inputs[-1 - i] for i in network.outputs]
        return pack(self.model)

    # tensors

    def activation(self, shape: Shape, quantized: tuple[float, int] = (_STEP, _ZERO)) -> int:
        return self._tensor((1, *shape), _TYPE.INT8 if self.integer else _TYPE.FLOAT32, quantized)

    def weights(self, shape: Shape, axis: int) -> tuple[int, int]:
        """Adds a kernel with one scale per channel of the axis, and a bias."""
        channels = shape[axis]
        steps = np.full(channels, _WEIGHT_STEP)
        if self.integer:
            kernel = self.rng.integers(-127, 128, shape).astype(np.int8)
            bias = self.rng.integers(-500, 500, channels).astype(np.int32)
        else:
            fan_in = max(1, kernel_inputs(shape, axis))
            kernel = self.rng.normal(0, fan_in**-0.5, shape).astype(np.float32)
            bias = self.rng.normal(0, 0.1, channels).astype(np.float32)
        return (
            self.constant(kernel, (steps, axis)),
            self.constant(bias, (steps * _STEP, 0)),
        )

    def factor(self, shape: Shape = ()) -> int:
        """Adds a constant to multiply by or to add."""
        values = np.full(shape, 20 if self.integer else 0.9)
        return self.constant(values.astype(np.int8 if self.integer else np.float32), _STEP)

    def constant(self, values: np.ndarray, step: Any = None) -> int:
        kinds = {"float32": _TYPE.FLOAT32, "int8": _TYPE.INT8, "int32": _TYPE.INT32}
        buffer = schema.BufferT()
        buffer.data = np.frombuffer(values.tobytes(), np.uint8)
        self.model.buffers.append(buffer)
        index = self._tensor(values.shape, kinds[str(values.dtype)])
        tensor = self.graph.tensors[index]
        tensor.buffer = len(self.model.buffers) - 1
        if self.integer and step is not None:
            steps, axis = step if isinstance(step, tuple) else (np.array([step]), 0)
            tensor.quantization = _quantization(steps, np.zeros(len(steps), np.int64), axis)
        return index

    def _tensor(self, shape: Shape, kind: int, quantized: tuple[float, int] | None = None) -> int:
        tensor = schema.TensorT()
        tensor.shape, tensor.type = np.array(shape, np.int32), kind
        tensor.name = f"t{len(self.graph.tensors)}".encode()
        if self.integer and quantized is not None:
            step, zero = quantized
            tensor.quantization = _quantization(np.array([step]), np.array([zero], np.int64), 0)
        self.graph.tensors.append(tensor)
        return len(self.graph.tensors) - 1

    # operators

    def operator(
        self, code: int, inputs: Sequence[int], output: int, name: str | None = None, **options: Any
    ) -> int:
        """Adds an operator; `name` is the class of its options in the schema."""
        record = schema.OperatorT()
        record.opcodeIndex = self._code(code)
        record.inputs, record.outputs = list(inputs), [output]
        if name is not None:
            record.builtinOptionsType = getattr(_OPTIONS, name)
            record.builtinOptions = getattr(schema, f"{name}T")()
            for key, value in options.items():
                setattr(record.builtinOptions, key, value)
        self.graph.operators.append(record)
        return output

    def _code(self, code: int) -> int:
        if code not in self.codes:
            record = schema.OperatorCodeT()
            record.builtinCode, record.deprecatedBuiltinCode = code, min(code, 127)
            version = _INT8_VERSION.get(code, 2) if self.integer else 1
            record.version = _VERSION.get(code, version)
            self.codes[code] = len(self.model.operatorCodes)
            self.model.operatorCodes.append(record)
        return self.codes[code]


def kernel_inputs(shape: Shape, axis: int) -> int:
    """Returns the fan-in of a kernel: the number of products in each output.

    Args:
        shape: The kernel's shape.
        axis: Axis of the output channels.
    """
    return int(np.prod(shape)) // shape[axis]


def _quantization(steps: np.ndarray, zeros: np.ndarray, axis: int) -> Any:
    record = schema.QuantizationParametersT()
    record.scale, record.zeroPoint = steps.astype(np.float32), zeros
    record.quantizedDimension = axis
    return record


# --- one function for each kind of operator


def _window(operator: Operator) -> dict[str, Any]:
    height, width = operator.strides
    return {
        "padding": 0 if operator.same else 1,
        "strideH": height,
        "strideW": width,
        "fusedActivationFunction": _CLIP[operator.clip],
    }


def _dilation() -> dict[str, int]:
    return {"dilationHFactor": 1, "dilationWFactor": 1}


def _convolution(file: _Writer, operator: Operator, sources: Sequence[int]) -> int:
    shape = (operator.output[-1], *operator.kernel, operator.inputs[0][-1])
    inputs = [*sources, *file.weights(shape, 0)]
    output = file.activation(operator.output)
    options = {**_window(operator), **_dilation()}
    return file.operator(_CODE.CONV_2D, inputs, output, "Conv2DOptions", **options)


def _depthwise(file: _Writer, operator: Operator, sources: Sequence[int]) -> int:
    inputs = [*sources, *file.weights((1, *operator.kernel, operator.output[-1]), 3)]
    output = file.activation(operator.output)
    options = {**_window(operator), **_dilation(), "depthMultiplier": 1}
    return file.operator(
        _CODE.DEPTHWISE_CONV_2D, inputs, output, "DepthwiseConv2DOptions", **options
    )


def _dense(file: _Writer, operator: Operator, sources: Sequence[int]) -> int:
    inputs = [*sources, *file.weights((operator.output[-1], operator.inputs[0][-1]), 0)]
    output = file.activation(operator.output)
    options = {"fusedActivationFunction": _CLIP[operator.clip]}
    return file.operator(_CODE.FULLY_CONNECTED, inputs, output, "FullyConnectedOptions", **options)


def _binary(file: _Writer, operator: Operator, sources: Sequence[int]) -> int:
    add = operator.kind == "add"
    code, name = (_CODE.ADD, "AddOptions") if add else (_CODE.MUL, "MulOptions")
    output = file.activation(operator.output)
    clip = _CLIP[operator.clip]
    return file.operator(code, sources, output, name, fusedActivationFunction=clip)


def _scale(file: _Writer, operator: Operator, sources: Sequence[int]) -> int:
    middle = file.activation(operator.output)
    file.operator(_CODE.MUL, [*sources, file.factor()], middle, "MulOptions")
    output = file.activation(operator.output)
    clip = _CLIP[operator.clip]
    return file.operator(
        _CODE.ADD, [middle, file.factor()], output, "AddOptions", fusedActivationFunction=clip
    )


def _clip(file: _Writer, operator: Operator, sources: Sequence[int]) -> int:
    code = _CODE.RELU if operator.clip == "relu" else _CODE.RELU6
    return file.operator(code, sources, file.activation(operator.output))


def _pad(file: _Writer, operator: Operator, sources: Sequence[int]) -> int:
    more = [
        after - before for before, after in zip(operator.inputs[0], operator.output, strict=True)
    ]
    borders = np.array([(0, 0), *((size // 2, size - size // 2) for size in more)], np.int32)
    inputs = [*sources, file.constant(borders)]
    return file.operator(_CODE.PAD, inputs, file.activation(operator.output), "PadOptions")


def _mean(file: _Writer, operator: Operator, sources: Sequence[int]) -> int:
    inputs = [*sources, file.constant(np.array([1, 2], np.int32))]
    output = file.activation(operator.output)
    return file.operator(_CODE.MEAN, inputs, output, "ReducerOptions", keepDims=False)


def _softmax(file: _Writer, operator: Operator, sources: Sequence[int]) -> int:
    output = file.activation(operator.output, _PROBABILITY)
    return file.operator(_CODE.SOFTMAX, sources, output, "SoftmaxOptions", beta=1.0)


def _resize(file: _Writer, operator: Operator, sources: Sequence[int]) -> int:
    inputs = [*sources, file.constant(np.array(operator.output[:2], np.int32))]
    output = file.activation(operator.output)
    return file.operator(
        _CODE.RESIZE_BILINEAR, inputs, output, "ResizeBilinearOptions", halfPixelCenters=True
    )


def _reshape(file: _Writer, operator: Operator, sources: Sequence[int]) -> int:
    inputs = [*sources, file.constant(np.array([1, *operator.output], np.int32))]
    return file.operator(_CODE.RESHAPE, inputs, file.activation(operator.output), "ReshapeOptions")


def _expand(file: _Writer, operator: Operator, sources: Sequence[int]) -> int:
    inputs = [*sources, file.constant(np.array(1, np.int32))]
    return file.operator(
        _CODE.EXPAND_DIMS, inputs, file.activation(operator.output), "ExpandDimsOptions"
    )


def _pool(file: _Writer, operator: Operator, sources: Sequence[int]) -> int:
    code = _CODE.MAX_POOL_2D if operator.kind == "max_pool" else _CODE.AVERAGE_POOL_2D
    height, width = operator.kernel
    options = {**_window(operator), "filterHeight": height, "filterWidth": width}
    return file.operator(
        code, sources, file.activation(operator.output), "Pool2DOptions", **options
    )


_WRITERS = {
    "convolution": _convolution,
    "depthwise": _depthwise,
    "dense": _dense,
    "add": _binary,
    "multiply": _binary,
    "scale": _scale,
    "clip": _clip,
    "pad": _pad,
    "mean": _mean,
    "softmax": _softmax,
    "resize": _resize,
    "reshape": _reshape,
    "expand": _expand,
    "max_pool": _pool,
    "average_pool": _pool,
}
