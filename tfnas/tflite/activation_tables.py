"""Functions of single 8-bit numbers as tables of their 256 values.

The converter writes a function that has no integer operator, such as softplus, as DEQUANTIZE, some
operators of floats, and QUANTIZE. A model that casts its numbers to float64 there and back wants a
table instead (:mod:`tfnas.quantization.fake_quant_placement`): the operators are run once for all
256 integers, and the file gets CAST, ADD and GATHER, which LiteRT and TFLite Micro have for
integers.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable
from typing import Any

import numpy as np
from ai_edge_litert import interpreter as litert
from ai_edge_litert import schema_py_generated as schema

from tfnas.tflite.flatbuffer import kind_of, pack

_OPERATOR, _TYPE = schema.BuiltinOperator, schema.TensorType
# Operators that compute each number of their output from numbers at the same place.
_POINTWISE = {
    getattr(_OPERATOR, name)
    for name in [
        "ABS",
        "ADD",
        "CAST",
        "CEIL",
        "COS",
        "DIV",
        "ELU",
        "EQUAL",
        "EXP",
        "FLOOR",
        "GELU",
        "GREATER",
        "GREATER_EQUAL",
        "HARD_SWISH",
        "LEAKY_RELU",
        "LESS",
        "LESS_EQUAL",
        "LOG",
        "LOGICAL_AND",
        "LOGICAL_NOT",
        "LOGICAL_OR",
        "LOGISTIC",
        "MAXIMUM",
        "MINIMUM",
        "MUL",
        "NEG",
        "NOT_EQUAL",
        "POW",
        "RELU",
        "RELU6",
        "RELU_N1_TO_1",
        "ROUND",
        "RSQRT",
        "SELECT",
        "SELECT_V2",
        "SIGN",
        "SIN",
        "SQRT",
        "SQUARE",
        "SQUARED_DIFFERENCE",
        "SUB",
        "TANH",
        "ZEROS_LIKE",
    ]
}
_ALL = np.arange(-128, 128, dtype=np.int8)


def write_tables(model: Any) -> bool:
    """Replaces functions of single 8-bit numbers by tables, in place.

    Args:
        model: The objects of a file, of :func:`tfnas.tflite.flatbuffer.unpack`.

    Returns:
        Whether any was replaced; what nothing reads any more is still there.
    """
    changed = False
    for graph in model.subgraphs:
        makers = {index: op for op in graph.operators for index in op.outputs}
        replaced: dict[int, list[Any]] = {}
        for op in graph.operators:
            chain = _chain_before(model, graph, op, makers)
            if chain:
                replaced[id(op)] = _operators(model, graph, chain)
        graph.operators = [new for op in graph.operators for new in replaced.get(id(op), [op])]
        changed |= bool(replaced)
    return changed


def _chain_before(model: Any, graph: Any, op: Any, makers: dict[int, Any]) -> list[Any]:
    """The operators from one DEQUANTIZE to a QUANTIZE, in order; empty where it is no function."""
    if kind_of(model, op) != _OPERATOR.QUANTIZE or graph.tensors[op.outputs[0]].type != _TYPE.INT8:
        return []
    found: dict[int, Any] = {}
    open_tensors, sources = [op.inputs[0]], set()
    while open_tensors:
        index = open_tensors.pop()
        maker = makers.get(index)
        if maker is None:
            if not _is_number(model, graph.tensors[index]):
                return []
            continue
        if id(maker) in found:
            continue
        found[id(maker)] = maker
        if kind_of(model, maker) == _OPERATOR.DEQUANTIZE:
            sources.add(maker.inputs[0])
        elif kind_of(model, maker) in _POINTWISE:
            open_tensors += [i for i in maker.inputs if i >= 0]
        else:
            return []
    if len(sources) != 1 or graph.tensors[next(iter(sources))].type != _TYPE.INT8:
        return []
    functions = [m for m in found.values() if kind_of(model, m) not in _NO_FUNCTIONS]
    marked = any(graph.tensors[m.outputs[0]].type == _TYPE.FLOAT64 for m in found.values())
    if not (functions and marked):
        return []
    ordered = [each for each in graph.operators if id(each) in found]
    return [*ordered, op]


_NO_FUNCTIONS = (_OPERATOR.DEQUANTIZE, _OPERATOR.CAST)


def _is_number(model: Any, tensor: Any) -> bool:
    """Whether a tensor is a constant of one number."""
    data = model.buffers[tensor.buffer].data
    shape = () if tensor.shape is None else tuple(tensor.shape)
    return data is not None and math.prod(shape) == 1


def _operators(model: Any, graph: Any, chain: list[Any]) -> list[Any]:
    """The integer operators that compute what a chain does."""
    source = next(op.inputs[0] for op in chain if kind_of(model, op) == _OPERATOR.DEQUANTIZE)
    target = chain[-1].outputs[0]
    values = _values(model, graph, chain, source, target)
    shape = graph.tensors[source]
    wide = _tensor(graph, "as_int32", _TYPE.INT32, like=shape)
    index = _tensor(graph, "index", _TYPE.INT32, like=shape)
    offset = _tensor(graph, "first_index", _TYPE.INT32, [], _buffer(model, np.int32(128)))
    table = _tensor(graph, "table", _TYPE.INT8, [256], _buffer(model, values))
    graph.tensors[table].quantization = copy.deepcopy(graph.tensors[target].quantization)
    cast = schema.CastOptionsT()
    cast.inDataType, cast.outDataType = _TYPE.INT8, _TYPE.INT32
    options = schema.BuiltinOptions
    return [
        _operator(model, _OPERATOR.CAST, [source], wide, options.CastOptions, cast),
        _operator(
            model, _OPERATOR.ADD, [wide, offset], index, options.AddOptions, schema.AddOptionsT()
        ),
        _operator(
            model,
            _OPERATOR.GATHER,
            [table, index],
            target,
            options.GatherOptions,
            schema.GatherOptionsT(),
        ),
    ]


def _values(model: Any, graph: Any, chain: list[Any], source: int, target: int) -> np.ndarray:
    """The output of a chain for each 8-bit integer, found by running it alone."""
    part = copy.copy(model)
    body = copy.copy(graph)
    used = sorted({index for op in chain for index in (*op.inputs, *op.outputs) if index >= 0})
    places = {index: place for place, index in enumerate(used)}
    buffers = [schema.BufferT()]
    body.tensors = []
    for index in used:
        tensor = copy.copy(graph.tensors[index])
        constant = model.buffers[tensor.buffer].data is not None
        if constant:
            buffers.append(model.buffers[tensor.buffer])
        else:  # all numbers in one row; a constant of one number fits any shape
            tensor.shape = np.array([len(_ALL)], np.int32)
            tensor.shapeSignature = None
        tensor.buffer = len(buffers) - 1 if constant else 0
        body.tensors.append(tensor)
    body.operators = [_moved(op, places) for op in chain]
    body.inputs, body.outputs = [places[source]], [places[target]]
    part.subgraphs, part.buffers = [body], buffers
    part.signatureDefs, part.metadata, part.metadataBuffer = [], [], None
    resolver = litert.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    runner = litert.Interpreter(
        model_content=pack(part), experimental_op_resolver_type=resolver, num_threads=1
    )
    runner.allocate_tensors()
    runner.set_tensor(runner.get_input_details()[0]["index"], _ALL)
    runner.invoke()
    return np.array(runner.get_tensor(runner.get_output_details()[0]["index"]), np.int8)


def _moved(op: Any, places: dict[int, int]) -> Any:
    moved = copy.copy(op)
    moved.inputs = [places.get(index, -1) for index in op.inputs]
    moved.outputs = [places[index] for index in op.outputs]
    return moved


def _operator(
    model: Any,
    kind: int,
    inputs: list[int],
    output: int,
    options_type: int = 0,
    options: Any = None,
) -> Any:
    """A new operator."""
    op = schema.OperatorT()
    op.opcodeIndex = _code(model, kind)
    op.inputs, op.outputs = inputs, [output]
    op.builtinOptionsType, op.builtinOptions = options_type, options
    return op


def _code(model: Any, kind: int) -> int:
    """The index of an operator's kind, which is added where the file has none yet."""
    version = _VERSIONS.get(kind, 1)
    for index, code in enumerate(model.operatorCodes):
        if max(code.builtinCode, code.deprecatedBuiltinCode) == kind and code.version >= version:
            return index
    code = schema.OperatorCodeT()
    code.builtinCode, code.version = kind, version
    code.deprecatedBuiltinCode = min(kind, 127)
    model.operatorCodes.append(code)
    return len(model.operatorCodes) - 1


_VERSIONS = {_OPERATOR.GATHER: 2}


def _tensor(
    graph: Any,
    name: str,
    dtype: int,
    shape: Iterable[int] = (),
    buffer: int = 0,
    like: Any = None,
) -> int:
    """Adds a tensor and returns its index."""
    tensor = schema.TensorT()
    tensor.name = f"{name}_{len(graph.tensors)}".encode()
    tensor.type, tensor.buffer = dtype, buffer
    tensor.shape = np.array(list(shape), np.int32) if like is None else like.shape
    tensor.shapeSignature = None if like is None else like.shapeSignature
    graph.tensors.append(tensor)
    return len(graph.tensors) - 1


def _buffer(model: Any, values: Any) -> int:
    buffer = schema.BufferT()
    buffer.data = np.atleast_1d(values).view(np.uint8)
    model.buffers.append(buffer)
    return len(model.buffers) - 1
