"""Comparisons of quantized numbers with a constant, by integers.

The converter writes NOT_EQUAL of floats behind a DEQUANTIZE. The kernels of NOT_EQUAL for 8 bits
multiply integers by their scale first, so that neighbors may be equal, and there is none for 16
bits. As int32 integers are compared exactly, in LiteRT and in TFLite Micro.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tfnas.tflite.flatbuffer import kind_of
from tfnas.tflite.graph_writer import GraphWriter, NumberFormat

_OPERATOR, _TYPE = schema.BuiltinOperator, schema.TensorType
_INT32 = NumberFormat("int32")


def compare_integers(model: Any) -> bool:
    """Replaces each NOT_EQUAL of dequantized numbers and a constant by one of integers, in place.

    Args:
        model: The objects of a file, of :func:`tfnas.tflite.flatbuffer.unpack`.

    Returns:
        Whether any was replaced; what nothing reads any more is still there.
    """
    changed = False
    for graph in model.subgraphs:
        makers = {index: op for op in graph.operators for index in op.outputs}
        ordered: list[Any] = []
        for op in graph.operators:
            new = _integer_operators(model, graph, op, makers)
            ordered += new or [op]
            changed |= bool(new)
        graph.operators = ordered
    return changed


def _integer_operators(model: Any, graph: Any, op: Any, makers: dict[int, Any]) -> list[Any]:
    """CAST and NOT_EQUAL of integers in the place of an operator; [] for any other."""
    if kind_of(model, op) != _OPERATOR.NOT_EQUAL:
        return []
    dequantized = [i for i in op.inputs if _is_dequantized(model, graph, makers.get(i))]
    constants = [i for i in op.inputs if model.buffers[graph.tensors[i].buffer].data is not None]
    if len(dequantized) != 1 or len(constants) != 1:
        return []
    source = int(makers[dequantized[0]].inputs[0])
    form = NumberFormat.of_tensor(graph.tensors[source])
    data = model.buffers[graph.tensors[constants[0]].buffer].data
    values = np.frombuffer(np.asarray(data, np.uint8).tobytes(), np.float32)
    writer = GraphWriter(model, graph, "compared_")
    tensor = graph.tensors[source]
    shape = tensor.shape if tensor.shapeSignature is None else tensor.shapeSignature
    sizes = tuple(None if size < 0 else int(size) for size in shape)
    wide = writer.tensor(sizes, _INT32, "integers")
    kinds = {"inDataType": tensor.type, "outDataType": _TYPE.INT32}
    writer.operator("CAST", [source], [wide], **kinds)
    number = writer.numbers(form.integers(values), "number")
    writer.operator("NOT_EQUAL", [wide, number], list(op.outputs))
    return writer.operators


def _is_dequantized(model: Any, graph: Any, maker: Any) -> bool:
    if maker is None or kind_of(model, maker) != _OPERATOR.DEQUANTIZE:
        return False
    return graph.tensors[maker.inputs[0]].type in (_TYPE.INT8, _TYPE.INT16)
