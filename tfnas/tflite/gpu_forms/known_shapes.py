"""A file for one example, in which every size is a constant.

A Keras model leaves its batch open. So `Reshape` and `Flatten` compute the size of the batch in the
file, by SHAPE, STRIDED_SLICE and PACK, and an accelerator takes none of them. For one example these
are constants: they are read from a run, and their operators vanish.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tfnas.tflite.artifact import Artifact
from tfnas.tflite.file_editor import FileEditor
from tfnas.tflite.flatbuffer import FileGraph, OperatorInfo, TensorInfo

_SIZES = ("SHAPE", "RANK")
# Operators that give other numbers from run to run, or whose graphs do.
_UNSTEADY = (
    *("CALL", "IF", "MULTINOMIAL", "RANDOM_STANDARD_NORMAL", "RANDOM_UNIFORM", "STABLEHLO_WHILE"),
    "WHILE",
)
_MOST_NUMBERS = 65_536  # of a tensor that is computed from sizes and becomes a constant
# The inputs of an operator that its output's sizes depend on.
_SIZE_INPUTS = {
    **dict.fromkeys(("BROADCAST_TO", "PAD", "PADV2", "MIRROR_PAD", "RESHAPE", "TILE"), (1,)),
    **dict.fromkeys(("RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR", "SPLIT_V"), (1,)),
    **dict.fromkeys(("FILL", "TRANSPOSE_CONV"), (0,)),
    "ONE_HOT": (1,),
    "RANGE": (0, 1, 2),
    "SLICE": (2,),
    "STRIDED_SLICE": (1, 2, 3),
}
_OWN_SIZES = ("NON_MAX_SUPPRESSION_V4", "NON_MAX_SUPPRESSION_V5", "UNIQUE", "WHERE")


class OpenSizes(ValueError):
    """A file's sizes depend on its inputs; the message says which."""


def with_known_shapes(artifact: Artifact) -> bytes:
    """Returns the file for a batch of 1, with constants for all that is computed from sizes.

    Args:
        artifact: A file that leaves no size but the batch open.

    Raises:
        OpenSizes: It leaves others open, or a size depends on the numbers of an input.
        RuntimeError: The interpreter can't run the file.
    """
    graph = artifact.graph
    shapes = [_of_one(tensor) for tensor in graph.inputs]
    known = _known(graph)
    _check_sizes(graph, known)
    interpreter = artifact.interpreter(xnnpack=False, shapes=shapes, keep_all=True)
    for detail in interpreter.get_input_details():
        interpreter.set_tensor(detail["index"], np.zeros(detail["shape"], detail["dtype"]))
    interpreter.invoke()
    sizes = {
        detail["index"]: [int(size) for size in detail["shape"]]
        for detail in interpreter.get_tensor_details()
        if detail["index"] < len(graph.tensors)
    }
    editor = FileEditor(artifact.content)
    for tensor, info in zip(editor.graph.tensors, graph.tensors, strict=True):
        if info.constant is None and info.index in sizes:
            tensor.shape, tensor.shapeSignature = np.array(sizes[info.index], np.int32), None
    folded = set(_folded(graph, known, sizes))
    for index in folded:
        _store(editor, index, interpreter.get_tensor(index))
    editor.graph.operators = [
        op for op in editor.graph.operators if not {*map(int, op.outputs)} & folded
    ]
    return editor.packed()


def _of_one(tensor: TensorInfo) -> tuple[int, ...]:
    signature = tensor.signature or tensor.shape
    if -1 in signature[1:]:
        raise OpenSizes(
            f"file must leave no size but the batch open, got {signature} for {tensor.name!r}"
        )
    return tuple(1 if size == -1 else size for size in signature)


def _known(graph: FileGraph) -> dict[int, bool]:
    """Tensors that are the same for all inputs, and whether sizes are among what they come from."""
    known = {tensor.index: False for tensor in graph.tensors if tensor.constant is not None}
    for op in graph.operators:
        if op.name in _SIZES:
            known |= {tensor.index: True for tensor in op.outputs}
        elif not op.inputs or op.custom or op.name in _UNSTEADY:
            continue
        elif all(tensor.index in known for tensor in op.inputs):
            of_sizes = any(known[tensor.index] for tensor in op.inputs)
            known |= {tensor.index: of_sizes for tensor in op.outputs}
    return known


def _check_sizes(graph: FileGraph, known: dict[int, bool]) -> None:
    for op in graph.operators:
        wrong = [t for t in _sizes_read_by(op) if t.index not in known]
        computed = any(tensor.index not in known for tensor in op.inputs)
        if wrong or (op.name in _OWN_SIZES and computed):
            raise OpenSizes(f"file must have known sizes, got {op.name} of layer {op.layer!r}")


def _sizes_read_by(op: OperatorInfo) -> Iterator[TensorInfo]:
    for place in _SIZE_INPUTS.get(op.name, ()):
        if place < len(op.inputs):
            yield op.inputs[place]


def _folded(graph: FileGraph, known: dict[int, bool], sizes: dict[int, list[int]]) -> Iterator[int]:
    """Tensors that become constants: those computed from sizes, if they are not large."""
    ends = {tensor.index for tensor in graph.outputs}
    for op in graph.operators:
        indices = [tensor.index for tensor in op.outputs]
        numbers = sum(int(np.prod(sizes.get(index, [_MOST_NUMBERS + 1]))) for index in indices)
        of_sizes = all(known.get(index) for index in indices) and not ends & {*indices}
        if of_sizes and numbers <= _MOST_NUMBERS:
            yield from indices


def _store(editor: FileEditor, index: int, values: np.ndarray) -> None:
    """Makes a tensor a constant."""
    buffer: Any = schema.BufferT()
    buffer.data = np.frombuffer(np.ascontiguousarray(values).tobytes(), np.uint8)
    editor.model.buffers.append(buffer)
    editor.graph.tensors[index].buffer = len(editor.model.buffers) - 1
