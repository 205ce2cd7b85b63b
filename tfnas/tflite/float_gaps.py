"""Repair of the gaps of floats that stand between integer tensors of two types.

The converter has no way to say that an 8-bit tensor goes on with 16 bits. A model says it by a cast
to float64 and back (:func:`tfnas.quantization.inner_ranges.with_other_bits`), which the converter
writes as DEQUANTIZE, CAST, CAST, QUANTIZE. One QUANTIZE computes the same from integers. Where an
8-bit tensor is rounded to another range, the converter may leave DEQUANTIZE, QUANTIZE.
"""

from __future__ import annotations

import copy
from typing import Any

from ai_edge_litert import schema_py_generated as schema

from tfnas.tflite.flatbuffer import kind_of

_OPERATOR, _TYPE = schema.BuiltinOperator, schema.TensorType
_INTEGERS = (_TYPE.INT8, _TYPE.INT16)
_MOVES = (
    _OPERATOR.EXPAND_DIMS,
    _OPERATOR.GATHER,
    _OPERATOR.PAD,
    _OPERATOR.RESHAPE,
    _OPERATOR.SLICE,
    _OPERATOR.SQUEEZE,
    _OPERATOR.STRIDED_SLICE,
    _OPERATOR.TILE,
    _OPERATOR.TRANSPOSE,
)


def close_float_gaps(model: Any) -> bool:
    """Replaces the way of quantized numbers to floats and back by one QUANTIZE, in place.

    Args:
        model: The objects of a file, of :func:`tfnas.tflite.flatbuffer.unpack`.

    Returns:
        Whether any was replaced; what nothing reads any more is still there.
    """
    changed = False
    for graph in model.subgraphs:
        _quantize_before_moves(model, graph)
        makers = {index: op for op in graph.operators for index in op.outputs}
        for op in graph.operators:
            if kind_of(model, op) != _OPERATOR.QUANTIZE:
                continue
            gap = _gap_before(model, graph, op, makers)
            if gap is None:
                continue
            op.inputs, changed = [gap[-1].inputs[0]], True
    return changed


def _quantize_before_moves(model: Any, graph: Any) -> None:
    """Puts each QUANTIZE that the converter has moved behind a RESHAPE back to the casts.

    Both orders compute the same; numbers are moved as integers then.
    """
    makers = {index: op for op in graph.operators for index in op.outputs}
    ordered: list[Any] = []
    for op in graph.operators:
        chain = _moves_before(model, graph, op, makers)
        if not chain:
            ordered.append(op)
            continue
        output, target = op.outputs[0], graph.tensors[op.outputs[0]]
        quantize, source = copy.copy(op), chain[-1].inputs[0]
        index = _like(graph, graph.tensors[source], target)
        quantize.inputs, quantize.outputs = [source], [index]
        ordered.append(quantize)
        for move in reversed(chain):
            moved, before = copy.copy(move), index
            last = move is chain[0]
            index = output if last else _like(graph, graph.tensors[move.outputs[0]], target)
            moved.inputs, moved.outputs = [before, *move.inputs[1:]], [index]
            ordered.append(moved)
    graph.operators = ordered


def _moves_before(model: Any, graph: Any, op: Any, makers: dict[int, Any]) -> list[Any]:
    """The moves of numbers between a cast from float64 and a QUANTIZE, the last one first."""
    chain: list[Any] = []
    if kind_of(model, op) != _OPERATOR.QUANTIZE:
        return chain
    maker = makers.get(op.inputs[0])
    while maker is not None and kind_of(model, maker) in _MOVES:
        chain.append(maker)
        maker = makers.get(maker.inputs[0])
    if maker is None or kind_of(model, maker) != _OPERATOR.CAST:
        return []
    return chain if graph.tensors[maker.inputs[0]].type == _TYPE.FLOAT64 else []


def _like(graph: Any, shaped: Any, quantized: Any) -> int:
    """Adds a tensor with the shape of one and the integers of another; returns its index."""
    tensor = copy.copy(quantized)
    tensor.shape, tensor.shapeSignature = shaped.shape, shaped.shapeSignature
    tensor.name, tensor.buffer = shaped.name, 0
    graph.tensors.append(tensor)
    return len(graph.tensors) - 1


def _gap_before(model: Any, graph: Any, op: Any, makers: dict[int, Any]) -> list[Any] | None:
    """The DEQUANTIZE before a QUANTIZE, behind the casts after it; None for others."""
    gap: list[Any] = []
    maker = makers.get(op.inputs[0])
    while maker is not None and kind_of(model, maker) == _OPERATOR.CAST:
        gap.append(maker)
        maker = makers.get(maker.inputs[0])
    if maker is None or kind_of(model, maker) != _OPERATOR.DEQUANTIZE:
        return None
    types = {graph.tensors[part.outputs[0]].type for part in gap}
    if graph.tensors[maker.inputs[0]].type not in _INTEGERS or not types <= _FLOATS:
        return None
    return [*gap, maker]


_FLOATS = {_TYPE.FLOAT32, _TYPE.FLOAT64}
