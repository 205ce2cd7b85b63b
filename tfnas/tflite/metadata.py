"""TFLite Metadata: what a `.tflite` file tells others about its inputs and outputs.

It is a flatbuffer of its own in a buffer of the file, under the name TFLITE_METADATA, and
the names of the classes are a text file in a zip archive behind the model, where task
libraries, Android Studio and `unzip` find them. An interpreter looks at neither.

Its tables are written by hand here, so that no package is needed for a handful of them. The
numbers below are places of fields in the schema, counted from 0; a union takes two, its type
first.
"""

from __future__ import annotations

import dataclasses
import io
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import flatbuffers  # type: ignore[import-untyped]
import flatbuffers.encode  # type: ignore[import-untyped]
import flatbuffers.table  # type: ignore[import-untyped]
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tfnas.tflite.file_validation import check_file
from tfnas.tflite.flatbuffer import TensorInfo, pack, read_graph, unpack

BUFFER_NAME = b"TFLITE_METADATA"
IDENTIFIER = b"M001"
LABELS_FILE = "labels.txt"
_PARSER_VERSION = "1.0.0"  # the schema's first version has every field that is written here

_MODEL = {"description": 1, "version": 2, "subgraphs": 3, "author": 4, "parser": 7}
_SUBGRAPH = {"inputs": 2, "outputs": 3}
_TENSOR = {"name": 0, "content": 3, "units": 4, "files": 6}
_CONTENT = {"kind": 0, "properties": 1}
_UNIT = {"kind": 0, "options": 1}
_NORMALIZATION = {"mean": 0, "std": 1}
_IMAGE = {"colors": 0}
_FILE = {"name": 0, "description": 1, "kind": 2}

_FEATURE_PROPERTIES, _IMAGE_PROPERTIES = 1, 2
_COLORS = {3: 1, 1: 2}  # channels -> RGB, GRAYSCALE
_NORMALIZATION_OPTIONS = 1
_TENSOR_AXIS_LABELS = 2
_MOST_LABELS = 2**24  # bytes of the text; a small archive can unpack to anything
_MOST_ATTACHED = 2**26  # bytes of labels and the like; more is no file of ours to unpack
# What reading a broken flatbuffer or a broken archive ends in.
_BROKEN = (
    *(struct.error, IndexError, KeyError, TypeError, ValueError, OverflowError),
    *(zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError),
)


@dataclasses.dataclass(frozen=True)
class Metadata:
    """What a file tells about itself.

    Args:
        description: What the model does.
        labels: Name of each class, in the order of the output's last dimension.
        mean: What is subtracted from the input, one number or one a channel.
        std: What the input is then divided by, one number or one a channel.
        author: Who made the model.
        version: The model's version.
    """

    description: str = ""
    labels: tuple[str, ...] = ()
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    author: str = ""
    version: str = ""


def make_metadata(
    description: str,
    labels: Sequence[str],
    mean: float | Sequence[float],
    std: float | Sequence[float],
    author: str,
    version: str,
) -> Metadata:
    """Returns the record of some arguments, checked.

    Raises:
        ValueError: One of them has the wrong form.
    """
    for name, text in (("description", description), ("author", author), ("version", version)):
        if not isinstance(text, str):
            raise ValueError(f"{name} must be a string, got {text!r}")
    if isinstance(labels, str) or not all(isinstance(label, str) for label in labels):
        raise ValueError(f"labels must be a sequence of strings, got {labels!r}")
    for label in labels:
        if label.splitlines() != [label]:  # they are the lines of a file
            raise ValueError(f"labels must be lines of text that are not empty, got {label!r}")
    means, stds = _numbers(mean, "mean"), _numbers(std, "std")
    if bool(means) != bool(stds):
        raise ValueError(f"mean and std must be given together, got {mean!r} and {std!r}")
    if any(number <= 0 for number in stds):
        raise ValueError(f"std must be above 0, got {std!r}")
    return Metadata(description, tuple(labels), means, stds, author, version)


def write_metadata(content: bytes, metadata: Metadata) -> bytes:
    """Returns a `.tflite` file with metadata, in place of those that it has.

    Args:
        content: The file.
        metadata: What it shall tell.

    Raises:
        ValueError: The content is no `.tflite` file, has buffers behind its flatbuffer, or
            its inputs and outputs don't fit the metadata.
    """
    graph = read_graph(content)
    _check_fit(metadata, graph.inputs, graph.outputs)
    model = unpack(content)
    _set_buffer(model, _packed(metadata, graph.inputs, graph.outputs))
    labels = "\n".join(metadata.labels) + "\n"
    return with_files(pack(model), {LABELS_FILE: labels.encode()} if metadata.labels else {})


def read_metadata(content: bytes) -> Metadata | None:
    """Returns what a `.tflite` file tells about itself, None where it has no metadata.

    Args:
        content: The file.

    Raises:
        ValueError: The content is no `.tflite` file, or its metadata are broken.
    """
    check_file(content)
    model = schema.Model.GetRootAs(content, 0)
    for i in range(model.MetadataLength()):
        entry = model.Metadata(i)
        if entry.Name() == BUFFER_NAME:
            data = bytes(model.Buffers(entry.Buffer()).DataAsNumpy())
            try:
                return _unpacked(data, content)
            except _BROKEN as error:
                raise ValueError(
                    f"metadata must be TFLite Metadata, got {data[:8]!r}...: {error}"
                ) from error
    return None


def _numbers(values: float | Sequence[float], name: str) -> tuple[float, ...]:
    try:
        found = np.atleast_1d(np.asarray(values, np.float64))
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} must be a number or one a channel, got {values!r}") from error
    if found.ndim != 1 or not np.isfinite(found).all():
        raise ValueError(f"{name} must be a finite number or one a channel, got {values!r}")
    return tuple(found.tolist())


def _check_fit(
    metadata: Metadata, inputs: Sequence[TensorInfo], outputs: Sequence[TensorInfo]
) -> None:
    if metadata.labels:
        if len(outputs) != 1:
            raise ValueError(f"labels goes with a file of one output, got {len(outputs)}")
        classes = outputs[0].shape[-1] if outputs[0].shape else 1
        if len(metadata.labels) != classes:
            raise ValueError(f"labels must be {classes} names, got {len(metadata.labels)}")
    for name, values in (("mean", metadata.mean), ("std", metadata.std)):
        if values and len(inputs) != 1:
            raise ValueError(f"{name} goes with a file of one input, got {len(inputs)}")
        channels = inputs[0].shape[-1] if inputs and inputs[0].shape else 1
        if values and len(values) not in (1, channels):
            raise ValueError(f"{name} must hold 1 number or {channels}, got {len(values)}")


def _set_buffer(model: Any, data: bytes) -> None:
    buffer = schema.BufferT(np.frombuffer(data, np.uint8))
    for entry in model.metadata or ():
        if entry.name == BUFFER_NAME:
            model.buffers[entry.buffer] = buffer
            return
    model.buffers.append(buffer)
    entry = schema.MetadataT()
    entry.name, entry.buffer = BUFFER_NAME.decode(), len(model.buffers) - 1
    model.metadata = [*(model.metadata or ()), entry]


def with_files(content: bytes, files: Mapping[str, bytes]) -> bytes:
    """Returns a `.tflite` file with others attached, as phones' libraries read them.

    Args:
        content: The file.
        files: Name -> content; none: the file stays as it is.
    """
    if not files:
        return content
    stream = io.BytesIO(content)
    with zipfile.ZipFile(stream, "a") as archive:
        for name, data in files.items():
            archive.writestr(zipfile.ZipInfo(name), data)  # has no clock: equal files are equal
    return stream.getvalue()


def attached_files(content: bytes) -> dict[str, bytes]:
    """Returns the files that are attached to a `.tflite` file with metadata, by name.

    Args:
        content: The file.
    """
    model = schema.Model.GetRootAs(content, 0)
    names = {model.Metadata(i).Name() for i in range(model.MetadataLength())}
    if BUFFER_NAME not in names or not zipfile.is_zipfile(io.BytesIO(content)):
        return {}
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            found = archive.infolist()
            if sum(info.file_size for info in found) > _MOST_ATTACHED:
                raise ValueError(f"more than {_MOST_ATTACHED:,} bytes")
            return {info.filename: archive.read(info) for info in found}
    except _BROKEN as error:
        raise ValueError(f"content must have sound files attached, got {error}") from error


# --- writing


def _packed(
    metadata: Metadata, inputs: Sequence[TensorInfo], outputs: Sequence[TensorInfo]
) -> bytes:
    builder = flatbuffers.Builder(1024)
    ins = [_pack_tensor(builder, tensor, _pack_units(builder, metadata)) for tensor in inputs]
    outs = [
        _pack_tensor(builder, tensor, files=_pack_files(builder, metadata.labels))
        for tensor in outputs
    ]
    lists = {
        _SUBGRAPH["inputs"]: _vector(builder, ins),
        _SUBGRAPH["outputs"]: _vector(builder, outs),
    }
    subgraph = _table(builder, offsets=lists)
    texts = {"description": metadata.description, "version": metadata.version}
    texts |= {"author": metadata.author, "parser": _PARSER_VERSION}
    offsets = {_MODEL[k]: builder.CreateString(text) for k, text in texts.items() if text}
    offsets[_MODEL["subgraphs"]] = _vector(builder, [subgraph])
    builder.Finish(_table(builder, offsets=offsets), file_identifier=IDENTIFIER)
    return bytes(builder.Output())


def _pack_tensor(
    builder: Any, tensor: TensorInfo, units: int | None = None, files: int | None = None
) -> int:
    offsets = {_TENSOR["name"]: builder.CreateString(tensor.name)}
    offsets[_TENSOR["content"]] = _pack_content(builder, tensor.shape)
    if units is not None:
        offsets[_TENSOR["units"]] = units
    if files is not None:
        offsets[_TENSOR["files"]] = files
    return _table(builder, offsets=offsets)


def _pack_content(builder: Any, shape: Sequence[int]) -> int:
    """An image where the shape is one's, else numbers of no known meaning."""
    image = len(shape) == 4 and shape[-1] in _COLORS
    colors = {_IMAGE["colors"]: _COLORS[shape[-1]]} if image else {}
    properties = _table(builder, bytes_=colors)
    kind = _IMAGE_PROPERTIES if image else _FEATURE_PROPERTIES
    return _table(
        builder, offsets={_CONTENT["properties"]: properties}, bytes_={_CONTENT["kind"]: kind}
    )


def _pack_units(builder: Any, metadata: Metadata) -> int | None:
    if not metadata.mean:
        return None
    options = _table(
        builder,
        offsets={
            _NORMALIZATION["mean"]: builder.CreateNumpyVector(np.array(metadata.mean, np.float32)),
            _NORMALIZATION["std"]: builder.CreateNumpyVector(np.array(metadata.std, np.float32)),
        },
    )
    unit = _table(
        builder,
        offsets={_UNIT["options"]: options},
        bytes_={_UNIT["kind"]: _NORMALIZATION_OPTIONS},
    )
    return _vector(builder, [unit])


def _pack_files(builder: Any, labels: Sequence[str]) -> int | None:
    if not labels:
        return None
    offsets = {
        _FILE["name"]: builder.CreateString(LABELS_FILE),
        _FILE["description"]: builder.CreateString("Names of the classes, one a line."),
    }
    file = _table(builder, offsets=offsets, bytes_={_FILE["kind"]: _TENSOR_AXIS_LABELS})
    return _vector(builder, [file])


def _table(
    builder: Any, offsets: dict[int, int] | None = None, bytes_: dict[int, int] | None = None
) -> int:
    offsets, bytes_ = offsets or {}, bytes_ or {}
    builder.StartObject(1 + max((*offsets, *bytes_), default=-1))
    for place, offset in offsets.items():
        builder.PrependUOffsetTRelativeSlot(place, offset, 0)
    for place, value in bytes_.items():
        builder.PrependUint8Slot(place, value, 0)
    return builder.EndObject()


def _vector(builder: Any, offsets: Sequence[int]) -> int:
    builder.StartVector(4, len(offsets), 4)
    for offset in reversed(offsets):  # a flatbuffer grows to the front
        builder.PrependUOffsetTRelative(offset)
    return builder.EndVector()


# --- reading


class _Table:
    """A table of a flatbuffer, read by the places of its fields."""

    def __init__(self, data: bytes, position: int) -> None:
        self._table = flatbuffers.table.Table(data, position)

    def _place(self, field: int) -> int:
        """Where a field lies in the flatbuffer, 0 where the table has none."""
        offset = self._table.Offset(4 + 2 * field)
        return self._table.Pos + offset if offset else 0

    def text(self, field: int) -> str:
        place = self._place(field)
        return self._table.String(place).decode() if place else ""

    def byte(self, field: int) -> int:
        place = self._place(field)
        return self._table.Bytes[place] if place else 0

    def table(self, field: int) -> _Table | None:
        place = self._place(field)
        return _Table(self._table.Bytes, self._table.Indirect(place)) if place else None

    def tables(self, field: int) -> Iterator[_Table]:
        offset = self._table.Offset(4 + 2 * field)
        for i in range(self._table.VectorLen(offset) if offset else 0):
            place = self._table.Vector(offset) + 4 * i
            yield _Table(self._table.Bytes, self._table.Indirect(place))

    def floats(self, field: int) -> tuple[float, ...]:
        offset = self._table.Offset(4 + 2 * field)
        if not offset:
            return ()
        start, count = self._table.Vector(offset), self._table.VectorLen(offset)
        return struct.unpack_from(f"<{count}f", self._table.Bytes, start)


def _unpacked(data: bytes, content: bytes) -> Metadata:
    if data[4:8] != IDENTIFIER:
        raise ValueError(f"metadata must have the identifier {IDENTIFIER!r}, got {data[4:8]!r}")
    root = _Table(data, flatbuffers.encode.Get(flatbuffers.packer.uoffset, data, 0))
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    labels: tuple[str, ...] = ()
    for subgraph in root.tables(_MODEL["subgraphs"]):
        for tensor in subgraph.tables(_SUBGRAPH["inputs"]):
            mean, std = _normalization(tensor) or (mean, std)
        for tensor in subgraph.tables(_SUBGRAPH["outputs"]):
            labels = labels or _labels(tensor, content)
    texts = (root.text(_MODEL[name]) for name in ("description", "author", "version"))
    description, author, version = texts
    return Metadata(description, labels, mean, std, author, version)


def _normalization(tensor: _Table) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    for unit in tensor.tables(_TENSOR["units"]):
        options = unit.table(_UNIT["options"])
        if unit.byte(_UNIT["kind"]) == _NORMALIZATION_OPTIONS and options is not None:
            return options.floats(_NORMALIZATION["mean"]), options.floats(_NORMALIZATION["std"])
    return None


def _labels(tensor: _Table, content: bytes) -> tuple[str, ...]:
    for file in tensor.tables(_TENSOR["files"]):
        if file.byte(_FILE["kind"]) == _TENSOR_AXIS_LABELS:
            with zipfile.ZipFile(io.BytesIO(content)) as archive:
                entry = archive.getinfo(file.text(_FILE["name"]))
                if entry.file_size > _MOST_LABELS:
                    raise ValueError(f"labels must be a short text, got {entry.file_size:,} bytes")
                return tuple(archive.read(entry).decode().splitlines())
    return ()
