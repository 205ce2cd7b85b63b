"""Outputs of a model that its other layers read as floats too.

Before TensorFlow's converter makes the outputs of a quantization-aware model integers, a file has a
DEQUANTIZE before each. Its last step removes them all, also those that a layer reads: one that
stays float, or the custom operator in the place of a recurrent layer. Such a file has inputs
without a tensor (TensorFlow 2.21.0).
"""

from __future__ import annotations

import copy
from typing import Any

from ai_edge_litert import schema_py_generated as schema

from tfnas.tflite.flatbuffer import integers, kind_of, pack, unpack


def split_shared_outputs(content: bytes) -> bytes:
    """Gives each output of floats that operators read a DEQUANTIZE of its own.

    Args:
        content: A file whose outputs are floats, before the converter makes integers of them.

    Returns:
        The file that computes the same; unchanged where there is no such output.
    """
    model = unpack(content)
    shared = [_split(model, graph) for graph in model.subgraphs]
    return pack(model) if any(shared) else content


def _split(model: Any, graph: Any) -> bool:
    """Whether a graph had such outputs; readers get the numbers of another DEQUANTIZE now."""
    ends = set(integers(graph.outputs))
    read = {index for op in graph.operators for index in integers(op.inputs)}
    ordered: list[Any] = []
    others: dict[int, int] = {}  # output -> what is read instead
    for op in graph.operators:
        op.inputs = [others.get(index, index) for index in integers(op.inputs)]
        ordered.append(op)
        outputs = set(integers(op.outputs))
        is_shared = outputs <= ends & read
        if not is_shared or kind_of(model, op) != schema.BuiltinOperator.DEQUANTIZE:
            continue
        [output] = outputs
        again, tensor = copy.copy(op), copy.copy(graph.tensors[output])
        tensor.name = (tensor.name or b"") + b"_read"
        others[output] = len(graph.tensors)
        graph.tensors.append(tensor)
        again.outputs = [others[output]]
        ordered.append(again)
    graph.operators = ordered
    return bool(others)
