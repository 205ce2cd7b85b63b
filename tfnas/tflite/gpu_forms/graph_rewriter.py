"""Puts other operators in the place of some of a file's, with the same numbers in and out."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tfnas.tflite.file_editor import FileEditor
from tfnas.tflite.flatbuffer import FileGraph, OperatorInfo, TensorInfo, read_graph
from tfnas.tflite.gpu_forms.merged_axes import Shape, transpositions
from tfnas.tflite.graph_writer import GraphWriter
from tfnas.tflite.unused_parts import remove_unused


class NotRewritable(Exception):
    """An operator has no other form."""


class GraphRewriter:
    """Rewrites the main graph of a file, whose sizes are all known.

    Args:
        content: The file.
    """

    def __init__(self, content: bytes) -> None:
        self.info: FileGraph = read_graph(content)
        self._editor = FileEditor(content)
        self.writer = GraphWriter(self._editor.model, self._editor.graph)
        self.old: list[schema.OperatorT] = list(self._editor.graph.operators)
        self._views = 0
        self._dequantized = {
            tensor.index: (place, op)
            for place, op in enumerate(self.info.operators)
            if op.name == "DEQUANTIZE" and op.inputs[0].constant is not None
            for tensor in op.outputs
        }

    def packed(self) -> bytes:
        """Returns the file, in which no tensor is reshaped twice in a row."""
        graph = self._editor.graph
        graph.operators = self.writer.operators
        self._join_reshapes()
        remove_unused(self._editor.model)
        return self._editor.packed()

    @property
    def operators(self) -> list[schema.OperatorT]:
        """The operators of the packed file, in order."""
        return list(self._editor.graph.operators)

    def shape(self, index: int) -> Shape:
        """Returns the shape of a tensor, also of a new one."""
        return tuple(int(size) for size in self._editor.graph.tensors[index].shape)

    def like(self, index: int, shape: Sequence[int]) -> int:
        """Adds a tensor in the number format of another one.

        Args:
            index: The other one.
            shape: Shape of the new one.

        Raises:
            NotRewritable: The format has a scale for each channel.
        """
        made = copy.copy(self._editor.graph.tensors[index])
        scales = made.quantization.scale if made.quantization is not None else None
        if scales is not None and len(scales) > 1:
            raise NotRewritable
        made.shape, made.shapeSignature = np.array(shape, np.int32), None
        first = (made.name or b"").decode().split(";")[0]  # the layer is found by it
        made.name = f"{first}_view{self._views}".encode()
        made.buffer, made.isVariable = 0, False
        self._views += 1
        self._editor.graph.tensors.append(made)
        return len(self._editor.graph.tensors) - 1

    def view(self, index: int, shape: Sequence[int]) -> int:
        """Returns a tensor of the same numbers in another shape.

        A constant is stored once. Other tensors are reshaped by an operator.

        Args:
            index: The tensor.
            shape: The other shape.
        """
        if self.shape(index) == tuple(shape):
            return index
        new = self.like(index, shape)
        tensors = self._editor.graph.tensors
        if index in self._dequantized:
            place, op = self._dequantized[index]
            self.copied(self.old[place], [self.view(op.inputs[0].index, shape)], [new])
        elif self.is_constant(index):
            tensors[new].buffer = tensors[index].buffer
        else:
            self.reshaped(index, new)
        return new

    def is_constant(self, index: int) -> bool:
        """Returns whether the file holds the numbers of a tensor."""
        data = self._editor.model.buffers[self._editor.graph.tensors[index].buffer].data
        return data is not None and len(data) > 0

    def reshaped(self, index: int, output: int) -> None:
        """Adds an operator that gives a tensor's numbers to another one.

        Args:
            index: The tensor.
            output: The one that gets the numbers, in its own shape.
        """
        shape = list(self.shape(output))
        numbers = self.writer.numbers(shape, f"shape_{self._views}")
        self.writer.operator("RESHAPE", [index, numbers], [output], newShape=shape)

    def copied(
        self, op: schema.OperatorT, inputs: Sequence[int], outputs: Sequence[int], **options: Any
    ) -> None:
        """Adds an operator of the file with other tensors.

        Args:
            op: The operator.
            inputs: Indices of its inputs.
            outputs: Indices of its outputs.
            **options: Fields of its options that change.
        """
        made = copy.copy(op)
        made.inputs, made.outputs = np.array(inputs, np.int32), np.array(outputs, np.int32)
        if options:
            made.builtinOptions = copy.copy(op.builtinOptions)
            for name, value in options.items():
                setattr(made.builtinOptions, name, value)
        self.writer.operators.append(made)

    def transposed(self, index: int, shape: Sequence[int], order: Sequence[int]) -> int:
        """Returns a tensor with the axes of another one in another order, by four axes at most.

        Args:
            index: The tensor.
            shape: The shape that its numbers are read in.
            order: For each new axis the old one.
        """
        for sizes, axes in transpositions(shape, order):
            before = self.view(index, sizes)
            index = self.like(before, [sizes[axis] for axis in axes])
            places = self.writer.numbers(axes, f"order_{self._views}")
            self.writer.operator("TRANSPOSE", [before, places], [index])
        return index

    def tiled(self, index: int, multiples: Sequence[int]) -> int:
        """Returns a tensor whose axes are repeated.

        Args:
            index: A tensor.
            multiples: How often, for each axis.
        """
        sizes = [a * b for a, b in zip(self.shape(index), multiples, strict=True)]
        new = self.like(index, sizes)
        numbers = self.writer.numbers(multiples, f"multiples_{self._views}")
        self.writer.operator("TILE", [index, numbers], [new])
        return new

    def _join_reshapes(self) -> None:
        """Has a reshaped tensor that is reshaped again be read from the first one."""
        graph = self._editor.graph
        sources: dict[int, int] = {}
        ends = {int(index) for index in graph.outputs}
        kept = []
        same: dict[int, int] = {}
        for op in graph.operators:
            op.inputs = np.array([same.get(int(i), int(i)) for i in op.inputs], np.int32)
            if self._editor.kind(op) == schema.BuiltinOperator.RESHAPE:
                source, output = int(op.inputs[0]), int(op.outputs[0])
                source = sources.get(source, source)
                op.inputs = np.array([source, *op.inputs[1:]], np.int32)
                sources[output] = source
                if self.shape(source) == self.shape(output) and output not in ends:
                    same[output] = source
                    continue
            kept.append(op)
        graph.operators = kept


def numbers_of(tensor: TensorInfo) -> tuple[int, ...]:
    """Returns the integers of a constant.

    Args:
        tensor: The tensor.

    Raises:
        NotRewritable: It is no constant of integers.
    """
    if tensor.constant is None or tensor.dtype not in ("int32", "int64"):
        raise NotRewritable
    return tuple(int(n) for n in np.frombuffer(tensor.constant, np.dtype(tensor.dtype)))


def number_count(shape: Sequence[int]) -> int:
    """Returns how many numbers a tensor has."""
    return math.prod(shape)


def output_of(op: OperatorInfo) -> TensorInfo:
    """Returns the one output of an operator.

    Raises:
        NotRewritable: It has others.
    """
    if len(op.outputs) != 1:
        raise NotRewritable
    return op.outputs[0]
