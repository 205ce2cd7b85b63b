"""BROADCAST_TO in front of operators that broadcast themselves: it is left out."""

from __future__ import annotations

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tfnas.tflite.file_editor import FileEditor
from tfnas.tflite.flatbuffer import FileGraph, OperatorInfo, read_graph
from tfnas.tflite.gpu_forms.merged_axes import Shape
from tfnas.tflite.unused_parts import remove_unused

_BROADCASTING = ("ADD", "DIV", "MAXIMUM", "MINIMUM", "MUL", "POW", "SQUARED_DIFFERENCE", "SUB")


def without_broadcasts(content: bytes) -> bytes:
    """Returns a file whose operators read a tensor itself, where they broadcast it as they compute.

    Args:
        content: A file whose sizes are known; returned as it is where nothing changes.
    """
    graph = read_graph(content)
    sources = {
        op.outputs[0].index: op.inputs[0]
        for op in graph.operators
        if op.name == "BROADCAST_TO" and op.outputs[0] not in graph.outputs
    }
    left_out = {i: s.index for i, s in sources.items() if _may_read(graph, i, s.shape)}
    if not left_out:
        return content
    editor = FileEditor(content)
    code = schema.BuiltinOperator.BROADCAST_TO
    for op in editor.graph.operators:
        if editor.kind(op) != code:
            op.inputs = np.array([left_out.get(int(i), int(i)) for i in op.inputs], np.int32)
    remove_unused(editor.model)
    return editor.packed()


def _may_read(graph: FileGraph, index: int, shape: Shape) -> bool:
    """Whether all readers of a tensor give the same where they read one of another shape."""
    readers = [op for op in graph.operators if any(x.index == index for x in op.inputs)]
    return all(_broadcasts(op, index, shape) for op in readers)


def _broadcasts(op: OperatorInfo, index: int, shape: Shape) -> bool:
    if op.name not in _BROADCASTING or len(op.inputs) != 2:
        return False
    shapes = [shape if x.index == index else x.shape for x in op.inputs]
    return np.broadcast_shapes(*shapes) == op.outputs[0].shape
