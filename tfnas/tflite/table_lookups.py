"""Tables of a file whose rows are looked up: their formats, and lookups as the kernels want them.

What LiteRT 2.3 and TFLite Micro run, measured:

| operator         | table             | output  | LiteRT | TFLite Micro                 |
|------------------|-------------------|---------|--------|------------------------------|
| GATHER           | int8, one scale   | int8    | yes    | yes                          |
| GATHER           | int4, one scale   | int4    | yes    | no                           |
| GATHER           | int16, one scale  | int16   | yes    | no                           |
| EMBEDDING_LOOKUP | int8, one scale   | float32 | yes    | yes                          |
| EMBEDDING_LOOKUP | int8, row by row  | float32 | yes    | wrong: the first scale alone |
| EMBEDDING_LOOKUP | int4              | float32 | yes    | no                           |

An EMBEDDING_LOOKUP takes a list of numbers alone, so all lookups here are of GATHER: with 8 bits
one scale, as the converter writes them; with 4 bits rows in units of scales, which are looked up
too (:mod:`tfnas.quantization.embedding_forms` does the same in integer files). The output of a
GATHER of 4 bits has 4 bits itself, which DEQUANTIZE takes and no integer operator. In integer files
two weights are in a byte of an 8-bit table, and integer operators take them apart.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tfnas.tflite.artifact import Artifact
from tfnas.tflite.file_editor import FileEditor
from tfnas.tflite.file_weights import FileKernel, dense_values
from tfnas.tflite.flatbuffer import layer_name

_CODE, _TYPE, _OPTIONS = schema.BuiltinOperator, schema.TensorType, schema.BuiltinOptions
_INT4_GATHER = 7  # version of the operator that takes 4 bits
_LARGEST = {8: 127, 4: 7}
_BASE = 17  # of the two weights in a byte


def read_tables(artifact: Artifact) -> Iterator[FileKernel]:
    """Yields the tables of floats in a file whose rows are looked up, each once.

    Args:
        artifact: The file.
    """
    seen = set()
    for op in artifact.graph.operators:
        table = op.inputs[0] if op.name == "GATHER" else None
        if table is None or table.constant is None or table.index in seen:
            continue
        if table.dtype == "float32" and len(table.shape) == 2 and _keeps_columns(op):
            seen.add(table.index)
            yield FileKernel(
                layer_name(op.outputs[0].name, op.counted), op.name, table, dense_values(table)
            )


def _keeps_columns(op: Any) -> bool:
    """Whether an operator looks up rows, so that its output ends as the table does."""
    table, numbers, output = op.inputs[0], op.inputs[1], op.outputs[0]
    return len(output.shape) == len(numbers.shape) + 1 and output.shape[-1] == table.shape[-1]


def quantize_tables(content: bytes, bits: Mapping[str, int]) -> bytes:
    """Returns a file of float activations with integers in its tables.

    Args:
        content: The file.
        bits: Name of a table's tensor -> 8 or 4.
    """
    editor = FileEditor(content)
    scales: dict[int, int] = {}  # index of a table -> that of the scales of its rows
    for op in list(editor.graph.operators):
        index = int(op.inputs[0]) if editor.kind(op) == _CODE.GATHER else -1
        wanted = bits.get(editor.name(index)) if index >= 0 else None
        if wanted is None:
            continue
        if index not in scales:
            scales[index] = _quantize(editor, index, wanted)
        _dequantize_rows(editor, op, scales[index])
    return editor.packed()


def _quantize(editor: FileEditor, index: int, bits: int) -> int:
    """Rounds a table in place; returns the index of the scales of its rows, -1 for one scale."""
    table = editor.graph.tensors[index]
    values = np.asarray(editor.model.buffers[table.buffer].data, np.uint8).view(np.float32)
    values = values.reshape(table.shape)
    largest = _LARGEST[bits]
    ends = np.abs(values).max(axis=1, keepdims=True) if bits == 4 else np.abs(values).max()
    steps = np.where(ends > 0, ends, 1.0).astype(np.float32) / largest
    integers = np.rint(values / steps).astype(np.int8)
    one = 1.0 if bits == 4 else float(steps)
    editor.store(table, integers, bits)
    table.quantization = _scale(one)
    return editor.constant(f"{editor.name(index)}_scales", steps) if bits == 4 else -1


def _dequantize_rows(editor: FileEditor, op: Any, scales: int) -> None:
    """Puts what makes floats of integer rows behind a GATHER."""
    graph = editor.graph
    table, output = graph.tensors[op.inputs[0]], graph.tensors[op.outputs[0]]
    rows = editor.tensor_like(output, "_integers", table.type)
    graph.tensors[rows].quantization = table.quantization
    if table.type == _TYPE.INT4:
        op.opcodeIndex = editor.opcode(_CODE.GATHER, _INT4_GATHER)
    final, op.outputs = int(op.outputs[0]), [rows]
    if scales < 0:
        editor.insert_after(op, editor.operator(_CODE.DEQUANTIZE, 2, [rows], [final]))
        return
    floats = editor.tensor_like(output, "_steps", output.type)
    factors = editor.tensor_like(output, "_scales", output.type, last=1)
    lookup = editor.operator(_CODE.GATHER, 1, [scales, int(op.inputs[1])], [factors])
    lookup.builtinOptions, lookup.builtinOptionsType = op.builtinOptions, op.builtinOptionsType
    product = editor.operator(_CODE.MUL, 1, [floats, factors], [final])
    product.builtinOptions, product.builtinOptionsType = schema.MulOptionsT(), _OPTIONS.MulOptions
    dequantize = editor.operator(_CODE.DEQUANTIZE, 2, [rows], [floats])
    editor.insert_after(op, dequantize, lookup, product)


def mend_lookups(content: bytes) -> bytes:
    """Returns an integer file with two weights in a byte of tables of 4 bits, and small lookups.

    With 16-bit activations the converter rescales the entire table before each lookup: the rows
    that were found are rescaled instead.

    Args:
        content: The file; returned as it is where nothing changes.
    """
    editor = FileEditor(content)
    changed = False
    for op in list(editor.graph.operators):
        if editor.kind(op) == _CODE.GATHER:
            changed |= _rescale_later(editor, op)
    for op in list(editor.graph.operators):
        if editor.kind(op) == _CODE.GATHER:
            changed |= _pack(editor, op)
    return editor.packed() if changed else content


def _pack(editor: FileEditor, op: Any) -> bool:
    """Puts two weights of 4 bits into each byte of a table, and takes them apart behind the lookup.

    With h and l from -7 to 7 a byte is 17 h + l. A rescaling to steps of 17 rounds it to h, and the
    difference is l: each number is exact, in operators that all runtimes have. (With 16 it would
    not be: some kernels halve and round first, then divide and round.) The table is two tensors of
    one buffer, whose steps are those of h and those of l.
    """
    graph = editor.graph
    table = graph.tensors[op.inputs[0]]
    data = editor.model.buffers[table.buffer].data
    if table.type != _TYPE.INT8 or data is None or len(table.shape) != 2 or table.shape[1] % 2:
        return False
    values = np.asarray(data, np.uint8).view(np.int8).reshape(table.shape)
    if np.abs(values.astype(np.int32)).max(initial=0) > _LARGEST[4]:
        return False
    half, step = int(table.shape[1]) // 2, float(table.quantization.scale[0])
    editor.store(table, values[:, :half] * _BASE + values[:, half:], 8)
    table.shape, table.shapeSignature = np.array([table.shape[0], half], np.int32), None
    table.quantization = _scale(step / _BASE)
    low_table = editor.tensor_like(table, "_low", table.type)
    graph.tensors[low_table].buffer, graph.tensors[low_table].quantization = (
        table.buffer,
        _scale(step),
    )
    output = int(op.outputs[0])

    def half_of(suffix: str, scale: float) -> int:
        index = editor.tensor_like(graph.tensors[output], suffix, table.type, last=half)
        graph.tensors[index].quantization = _scale(scale)
        return index

    bytes_, high = half_of("_bytes", step / _BASE), half_of("_high", step)
    bytes_2, rounded, low = (
        half_of("_bytes_2", step),
        half_of("_rounded", step * _BASE),
        half_of("_low", step),
    )
    op.outputs = [bytes_]
    second = editor.operator_of(op.opcodeIndex, [low_table, int(op.inputs[1])], [bytes_2])
    second.builtinOptions, second.builtinOptionsType = op.builtinOptions, op.builtinOptionsType
    difference = editor.operator(_CODE.SUB, 2, [bytes_2, rounded], [low])
    difference.builtinOptions, difference.builtinOptionsType = (
        schema.SubOptionsT(),
        _OPTIONS.SubOptions,
    )
    joined = editor.operator(_CODE.CONCATENATION, 2, [high, low], [output])
    joined.builtinOptions = schema.ConcatenationOptionsT()
    joined.builtinOptions.axis = len(graph.tensors[output].shape) - 1
    joined.builtinOptionsType = _OPTIONS.ConcatenationOptions
    editor.insert_after(
        op,
        editor.operator(_CODE.QUANTIZE, 2, [bytes_], [high]),
        second,
        editor.operator(_CODE.QUANTIZE, 2, [bytes_2], [rounded]),
        difference,
        joined,
    )
    return True


def _rescale_later(editor: FileEditor, op: Any) -> bool:
    graph = editor.graph
    source = next((each for each in graph.operators if op.inputs[0] in each.outputs), None)
    if source is None or editor.kind(source) != _CODE.QUANTIZE:
        return False
    table = graph.tensors[source.inputs[0]]
    if editor.model.buffers[table.buffer].data is None:
        return False
    output = int(op.outputs[0])
    rows = editor.tensor_like(graph.tensors[output], "_integers", table.type)
    graph.tensors[rows].quantization = table.quantization
    rescaled = int(op.inputs[0])
    op.inputs, op.outputs = [int(source.inputs[0]), int(op.inputs[1])], [rows]
    op.opcodeIndex = editor.opcode(_CODE.GATHER, 2)
    code = source.opcodeIndex
    editor.insert_after(op, editor.operator_of(code, [rows], [output]))
    if not any(rescaled in each.inputs for each in graph.operators):
        graph.operators.remove(source)
    return True


def _scale(step: float) -> Any:
    record = schema.QuantizationParametersT()
    record.scale, record.zeroPoint = np.array([step], np.float32), np.zeros(1, np.int64)
    return record
