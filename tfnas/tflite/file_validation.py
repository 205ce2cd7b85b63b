"""Validation of a `.tflite` file's structure, before anything else reads the file.

The schema's generated code follows every offset and index in a file without a check, and so does
LiteRT's interpreter with some of them: a corrupt file ends in an obscure error, or crashes the
process. So the file is validated first: everything that the schema can read lies inside the file,
indices refer to existing items, a graph computes each tensor before it is used and never calls
itself, and the sparse encoding of a constant is consistent.
"""

from __future__ import annotations

import collections
import hashlib
import inspect
import math
import struct
from collections.abc import Iterator
from functools import cache
from typing import Any

import flatbuffers.table  # type: ignore[import-untyped]
import numpy as np
from ai_edge_litert import schema_py_generated as schema
from flatbuffers.number_types import UOffsetTFlags  # type: ignore[import-untyped]

VERSION = 3  # of the schema, the only one that LiteRT reads
_HEADER = 16
_MOST_BYTES = 2**31  # of a tensor; the interpreter allocates them before anything else
_COUNTS = {  # options -> the field with the number of inputs or outputs
    "SplitOptions": ("NumSplits", "Outputs"),
    "SplitVOptions": ("NumSplits", "Outputs"),
    "UnpackOptions": ("Num", "Outputs"),
    "PackOptions": ("ValuesCount", "Inputs"),
}
_SAME_SHAPE = (schema.BuiltinOperator.DEQUANTIZE, schema.BuiltinOperator.DENSIFY)


def _size(name: str) -> int | None:
    """Bytes per element of a type; None for strings, packed types and the like."""
    known = {"BOOL": "bool_"}.get(name, name.lower())
    return np.dtype(np.sctypeDict[known]).itemsize if known in np.sctypeDict else None


_TYPES = {v: _size(k) for k, v in vars(schema.TensorType).items() if not k.startswith("_")}


_SOUND: collections.deque[bytes] = collections.deque(maxlen=64)  # hashes: one conversion asks often


def check_file(content: bytes) -> None:
    """Raises ValueError unless the content is a `.tflite` file with a valid structure.

    Args:
        content: The file's bytes.

    Raises:
        ValueError: It is not a `.tflite` file, or it is corrupt; the message names the item.
    """
    digest = hashlib.sha256(content).digest()
    if digest in _SOUND:
        return
    if len(content) < _HEADER or content[4:8] != b"TFL3":
        raise ValueError(f"content must be a .tflite file, got {content[:8]!r}...")
    try:
        model = schema.Model.GetRootAs(content, 0)
        _check_tables(model, len(content))
        _check_model(model, len(content))
    except (struct.error, TypeError, OverflowError, UnicodeDecodeError) as error:
        raise ValueError(
            f"content must be an intact .tflite file, got a corrupt one: {error}"
        ) from error
    _SOUND.append(digest)


# --- structure


class _Table(flatbuffers.table.Table):
    """A table that checks that its strings and vectors lie inside the file."""

    def GetVectorAsNumpy(self, flags: Any, off: int) -> np.ndarray:
        try:
            return super().GetVectorAsNumpy(flags, off)
        except ValueError as error:
            raise ValueError(
                f"content must hold complete vectors, got a truncated one: {error}"
            ) from error

    def String(self, off: int) -> bytes:
        off += self.Get(UOffsetTFlags, off)
        start = off + UOffsetTFlags.bytewidth
        stop = start + self.Get(UOffsetTFlags, off)
        if self.Bytes[stop : stop + 1] != b"\0":
            raise ValueError(f"content must hold complete strings, got one that ends at {stop}")
        text = bytes(self.Bytes[start:stop])
        text.decode()
        return text


def _check_tables(model: Any, size: int) -> None:
    """Reads everything in the schema, so that anything outside the file raises an error."""
    pending, seen = [model], 0
    while pending:
        item = pending.pop()
        seen += 1
        if seen > size:  # a table has at least 4 bytes: some are referenced again and again
            raise ValueError(f"content must have fewer tables than bytes, got more than {size:,}")
        item._tab = _Table(item._tab.Bytes, item._tab.Pos)
        pending += _children(item)


def _children(item: Any) -> Iterator[Any]:
    """Yields the tables that a table refers to, and reads all its other fields."""
    single, lists, unions = _fields(type(item).__name__)
    for name in single:
        value = getattr(item, name)()
        if hasattr(value, "_tab"):
            yield value
    for name in lists:
        for i in range(getattr(item, f"{name}Length")()):
            value = getattr(item, name)(i)
            if hasattr(value, "_tab"):
                yield value
    for name in unions:
        yield from _union(item, name)


@cache
def _fields(kind: str) -> tuple[list[str], list[str], list[str]]:
    """Names of a table's fields: single values and arrays, lists of tables, unions."""
    methods = {
        n: f
        for n, f in vars(getattr(schema, kind)).items()
        if inspect.isfunction(f) and n != "Init"
    }
    unions = [n for n in methods if f"{n}Type" in methods]
    single = {n for n, f in methods.items() if len(inspect.signature(f).parameters) == 1}
    lists = [n for n in methods if n not in single and f"{n}AsNumpy" not in single]
    return sorted(single.difference(unions)), lists, unions


def _union(item: Any, name: str) -> Iterator[Any]:
    value = getattr(item, name)()
    table_class = _union_class(type(item).__name__, name, getattr(item, f"{name}Type")())
    if value is not None and table_class is not None:
        table = table_class()
        table.Init(value.Bytes, value.Pos)
        yield table


@cache
def _union_class(owner: str, name: str, number: int) -> Any:
    """The class of a union's value; None for an empty union or an unknown type."""
    names = {
        "BuiltinOptions": schema.BuiltinOptions,
        "BuiltinOptions2": schema.BuiltinOptions2,
        "Details": schema.QuantizationDetails,
        "ArraySegments": schema.SparseIndexVector,
        "ArrayIndices": schema.SparseIndexVector,
    }
    if name not in names:
        raise ValueError(f"content must have known unions, got {owner}.{name}")
    members = (k for k, v in vars(names[name]).items() if v == number and not k.startswith("_"))
    return getattr(schema, next(members, "NONE"), None)


# --- indices


def _check_model(model: Any, size: int) -> None:
    if model.Version() != VERSION:
        raise ValueError(
            f"content must have version {VERSION} of the schema, got {model.Version()}"
        )
    graphs = [model.Subgraphs(i) for i in range(model.SubgraphsLength())]
    if not graphs:
        raise ValueError("content must hold a graph, got none")
    buffers = [model.Buffers(i) for i in range(model.BuffersLength())]
    for buffer in buffers:
        if buffer.Offset() > 1 and buffer.Offset() + buffer.Size() > size:
            raise ValueError(
                f"content must hold complete buffers, got one of {buffer.Size():,} bytes that "
                "exceeds the file"
            )
    for i in range(model.MetadataLength()):
        _check_index("buffer of metadata", model.Metadata(i).Buffer(), len(buffers))
    stored = [b.Size() if b.Offset() > 1 else b.DataLength() for b in buffers]
    codes = [model.OperatorCodes(i) for i in range(model.OperatorCodesLength())]
    kinds = [max(code.BuiltinCode(), code.DeprecatedBuiltinCode()) for code in codes]
    for graph in graphs:
        _check_graph(graph, kinds, stored)
    for i in range(model.SignatureDefsLength()):
        _check_signature(model.SignatureDefs(i), graphs)
    _check_calls(graphs)


def _check_index(what: str, index: Any, count: int, least: int = 0) -> np.ndarray:
    """Returns indices as an array; raises ValueError if one is not from `least` to count - 1."""
    indices = np.atleast_1d(np.asarray(index, np.int64))
    wrong = indices[(indices < least) | (indices >= count)]
    if len(wrong):
        raise ValueError(f"content must hold every {what}, got index {wrong[0]} of {count}")
    return indices


def _check_graph(graph: Any, kinds: list[int], stored: list[int]) -> None:
    tensors = [graph.Tensors(i) for i in range(graph.TensorsLength())]
    count = len(tensors)
    for tensor in tensors:
        _check_tensor(tensor, stored)
    shapes = [tuple(_vector(tensor, "Shape")) for tensor in tensors]
    constant = np.array([stored[tensor.Buffer()] > 0 for tensor in tensors], bool)
    ready = constant | np.array([tensor.IsVariable() for tensor in tensors], bool)
    ready |= np.array([0 in shape for shape in shapes], bool)  # the shape of a scalar holds nothing
    ready[_check_index("input of a graph", _vector(graph, "Inputs"), count)] = True
    for i in range(graph.OperatorsLength()):
        operator = graph.Operators(i)
        inputs, outputs = _check_operator(operator, kinds, shapes)
        # A custom operator may have scratch tensors among its inputs.
        custom = kinds[operator.OpcodeIndex()] == schema.BuiltinOperator.CUSTOM
        if not (custom or ready[inputs].all()) or constant[outputs].any():
            raise ValueError(
                "content must compute tensors before their use and not overwrite constants, got "
                f"operator {i}"
            )
        ready[outputs] = True
    if not ready[_check_index("output of a graph", _vector(graph, "Outputs"), count)].all():
        raise ValueError("content must compute the outputs of a graph, got one that is not")


def _check_operator(
    operator: Any, kinds: list[int], shapes: list[tuple[int, ...]]
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the indices of an operator's input and output tensors."""
    what, count = "tensor of an operator", len(shapes)
    _check_index("kind of an operator", operator.OpcodeIndex(), len(kinds))
    _check_index(what, _vector(operator, "Intermediates"), count, -1)
    inputs = _check_index(what, _vector(operator, "Inputs"), count, -1)
    outputs = _check_index(what, _vector(operator, "Outputs"), count)
    inputs = inputs[inputs >= 0]  # an optional input may be absent
    if kinds[operator.OpcodeIndex()] in _SAME_SHAPE:
        different = [shapes[t] for t in (*inputs, *outputs)]
        if len(set(different)) > 1:
            raise ValueError(f"content must unpack a tensor in its own shape, got {different}")
    for options in _union(operator, "BuiltinOptions"):
        field, side = _COUNTS.get(type(options).__name__, (None, ""))
        if field and getattr(options, field)() != getattr(operator, f"{side}Length")():
            raise ValueError(
                f"content must have as many {side.lower()} as {type(options).__name__} say, "
                f"{getattr(options, field)()}, got {getattr(operator, f'{side}Length')()}"
            )
    return inputs, outputs


def _vector(item: Any, name: str) -> np.ndarray:
    """A field that is an array of numbers; an empty array if the field is absent."""
    return getattr(item, f"{name}AsNumpy")() if getattr(item, f"{name}Length")() else np.zeros(0)


def _check_tensor(tensor: Any, stored: list[int]) -> None:
    shape = _vector(tensor, "Shape")
    if tensor.Type() not in _TYPES or (shape < -1).any():
        raise ValueError(
            f"content must have tensors of known types and sizes, got type {tensor.Type()} and "
            f"shape {shape.tolist()}"
        )
    signature = _vector(tensor, "ShapeSignature")
    if (signature < -1).any() or len(signature) not in (0, len(shape)):
        raise ValueError(f"content must have open sizes of -1, got {signature.tolist()}")
    _check_index("buffer of a tensor", tensor.Buffer(), len(stored))
    bytes_ = abs(math.prod(shape.tolist())) * (_TYPES[tensor.Type()] or 1)
    if bytes_ > _MOST_BYTES:
        raise ValueError(f"content must have tensors of at most 2 GiB, got {shape.tolist()}")
    if tensor.Sparsity() is not None:
        numbers = _sparse_numbers(tensor.Sparsity(), shape.tolist())
        size = _TYPES[tensor.Type()]
        if size is None or stored[tensor.Buffer()] != numbers * size:
            raise ValueError(
                f"content must hold {numbers:,} numbers of a sparse constant {tensor.Name()!r}, "
                f"got {stored[tensor.Buffer()]:,} bytes"
            )


def _sparse_numbers(sparsity: Any, shape: list[int]) -> int:
    """Checks a sparse constant's levels and returns how many numbers it stores.

    The levels are described in :mod:`tfnas.tflite.file_weights`.
    """
    levels = [sparsity.DimMetadata(i) for i in range(sparsity.DimMetadataLength())]
    order, blocked = _vector(sparsity, "TraversalOrder"), _vector(sparsity, "BlockMap")
    if not len(levels) == len(order) == len(shape) + len(blocked):
        raise ValueError(
            f"content must have one sparse level per dimension and block, got {len(levels)}"
        )
    if sorted(order) != list(range(len(levels))):
        raise ValueError(f"content must have each sparse level once, got {order.tolist()}")
    sizes = [*shape, *(levels[i].DenseSize() for i in range(len(shape), len(levels)))]
    for block, dimension in enumerate(_check_index("blocked dimension", blocked, len(shape))):
        inner = sizes[len(shape) + block]
        if inner < 1 or sizes[dimension] % inner:
            raise ValueError(f"content must have blocks that fit their dimension, got {inner}")
        sizes[dimension] //= inner
    nodes = 1
    for level, size in zip(levels, (sizes[d] for d in order), strict=True):
        nodes = _level_nodes(level, int(size), nodes)
    return nodes


def _level_nodes(level: Any, size: int, nodes: int) -> int:
    """Returns how many nodes a level of a sparse constant has below `nodes` parent nodes."""
    if level.Format() == schema.DimensionType.DENSE:
        if level.DenseSize() != size:
            raise ValueError(
                f"content must have {size} indices at a dense level, got {level.DenseSize()}"
            )
        return nodes * size
    parts = [next(_union(level, name), None) for name in ("ArraySegments", "ArrayIndices")]
    if None in parts:
        raise ValueError("content must hold the indices of a sparse level, got none")
    segments, indices = (_vector(part, "Values").astype(np.int64) for part in parts)
    ascending = len(segments) == nodes + 1 and segments[0] == 0 and (np.diff(segments) >= 0).all()
    if not ascending or segments[-1] != len(indices):
        raise ValueError(f"content must have segments that add up to {len(indices)} indices")
    return len(_check_index("index of a sparse level", indices, size))


def _check_signature(signature: Any, graphs: list[Any]) -> None:
    _check_index("graph of a signature", signature.SubgraphIndex(), len(graphs))
    count = graphs[signature.SubgraphIndex()].TensorsLength()
    for name in ("Inputs", "Outputs"):
        for i in range(getattr(signature, f"{name}Length")()):
            tensor = getattr(signature, name)(i)
            if tensor.Name() is None:
                raise ValueError("content must name the tensors of a signature, got one without")
            _check_index("tensor of a signature", tensor.TensorIndex(), count)


def _check_calls(graphs: list[Any]) -> None:
    """Checks that the bodies of loops and branches exist, and that no graph calls itself."""
    calls = [_check_index("called graph", list(_called_graphs(g)), len(graphs)) for g in graphs]
    depth = np.zeros(len(graphs), int)
    for _ in graphs:  # without recursion the depths stop growing after at most this many steps
        deeper = np.array([1 + max((depth[c] for c in called), default=-1) for called in calls])
        if (deeper == depth).all():
            return
        depth = deeper
    raise ValueError("content must have graphs that end, got one that calls itself")


def _called_graphs(graph: Any) -> Iterator[int]:
    for i in range(graph.OperatorsLength()):
        operator = graph.Operators(i)
        for options in (*_union(operator, "BuiltinOptions"), *_union(operator, "BuiltinOptions2")):
            for name in _fields(type(options).__name__)[0]:
                if name.endswith(("SubgraphIndex", "Subgraph")):
                    yield getattr(options, name)()
