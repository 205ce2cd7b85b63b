"""TFLite Metadata: a description of the model, its inputs and its outputs inside the file.

It is a flatbuffer of its own in a buffer of the file, named TFLITE_METADATA. The names of the
classes are a text file in a zip archive that is appended to the model, where task libraries,
Android Studio and `unzip` find them. Interpreters ignore both.

The few tables are written and read by field numbers (:mod:`tfnas.tflite.flatbuffer_tables`), which
avoids a dependency. The numbers below are the indices of fields in the schema, counted from 0; a
union takes two, its type first.
"""

from __future__ import annotations

import dataclasses
import io
import struct
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import flatbuffers  # type: ignore[import-untyped]
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tfnas.runtime.argument_rules import near
from tfnas.tflite.file_validation import check_file
from tfnas.tflite.flatbuffer import TensorInfo, read_graph, unpack
from tfnas.tflite.flatbuffer_tables import FlatbufferTable, pack_table, pack_vector
from tfnas.tflite.sharing_builder import pack_as

BUFFER_NAME = b"TFLITE_METADATA"
IDENTIFIER = b"M001"
LABELS_FILE = "labels.txt"
_PARSER_VERSION = "1.0.0"  # the schema's first version has all fields that are written here

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
_MOST_LABELS = 2**24  # bytes of text: a small archive may unpack to any size
_MOST_ATTACHED = 2**26  # bytes of all attached files, for the same reason
Labels = Sequence[str] | Mapping[str, Sequence[str]]
# Errors that a corrupt flatbuffer or archive can cause.
_CORRUPT = (
    struct.error,
    IndexError,
    KeyError,
    TypeError,
    ValueError,
    OverflowError,
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    NotImplementedError,
    RuntimeError,
)


@dataclasses.dataclass(frozen=True)
class Metadata:
    """The content of a file's TFLite Metadata.

    Args:
        description: What the model does.
        labels: Name of each class, in the order of the output's last dimension; of a file of
            several outputs a dictionary from output to such names, of outputs that have some.
        mean: Mean to subtract from inputs, one number or one for each channel.
        std: Standard deviation to then divide inputs by, likewise.
        author: Author of the model.
        version: The model's version.
    """

    description: str = ""
    labels: tuple[str, ...] | Mapping[str, tuple[str, ...]] = ()
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    author: str = ""
    version: str = ""


def make_metadata(
    description: str,
    labels: Labels,
    mean: float | Sequence[float],
    std: float | Sequence[float],
    author: str,
    version: str,
) -> Metadata:
    """Checks the arguments of :meth:`tfnas.Artifact.with_metadata` and returns a record of them.

    Args:
        description: What the model does.
        labels: Name of each class, or a dictionary of these by output.
        mean: Mean of the inputs, one number or one for each channel.
        std: Standard deviation of the inputs, likewise.
        author: Author of the model.
        version: The model's version.

    Raises:
        ValueError: An argument is invalid.
    """
    for name, text in (("description", description), ("author", author), ("version", version)):
        if not isinstance(text, str):
            raise ValueError(f"{name} must be a string, got {text!r}")
    if isinstance(labels, Mapping):
        checked: Any = {str(output): _checked_labels(names) for output, names in labels.items()}
    else:
        checked = _checked_labels(labels)
    means, stds = _numbers(mean, "mean"), _numbers(std, "std")
    if bool(means) != bool(stds):
        raise ValueError(f"mean and std must be given together, got {mean!r} and {std!r}")
    if any(number <= 0 for number in stds):
        raise ValueError(f"std must be above 0, got {std!r}")
    return Metadata(description, checked, means, stds, author, version)


def _checked_labels(labels: Sequence[str]) -> tuple[str, ...]:
    if isinstance(labels, str) or not all(isinstance(label, str) for label in labels):
        raise ValueError(f"labels must be a sequence of strings, got {labels!r}")
    for label in labels:
        if label.splitlines() != [label]:  # labels become the lines of a file
            raise ValueError(f"labels must be lines of text that are not empty, got {label!r}")
    return tuple(labels)


def write_metadata(content: bytes, metadata: Metadata) -> bytes:
    """Returns a `.tflite` file with metadata, which replaces metadata that it has.

    Args:
        content: The file's bytes.
        metadata: The metadata.

    Raises:
        ValueError: The content is not a valid `.tflite` file, has buffers after its flatbuffer,
            or its inputs and outputs don't fit the metadata.
    """
    graph = read_graph(content)
    model = unpack(content)
    outputs = _named_outputs(model, graph.outputs)
    labels = _labels_by_output(metadata.labels, outputs)
    _check_fit(metadata, labels, graph.inputs, outputs)
    set_entry(model, BUFFER_NAME, _serialize(metadata, labels, graph.inputs, graph.outputs))
    files = {_labels_file(i, outputs): each for i, each in enumerate(labels) if each}
    texts = {name: "\n".join(each) + "\n" for name, each in files.items()}
    return with_files(
        pack_as(content, model), {name: text.encode() for name, text in texts.items()}
    )


def move_metadata(content: bytes, source: bytes) -> bytes:
    """Returns a file with the metadata of another one, whose outputs may have other names.

    Args:
        content: The file's bytes.
        source: A file of as many outputs, in the same order, with or without metadata.

    Raises:
        ValueError: A content is not a valid `.tflite` file, or the metadata do not fit.
    """
    metadata = read_metadata(source)
    if metadata is None:
        return content
    if isinstance(metadata.labels, Mapping):
        names = [
            [output.name for output in _named_outputs(unpack(each), read_graph(each).outputs)]
            for each in (source, content)
        ]
        renamed = dict(zip(*names, strict=True))
        labels = {renamed.get(output, output): each for output, each in metadata.labels.items()}
        metadata = dataclasses.replace(metadata, labels=labels)
    return write_metadata(content, metadata)


def _named_outputs(model: Any, outputs: Sequence[TensorInfo]) -> list[TensorInfo]:
    """The outputs, with the names that the file's signature has for them."""
    signatures = [each for each in model.signatureDefs or () if each.subgraphIndex == 0]
    maps = [each for signature in signatures[:1] for each in signature.outputs or ()]
    names = {each.tensorIndex: (each.name or b"").decode() for each in maps}
    return [dataclasses.replace(t, name=names.get(t.index) or t.name) for t in outputs]


def _labels_by_output(
    labels: tuple[str, ...] | Mapping[str, tuple[str, ...]], outputs: Sequence[TensorInfo]
) -> list[tuple[str, ...]]:
    """The labels of each output, in the file's order; empty where it has none.

    Raises:
        ValueError: An output is unknown, or there are several and it is not said of which.
    """
    if isinstance(labels, Mapping):
        known = [output.name for output in outputs]
        for name in labels:
            if name not in known:
                raise ValueError(
                    f"labels must be by output of {', '.join(known)}, got {name!r}"
                    f"{near(name, known)}"
                )
        return [tuple(labels.get(name, ())) for name in known]
    if labels and len(outputs) != 1:
        raise ValueError(
            f"labels must be a dictionary by output for a file of {len(outputs)} outputs "
            f"({', '.join(output.name for output in outputs)}), got {len(labels)} names"
        )
    return [labels for _ in outputs]


def _labels_file(number: int, outputs: Sequence[TensorInfo]) -> str:
    return LABELS_FILE if len(outputs) == 1 else f"labels_{number}.txt"


def read_metadata(content: bytes) -> Metadata | None:
    """Returns the TFLite Metadata of a `.tflite` file, None if it has none.

    Args:
        content: The file's bytes.

    Raises:
        ValueError: The content is not a valid `.tflite` file, or its metadata is corrupt.
    """
    data = read_entry(content, BUFFER_NAME)
    if data is None:
        return None
    try:
        return _parse(data, content)
    except _CORRUPT as error:
        raise ValueError(
            f"metadata must be TFLite Metadata, got {data[:8]!r}...: {error}"
        ) from error


def read_entry(content: bytes, name: bytes) -> bytes | None:
    """Returns an entry of the metadata of a `.tflite` file, None if it has none of that name.

    Args:
        content: The file's bytes.
        name: Name of the entry.

    Raises:
        ValueError: The content is not a valid `.tflite` file.
    """
    check_file(content)
    model = schema.Model.GetRootAs(content, 0)
    for i in range(model.MetadataLength()):
        item = model.Metadata(i)
        if item.Name() == name:
            data = model.Buffers(item.Buffer()).DataAsNumpy()
            return b"" if isinstance(data, int) else bytes(data)  # 0 where a buffer is empty
    return None


def _numbers(values: float | Sequence[float], name: str) -> tuple[float, ...]:
    try:
        array = np.atleast_1d(np.asarray(values, np.float64))
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} must be a number or one per channel, got {values!r}") from error
    if array.ndim != 1 or not np.isfinite(array).all():
        raise ValueError(f"{name} must be a finite number or one per channel, got {values!r}")
    return tuple(array.tolist())


def _check_fit(
    metadata: Metadata,
    labels: Sequence[tuple[str, ...]],
    inputs: Sequence[TensorInfo],
    outputs: Sequence[TensorInfo],
) -> None:
    for output, names in zip(outputs, labels, strict=True):
        classes = output.shape[-1] if output.shape else 1
        if names and len(names) != classes:
            where = "" if len(outputs) == 1 else f" for output {output.name!r}"
            raise ValueError(f"labels must be {classes} names{where}, got {len(names)}")
    for name, values in (("mean", metadata.mean), ("std", metadata.std)):
        if values and len(inputs) != 1:
            raise ValueError(f"{name} goes with a file of one input, got {len(inputs)}")
        channels = inputs[0].shape[-1] if inputs and inputs[0].shape else 1
        if values and len(values) not in (1, channels):
            raise ValueError(f"{name} must hold 1 number or {channels}, got {len(values)}")


def set_entry(model: Any, name: bytes, data: bytes) -> None:
    """Puts an entry into the metadata of an unpacked file; it replaces one of that name.

    Args:
        model: The file; changed in place.
        name: Name of the entry.
        data: Its content.
    """
    buffer = schema.BufferT(np.frombuffer(data, np.uint8))
    for item in model.metadata or ():
        if item.name == name:
            model.buffers[item.buffer] = buffer
            return
    model.buffers.append(buffer)
    item = schema.MetadataT()
    item.name, item.buffer = name.decode(), len(model.buffers) - 1
    model.metadata = [*(model.metadata or ()), item]


def with_files(content: bytes, files: Mapping[str, bytes]) -> bytes:
    """Returns a `.tflite` file with other files attached, where Android and iOS libraries look.

    Args:
        content: The file's bytes.
        files: Name -> content of each attached file. Empty: `content` is returned.
    """
    if not files:
        return content
    stream = io.BytesIO(content)
    with zipfile.ZipFile(stream, "a") as archive:
        for name, data in files.items():
            archive.writestr(zipfile.ZipInfo(name), data)  # without a time stamp: reproducible
    return stream.getvalue()


def attached_files(content: bytes) -> dict[str, bytes]:
    """Returns the files that are attached to a `.tflite` file with metadata, by name.

    Args:
        content: The file's bytes.

    Raises:
        ValueError: The archive is corrupt, or unpacks to more than 64 MiB.
    """
    model = schema.Model.GetRootAs(content, 0)
    names = {model.Metadata(i).Name() for i in range(model.MetadataLength())}
    if BUFFER_NAME not in names or not zipfile.is_zipfile(io.BytesIO(content)):
        return {}
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            files = archive.infolist()
            if sum(info.file_size for info in files) > _MOST_ATTACHED:
                raise ValueError(f"more than {_MOST_ATTACHED:,} bytes")
            return {info.filename: archive.read(info) for info in files}
    except _CORRUPT as error:
        raise ValueError(f"content must have readable files attached, got {error}") from error


# --- writing


def _serialize(
    metadata: Metadata,
    labels: Sequence[tuple[str, ...]],
    inputs: Sequence[TensorInfo],
    outputs: Sequence[TensorInfo],
) -> bytes:
    builder = flatbuffers.Builder(1024)
    ins = [_pack_tensor(builder, tensor, _pack_units(builder, metadata)) for tensor in inputs]
    outs = [
        _pack_tensor(builder, tensor, files=_pack_file(builder, _labels_file(i, outputs), names))
        for i, (tensor, names) in enumerate(zip(outputs, labels, strict=True))
    ]
    lists = {
        _SUBGRAPH["inputs"]: pack_vector(builder, ins),
        _SUBGRAPH["outputs"]: pack_vector(builder, outs),
    }
    subgraph = pack_table(builder, offsets=lists)
    texts = {"description": metadata.description, "version": metadata.version}
    texts |= {"author": metadata.author, "parser": _PARSER_VERSION}
    offsets = {_MODEL[k]: builder.CreateString(text) for k, text in texts.items() if text}
    offsets[_MODEL["subgraphs"]] = pack_vector(builder, [subgraph])
    builder.Finish(pack_table(builder, offsets=offsets), file_identifier=IDENTIFIER)
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
    return pack_table(builder, offsets=offsets)


def _pack_content(builder: Any, shape: Sequence[int]) -> int:
    """The kind of content: an image if the tensor has an image's shape, else features."""
    image = len(shape) == 4 and shape[-1] in _COLORS
    colors = {_IMAGE["colors"]: _COLORS[shape[-1]]} if image else {}
    properties = pack_table(builder, bytes_=colors)
    kind = _IMAGE_PROPERTIES if image else _FEATURE_PROPERTIES
    return pack_table(
        builder, offsets={_CONTENT["properties"]: properties}, bytes_={_CONTENT["kind"]: kind}
    )


def _pack_units(builder: Any, metadata: Metadata) -> int | None:
    if not metadata.mean:
        return None
    options = pack_table(
        builder,
        offsets={
            _NORMALIZATION["mean"]: builder.CreateNumpyVector(np.array(metadata.mean, np.float32)),
            _NORMALIZATION["std"]: builder.CreateNumpyVector(np.array(metadata.std, np.float32)),
        },
    )
    unit = pack_table(
        builder,
        offsets={_UNIT["options"]: options},
        bytes_={_UNIT["kind"]: _NORMALIZATION_OPTIONS},
    )
    return pack_vector(builder, [unit])


def _pack_file(builder: Any, name: str, labels: Sequence[str]) -> int | None:
    if not labels:
        return None
    offsets = {
        _FILE["name"]: builder.CreateString(name),
        _FILE["description"]: builder.CreateString("Names of the classes, one a line."),
    }
    file = pack_table(builder, offsets=offsets, bytes_={_FILE["kind"]: _TENSOR_AXIS_LABELS})
    return pack_vector(builder, [file])


# --- reading


def _parse(data: bytes, content: bytes) -> Metadata:
    if data[4:8] != IDENTIFIER:
        raise ValueError(f"metadata must have the identifier {IDENTIFIER!r}, got {data[4:8]!r}")
    root = FlatbufferTable.root(data)
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    labels: list[tuple[str, ...]] = []
    for subgraph in root.tables(_MODEL["subgraphs"]):
        for tensor in subgraph.tables(_SUBGRAPH["inputs"]):
            mean, std = _normalization(tensor) or (mean, std)
        for tensor in subgraph.tables(_SUBGRAPH["outputs"]):
            labels.append(_labels(tensor, content))
    texts = (root.text(_MODEL[name]) for name in ("description", "author", "version"))
    description, author, version = texts
    return Metadata(description, _found_labels(labels, content), mean, std, author, version)


def _found_labels(
    labels: Sequence[tuple[str, ...]], content: bytes
) -> tuple[str, ...] | dict[str, tuple[str, ...]]:
    """The labels as :class:`Metadata` has them, by the names of the file's outputs.

    Files of others may call outputs otherwise in their metadata; their order is the same.
    """
    outputs = _named_outputs(unpack(content), read_graph(content).outputs)
    if len(outputs) == 1:
        return next(filter(None, labels), ())
    found = zip((output.name for output in outputs), labels, strict=False)
    return {name: each for name, each in found if each} or ()


def _normalization(tensor: FlatbufferTable) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    for unit in tensor.tables(_TENSOR["units"]):
        options = unit.table(_UNIT["options"])
        if unit.byte(_UNIT["kind"]) == _NORMALIZATION_OPTIONS and options is not None:
            return options.floats(_NORMALIZATION["mean"]), options.floats(_NORMALIZATION["std"])
    return None


def _labels(tensor: FlatbufferTable, content: bytes) -> tuple[str, ...]:
    for file in tensor.tables(_TENSOR["files"]):
        if file.byte(_FILE["kind"]) == _TENSOR_AXIS_LABELS:
            with zipfile.ZipFile(io.BytesIO(content)) as archive:
                info = archive.getinfo(file.text(_FILE["name"]))
                if info.file_size > _MOST_LABELS:
                    raise ValueError(f"labels must be a short text, got {info.file_size:,} bytes")
                return tuple(archive.read(info).decode().splitlines())
    return ()
