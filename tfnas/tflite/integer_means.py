"""Means of rows, as products of 16 bits that are exact and take 8-bit integers as they are.

A normalization subtracts means by FULLY_CONNECTED with a kernel of n - 1 and -1, or has them from
one of ones, in steps of 1/n (:mod:`tfnas.quantization.normalization_forms`). Of a small constant
the converter finds steps by itself, in which 1/n is rounded: the kernel is written again. A sum of
more numbers than 32 bits hold gets a bias of 64 bits, with which kernels add up so many.

A kernel whose rows add up to 0 gives the same for x and for x - zero point. So it can take 8-bit
integers as they are, in steps of their own: a CAST copies, where the QUANTIZE in its place
multiplies and rounds each number.
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tfnas.quantization.normalization_forms import WIDEST
from tfnas.tflite.flatbuffer import kind_of
from tfnas.tflite.graph_writer import GraphWriter, NumberFormat

_MOST_INPUTS = 2**31 // 2**15 - 1  # of 16 bits, whose sum 32 bits hold
_OPERATOR, _TYPE = schema.BuiltinOperator, schema.TensorType


def write_means(model: Any) -> bool:
    """Makes the products of 16 bits that subtract or find means exact, in place.

    Args:
        model: The objects of a file, of :func:`tfnas.tflite.flatbuffer.unpack`.

    Returns:
        Whether any kernel was written again.
    """
    written: dict[tuple[int, int], int] = {}  # (outputs, inputs) of a kernel -> its buffer
    changed = False
    for graph in model.subgraphs:
        for op in graph.operators:
            if kind_of(model, op) != _OPERATOR.FULLY_CONNECTED:
                continue
            kernel = graph.tensors[op.inputs[1]]
            integers = _integers(model, kernel)
            has_bias = len(op.inputs) > 2 and op.inputs[2] >= 0
            is_wide = graph.tensors[op.inputs[0]].type == _TYPE.INT16
            if integers is None or has_bias or not is_wide:
                continue
            exact, (rows, width) = _exact(integers, kernel), integers.shape
            if width > _MOST_INPUTS and (exact is not None or (integers == 1).all()):
                _add_wide_bias(model, graph, op)
                changed = True
            if exact is None:
                continue
            if (rows, width) not in written:
                buffer = schema.BufferT()
                buffer.data = exact.astype(np.int8).reshape(-1).view(np.uint8)
                model.buffers.append(buffer)
                written[rows, width] = len(model.buffers) - 1
            kernel.buffer = written[rows, width]
            kernel.quantization.scale = np.full(1, 1.0 / width, np.float32)
            kernel.quantization.zeroPoint = np.zeros(1, np.int64)
            changed = True
    return changed


def _add_wide_bias(model: Any, graph: Any, op: Any) -> None:
    """Gives a product a bias of zeros with 64 bits, since its sum may have more than 32."""
    x, kernel = (graph.tensors[index] for index in op.inputs[:2])
    scale = float(x.quantization.scale[0]) / int(kernel.shape[-1])
    form = NumberFormat("int64", scale)
    name = f"{kernel.name.decode()}/bias"
    bias = GraphWriter(model, graph).constant(np.zeros(kernel.shape[0]), form, name)
    op.inputs = [int(op.inputs[0]), int(op.inputs[1]), bias]


def _exact(integers: np.ndarray, kernel: Any) -> np.ndarray | None:
    """The integers in steps of 1/n of a kernel for means, where it isn't in these yet."""
    rows, width = integers.shape
    steps = np.asarray(kernel.quantization.scale, np.float64)[:, None]  # one, or one a row
    if rows not in (1, width) or rows > WIDEST:
        return None
    wanted = np.ones((1, width)) if rows == 1 else width * np.eye(width) - 1.0
    is_near = np.abs(integers * steps - wanted / width) <= 0.501 * steps
    return None if (integers == wanted).all() or not is_near.all() else wanted


def cast_before_zero_sums(model: Any) -> bool:
    """Replaces each such QUANTIZE by a CAST, in place.

    Args:
        model: The objects of a file, of :func:`tfnas.tflite.flatbuffer.unpack`.

    Returns:
        Whether any was replaced.
    """
    changed = False
    for graph in model.subgraphs:
        for place, op in enumerate(graph.operators):
            passed = _passed_on(model, graph, op)
            if not passed:
                continue
            source = graph.tensors[op.inputs[0]]
            for index in passed:
                quantization = copy.copy(source.quantization)
                quantization.zeroPoint = np.zeros(1, np.int64)
                graph.tensors[index].quantization = quantization
            writer = GraphWriter(model, graph)
            kinds = {"inDataType": _TYPE.INT8, "outDataType": _TYPE.INT16}
            writer.operator("CAST", list(op.inputs), list(op.outputs), **kinds)
            (graph.operators[place],) = writer.operators
            changed = True
    return changed


def _passed_on(model: Any, graph: Any, op: Any) -> list[int]:
    """The tensors that hold the output of a QUANTIZE that can be a CAST; [] for any other."""
    if kind_of(model, op) != _OPERATOR.QUANTIZE:
        return []
    types = [graph.tensors[index].type for index in (op.inputs[0], op.outputs[0])]
    if types != [_TYPE.INT8, _TYPE.INT16]:
        return []
    found, pending = [], [int(op.outputs[0])]
    while pending:
        index = pending.pop()
        found.append(index)
        readers = [reader for reader in graph.operators if index in reader.inputs]
        if not readers or index in graph.outputs:
            return []
        for reader in readers:
            if kind_of(model, reader) == _OPERATOR.RESHAPE:
                pending.append(int(reader.outputs[0]))
            elif not _ignores_offsets(model, graph, reader):
                return []
    return found


def _ignores_offsets(model: Any, graph: Any, op: Any) -> bool:
    """Whether an operator is a product with a kernel whose rows add up to 0."""
    if kind_of(model, op) != _OPERATOR.FULLY_CONNECTED:
        return False
    rows = _integers(model, graph.tensors[op.inputs[1]])
    return rows is not None and not rows.sum(axis=-1, dtype=np.int64).any()


def _integers(model: Any, kernel: Any) -> np.ndarray | None:
    """The integers of an 8-bit constant; None for any other tensor."""
    data = model.buffers[kernel.buffer].data
    if data is None or kernel.type != _TYPE.INT8 or len(kernel.shape) != 2:
        return None
    return np.asarray(data, np.uint8).view(np.int8).reshape(tuple(kernel.shape))
