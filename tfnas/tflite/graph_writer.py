"""Adds tensors and operators to a graph of a `.tflite` file, as objects of its schema."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tfnas.quantization.arithmetic import nudge

if TYPE_CHECKING:
    from tfnas.quantization.fake_quant import FakeQuant

_CODE, _TYPE, _OPTIONS = schema.BuiltinOperator, schema.TensorType, schema.BuiltinOptions
# Operator -> its version with inputs of int8, and of int16, as TFLite's own table has them; others
# have version 1, but for BROADCAST_TO, which begins with 2.
_VERSIONS = {
    "ADD": (2, 3),
    "BROADCAST_TO": (2, 3),
    "CONCATENATION": (2, 3),
    "FULLY_CONNECTED": (4, 7),
    "GATHER": (2, 4),
    "LOGISTIC": (2, 3),
    "MUL": (2, 4),
    "QUANTIZE": (2, 2),
    "RELU": (2, 3),
    "SPLIT": (2, 4),
    "STRIDED_SLICE": (2, 4),
    "SUB": (2, 5),
    "TANH": (2, 3),
    "TRANSPOSE": (2, 3),
}
_TITLES = {
    "BATCH_MATMUL": "BatchMatMul",
    "CONV_2D": "Conv2D",
    "DEPTHWISE_CONV_2D": "DepthwiseConv2D",
    "SVDF": "SVDF",
    "UNIDIRECTIONAL_SEQUENCE_LSTM": "UnidirectionalSequenceLSTM",
    **dict.fromkeys(("MEAN", "REDUCE_MAX", "SUM"), "Reducer"),
}
_WITHOUT_OPTIONS = {"LOG", "LOGISTIC", "TANH", "RELU", "ROUND"}
Shape = Sequence[int | None]


@dataclasses.dataclass(frozen=True)
class NumberFormat:
    """How a tensor holds its numbers: (integer - zero) * scale.

    Args:
        dtype: "float32", "int8", "int16", "int32", "int64" or "bool".
        scale: Distance between two neighboring numbers; None: the tensor is not quantized.
        zero: The integer that stands for 0.
    """

    dtype: str
    scale: float | None = None
    zero: int = 0

    @classmethod
    def of_range(cls, layer: FakeQuant) -> NumberFormat:
        """Returns the format that a fake quantization rounds to.

        Args:
            layer: The fake quantization.
        """
        low, high = (float(end) for end in layer.grid_range())
        step, lowest, _ = nudge(low, high, layer.bits, narrow=layer.symmetric)
        if layer.symmetric:
            return cls("int16", float(step))
        return cls("int8", float(step), -128 - round(float(lowest) / float(step)))

    @classmethod
    def of_tensor(cls, tensor: Any) -> NumberFormat:
        """Returns the format of a tensor of the schema, which has one scale.

        Args:
            tensor: The tensor.
        """
        names = {number: name.lower() for name, number in vars(_TYPE).items() if name[0] != "_"}
        found = tensor.quantization
        if found is None or found.scale is None or len(found.scale) == 0:
            return cls(names[tensor.type])
        return cls(names[tensor.type], float(found.scale[0]), int(found.zeroPoint[0]))

    @property
    def finer(self) -> NumberFormat:
        """The 16-bit format that holds all numbers of an 8-bit one, as they are."""
        if self.dtype != "int8" or self.scale is None:
            return self
        return NumberFormat("int16", self.scale / 128.0)

    def set(self, tensor: Any) -> None:
        """Gives a tensor of the schema this format.

        Args:
            tensor: The tensor; changed in place.
        """
        tensor.type = getattr(_TYPE, self.dtype.upper())
        if self.scale is not None:
            tensor.quantization = schema.QuantizationParametersT()
            tensor.quantization.scale = np.array([self.scale], np.float32)
            tensor.quantization.zeroPoint = np.array([self.zero], np.int64)

    def integers(self, values: np.ndarray) -> np.ndarray:
        """Returns the integers that are nearest to numbers, which are in the range.

        Args:
            values: The numbers.
        """
        if self.scale is None:
            return np.asarray(values, self.dtype)
        found = np.floor(np.asarray(values, np.float64) / self.scale + 0.5) + self.zero
        ends = np.iinfo(self.dtype)
        return np.clip(found, ends.min, ends.max).astype(self.dtype)


class GraphWriter:
    """Adds to one graph of a file.

    Args:
        model: The file, see :func:`tfnas.tflite.flatbuffer.unpack`.
        graph: Its graph; None: a new one, which is added to the file.
        scope: Start of the names of new tensors.
    """

    def __init__(self, model: Any, graph: Any = None, scope: str = "") -> None:
        self.model, self.scope = model, scope
        if graph is None:
            graph = schema.SubGraphT()
            graph.tensors, graph.operators, graph.inputs, graph.outputs = [], [], [], []
            graph.name = f"{scope}graph".encode()
            model.subgraphs.append(graph)
        self.graph = graph
        # New operators; whoever writes says where in the graph they are put.
        self.operators: list[Any] = []

    def tensor(self, shape: Shape, form: NumberFormat, name: str) -> int:
        """Adds a tensor.

        Args:
            shape: Its shape; None is a size that the file leaves open.
            form: Its number format.
            name: Its name.

        Returns:
            Its index.
        """
        tensor = schema.TensorT()
        tensor.shape = [1 if size is None else size for size in shape]
        if None in shape:
            tensor.shapeSignature = [-1 if size is None else size for size in shape]
        tensor.name = f"{self.scope}{name}".encode()
        form.set(tensor)
        self.graph.tensors.append(tensor)
        return len(self.graph.tensors) - 1

    def constant(self, values: Any, form: NumberFormat, name: str) -> int:
        """Adds a constant.

        Args:
            values: Its integers, or numbers of a format without a scale.
            form: Its format.
            name: Its name.
        """
        array = np.ascontiguousarray(values, form.dtype)
        index = self.tensor(np.shape(values), form, name)
        buffer = schema.BufferT()
        buffer.data = np.frombuffer(array.tobytes(), np.uint8)
        self.model.buffers.append(buffer)
        self.graph.tensors[index].buffer = len(self.model.buffers) - 1
        return index

    def numbers(self, values: Any, name: str) -> int:
        """Adds a constant of int32: sizes, axes, places."""
        return self.constant(np.asarray(values, np.int32), NumberFormat("int32"), name)

    def operator(
        self, name: str, inputs: Sequence[int], outputs: Sequence[int], **options: Any
    ) -> None:
        """Adds an operator.

        Args:
            name: TFLite's name.
            inputs: Indices of its inputs; -1 for one that is left out.
            outputs: Indices of its outputs.
            **options: Fields of its options in the schema.
        """
        operator = schema.OperatorT()
        kinds = [self.graph.tensors[i].type for i in inputs if i >= 0]
        first, second = _VERSIONS.get(name, (1, 1))
        version = 2 if name == "BROADCAST_TO" else 1
        if _TYPE.INT16 in kinds:
            version = second
        elif _TYPE.INT8 in kinds:
            version = first
        operator.opcodeIndex = self._code(name, version)
        operator.inputs, operator.outputs = list(inputs), list(outputs)
        if name not in _WITHOUT_OPTIONS:
            title = "".join(part.capitalize() for part in name.split("_"))
            title = f"{_TITLES.get(name, title)}Options"
            operator.builtinOptionsType = getattr(_OPTIONS, title)
            operator.builtinOptions = getattr(schema, f"{title}T")()
            for key, value in options.items():
                setattr(operator.builtinOptions, key, value)
        self.operators.append(operator)

    def _code(self, name: str, version: int) -> int:
        number = getattr(_CODE, name)
        for index, code in enumerate(self.model.operatorCodes):
            if max(code.builtinCode, code.deprecatedBuiltinCode) == number:
                code.version = max(code.version, version)
                return index
        code = schema.OperatorCodeT()
        code.builtinCode, code.deprecatedBuiltinCode = number, min(number, 127)
        code.version = version
        self.model.operatorCodes.append(code)
        return len(self.model.operatorCodes) - 1

    def finish(self, inputs: Sequence[int], outputs: Sequence[int]) -> int:
        """Ends a new graph.

        Args:
            inputs: Indices of its inputs.
            outputs: Indices of its outputs.

        Returns:
            Its index in the file.
        """
        self.graph.operators, self.graph.inputs, self.graph.outputs = (
            self.operators,
            list(inputs),
            list(outputs),
        )
        return next(i for i, graph in enumerate(self.model.subgraphs) if graph is self.graph)
