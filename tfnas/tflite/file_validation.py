"""Whether a `.tflite` file's structure can be trusted, before anything else reads it.

The schema's generated code follows every offset and number of a file as it is, and LiteRT's
interpreter some of them: a broken one ends in an obscure error, or ends the process. So it is
looked at first: all that can be read through the schema lies inside the file, numbers name
things that exist, a graph computes a tensor before it uses it and never runs itself, and
what a sparse constant leaves out adds up.
"""

from __future__ import annotations

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
_MOST_BYTES = 2**31  # of a tensor; the interpreter would ask for them before any work
_COUNTS = {  # options -> the field that says how many inputs or outputs there are
    "SplitOptions": ("NumSplits", "Outputs"),
    "SplitVOptions": ("NumSplits", "Outputs"),
    "UnpackOptions": ("Num", "Outputs"),
    "PackOptions": ("ValuesCount", "Inputs"),
}
_UNPACKING = (schema.BuiltinOperator.DEQUANTIZE, schema.BuiltinOperator.DENSIFY)


def _size(name: str) -> int | None:
    """Bytes of a number of an element type, None where it has no whole ones."""
    known = {"BOOL": "bool_"}.get(name, name.lower())
    return np.dtype(np.sctypeDict[known]).itemsize if known in np.sctypeDict else None


_TYPES = {v: _size(k) for k, v in vars(schema.TensorType).items() if not k.startswith("_")}


def check_file(content: bytes) -> None:
    """Raises ValueError unless the content is a `.tflite` file with a sound structure.

    Args:
        content: The file.

    Raises:
        ValueError: It is none, or something in it points nowhere; the message tells what.
    """
    if len(content) < _HEADER or content[4:8] != b"TFL3":
        raise ValueError(f"content must be a .tflite file, got {content[:8]!r}...")
    try:
        model = schema.Model.GetRootAs(content, 0)
        _check_tables(model, len(content))
        _check_model(model, len(content))
    except (struct.error, TypeError, OverflowError, UnicodeDecodeError) as error:
        raise ValueError(f"content must be a whole .tflite file, got a broken one: {error}") from (
            error
        )


# --- structure


class _Table(flatbuffers.table.Table):
    """A table whose texts and numbers must lie inside the file; other reads see to that."""

    def GetVectorAsNumpy(self, flags: Any, off: int) -> np.ndarray:
        try:
            return super().GetVectorAsNumpy(flags, off)
        except ValueError as error:
            raise ValueError(
                f"content must hold its numbers whole, got too few: {error}"
            ) from error

    def String(self, off: int) -> bytes:
        off += self.Get(UOffsetTFlags, off)
        start = off + UOffsetTFlags.bytewidth
        stop = start + self.Get(UOffsetTFlags, off)
        if self.Bytes[stop : stop + 1] != b"\0":
            raise ValueError(f"content must hold its texts whole, got one that ends at {stop}")
        text = bytes(self.Bytes[start:stop])
        text.decode()
        return text


def _check_tables(model: Any, size: int) -> None:
    """Reads all that the schema knows, so that whatever lies outside the file raises."""
    pending, seen = [model], 0
    while pending:
        item = pending.pop()
        seen += 1
        if seen > size:  # a table has at least 4 bytes: some are there over and over
            raise ValueError(f"content must have at most a table a byte, got more than {size:,}")
        item._tab = _Table(item._tab.Bytes, item._tab.Pos)
        pending += _parts(item)


def _parts(item: Any) -> Iterator[Any]:
    """The tables that a table holds; everything else in it is read on the way."""
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
    """Names of a table's fields: single values and arrays of numbers, lists, unions."""
    methods = {
        n: f
        for n, f in vars(getattr(schema, kind)).items()
        if inspect.isfunction(f) and n != "Init"
    }
    unions = [n for n in methods if f"{n}Type" in methods]
    one = {n for n, f in methods.items() if len(inspect.signature(f).parameters) == 1}
    lists = [n for n in methods if n not in one and f"{n}AsNumpy" not in one]
    return sorted(one.difference(unions)), lists, unions


def _union(item: Any, name: str) -> Iterator[Any]:
    value = getattr(item, name)()
    kind = _union_kind(type(item).__name__, name, getattr(item, f"{name}Type")())
    if value is not None and kind is not None:
        found = kind()
        found.Init(value.Bytes, value.Pos)
        yield found


@cache
def _union_kind(owner: str, name: str, number: int) -> Any:
    """The class of a union's value, None where it has none or the schema doesn't know it."""
    names = {
        "BuiltinOptions": schema.BuiltinOptions,
        "BuiltinOptions2": schema.BuiltinOptions2,
        "Details": schema.QuantizationDetails,
        "ArraySegments": schema.SparseIndexVector,
        "ArrayIndices": schema.SparseIndexVector,
    }
    if name not in names:
        raise ValueError(f"content has a union that is not known, {owner}.{name}")
    found = (k for k, v in vars(names[name]).items() if v == number and not k.startswith("_"))
    return getattr(schema, next(found, "NONE"), None)


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
            raise ValueError(f"content must hold its buffers, got one of {buffer.Size()} too long")
    for i in range(model.MetadataLength()):
        _check("buffer of metadata", model.Metadata(i).Buffer(), len(buffers))
    stored = [b.Size() if b.Offset() > 1 else b.DataLength() for b in buffers]
    codes = [model.OperatorCodes(i) for i in range(model.OperatorCodesLength())]
    kinds = [max(code.BuiltinCode(), code.DeprecatedBuiltinCode()) for code in codes]
    for graph in graphs:
        _check_graph(graph, kinds, stored)
    for i in range(model.SignatureDefsLength()):
        _check_signature(model.SignatureDefs(i), graphs)
    _check_calls(graphs)


def _check(what: str, index: Any, count: int, least: int = 0) -> np.ndarray:
    """Returns indices as an array, or raises ValueError that names one out of its range."""
    indices = np.atleast_1d(np.asarray(index, np.int64))
    wrong = indices[(indices < least) | (indices >= count)]
    if len(wrong):
        raise ValueError(f"content must hold every {what}, got number {wrong[0]} of {count}")
    return indices


def _check_graph(graph: Any, kinds: list[int], stored: list[int]) -> None:
    tensors = [graph.Tensors(i) for i in range(graph.TensorsLength())]
    count = len(tensors)
    for tensor in tensors:
        _check_tensor(tensor, stored)
    shapes = [tuple(_vector(tensor, "Shape")) for tensor in tensors]
    constant = np.array([stored[tensor.Buffer()] > 0 for tensor in tensors], bool)
    ready = constant | np.array([tensor.IsVariable() for tensor in tensors], bool)
    ready[_check("input of a graph", _vector(graph, "Inputs"), count)] = True
    for i in range(graph.OperatorsLength()):
        operator = graph.Operators(i)
        taken, made = _check_operator(operator, kinds, shapes)
        foreign = kinds[operator.OpcodeIndex()] == schema.BuiltinOperator.CUSTOM  # may take scratch
        if not (foreign or ready[taken].all()) or constant[made].any():
            raise ValueError(
                f"content must compute tensors before they are used, no constants, got operator {i}"
            )
        ready[made] = True
    if not ready[_check("output of a graph", _vector(graph, "Outputs"), count)].all():
        raise ValueError("content must compute the outputs of a graph, got one that is not")


def _check_operator(
    operator: Any, kinds: list[int], shapes: list[tuple[int, ...]]
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the tensors that an operator takes and makes."""
    what, count = "tensor of an operator", len(shapes)
    _check("kind of an operator", operator.OpcodeIndex(), len(kinds))
    _check(what, _vector(operator, "Intermediates"), count, -1)
    taken = _check(what, _vector(operator, "Inputs"), count, -1)
    made = _check(what, _vector(operator, "Outputs"), count)
    taken = taken[taken >= 0]  # an optional input may be absent
    if kinds[operator.OpcodeIndex()] in _UNPACKING:
        found = [shapes[t] for t in (*taken, *made)]
        if len(set(found)) > 1:
            raise ValueError(f"content must unpack a tensor in its shape, got {found}")
    for options in _union(operator, "BuiltinOptions"):
        field, side = _COUNTS.get(type(options).__name__, (None, ""))
        if field and getattr(options, field)() != getattr(operator, f"{side}Length")():
            raise ValueError(
                f"content must have as many {side.lower()} as {type(options).__name__} say, "
                f"{getattr(options, field)()}, got {getattr(operator, f'{side}Length')()}"
            )
    return taken, made


def _vector(item: Any, name: str) -> np.ndarray:
    """An array of numbers, empty where the file has none."""
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
    _check("buffer of a tensor", tensor.Buffer(), len(stored))
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
    """How many numbers a sparse constant stores, once its levels are found to fit its shape.

    :func:`tfnas.tflite.file_weights.dense_values` tells how the levels are read.
    """
    levels = [sparsity.DimMetadata(i) for i in range(sparsity.DimMetadataLength())]
    order, blocked = _vector(sparsity, "TraversalOrder"), _vector(sparsity, "BlockMap")
    if not len(levels) == len(order) == len(shape) + len(blocked):
        raise ValueError(f"content must have a sparse level a dimension, got {len(levels)}")
    if sorted(order) != list(range(len(levels))):
        raise ValueError(f"content must have each sparse level once, got {order.tolist()}")
    sizes = [*shape, *(levels[i].DenseSize() for i in range(len(shape), len(levels)))]
    for block, dimension in enumerate(_check("blocked dimension", blocked, len(shape))):
        inner = sizes[len(shape) + block]
        if inner < 1 or sizes[dimension] % inner:
            raise ValueError(f"content must have blocks that fit their dimension, got {inner}")
        sizes[dimension] //= inner
    nodes = 1
    for level, size in zip(levels, (sizes[d] for d in order), strict=True):
        nodes = _level_nodes(level, int(size), nodes)
    return nodes


def _level_nodes(level: Any, size: int, nodes: int) -> int:
    """How many nodes a level of a sparse constant has, below so many."""
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
    grows = len(segments) == nodes + 1 and segments[0] == 0 and (np.diff(segments) >= 0).all()
    if not grows or segments[-1] != len(indices):
        raise ValueError(f"content must have segments of {len(indices)} indices that add up")
    return len(_check("index of a sparse level", indices, size))


def _check_signature(signature: Any, graphs: list[Any]) -> None:
    _check("graph of a signature", signature.SubgraphIndex(), len(graphs))
    count = graphs[signature.SubgraphIndex()].TensorsLength()
    for name in ("Inputs", "Outputs"):
        for i in range(getattr(signature, f"{name}Length")()):
            entry = getattr(signature, name)(i)
            if entry.Name() is None:
                raise ValueError("content must name the tensors of a signature, got one without")
            _check("tensor of a signature", entry.TensorIndex(), count)


def _check_calls(graphs: list[Any]) -> None:
    """Bodies of loops and branches exist, and none runs itself."""
    calls = [_check("graph that is called", list(_called(g)), len(graphs)) for g in graphs]
    depth = np.zeros(len(graphs), int)
    for _ in graphs:  # the longest way down, one step longer each time, has an end
        deeper = np.array([1 + max((depth[c] for c in found), default=-1) for found in calls])
        if (deeper == depth).all():
            return
        depth = deeper
    raise ValueError("content must have graphs that end, got one that calls itself")


def _called(graph: Any) -> Iterator[int]:
    for i in range(graph.OperatorsLength()):
        operator = graph.Operators(i)
        for options in (*_union(operator, "BuiltinOptions"), *_union(operator, "BuiltinOptions2")):
            for name in _fields(type(options).__name__)[0]:
                if name.endswith(("SubgraphIndex", "Subgraph")):
                    yield getattr(options, name)()
