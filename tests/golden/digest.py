"""Values as hashes and as a few words."""

import dataclasses
import hashlib
import html
import re
import struct

import numpy as np
from ai_edge_litert import schema_py_generated as schema

_SHOWN = 90  # characters of a summary
_TAGS = re.compile(r"<style>.*?</style>|<[^>]*>", re.DOTALL)
_NUMBER = re.compile(r"(?<![\w.])[-+]?\d+(?:,\d{3})*(?:\.\d+)?(?:e[-+]?\d+)?")


def sha256(value):
    """Returns the hash of a value: of arrays their type, shape and bits, of records their values.

    Args:
        value: Numbers, texts, bytes, arrays, records, and lists and dictionaries of them.
    """
    found = hashlib.sha256()
    for leaf in _leaves(value):
        found.update(leaf)
    return found.hexdigest()


def summary(value):
    """Returns a few words on a value: texts and numbers themselves, of many their count and sum."""
    plain = list(_plain(value))
    text = " ".join(f"{leaf:.6g}" if isinstance(leaf, float) else str(leaf) for leaf in plain)
    arrays = any(isinstance(leaf, np.ndarray | bytes) for leaf in plain)
    if not arrays and len(text) <= _SHOWN:
        return text
    numbers = [
        np.asarray(leaf, np.float64).ravel() for leaf in map(_number, plain) if _numeric(leaf)
    ]
    flat = np.concatenate([np.zeros(0), *numbers])
    flat = flat[np.isfinite(flat)]
    size = sum(len(leaf) for leaf in plain if isinstance(leaf, bytes))
    told = f"{flat.size} numbers, sum {flat.sum():.9g}, of squares {(flat**2).sum():.9g}"
    return told + (f", {size} bytes" if size else "")


def numbers_of(text):
    """Returns the numbers of a text, of HTML those that are shown, without the words."""
    return _NUMBER.findall(html.unescape(_TAGS.sub(" ", text)))


def file_content(content):
    """Returns what a `.tflite` file computes: no names of tensors, no metadata.

    Read by the schema itself, not by tfnas.

    Args:
        content: The file.
    """
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content, 0))
    codes = [(max(c.builtinCode, c.deprecatedBuiltinCode), c.version) for c in model.operatorCodes]
    return [
        [
            [_tensor(content, model, tensor) for tensor in graph.tensors],
            [_operator(codes, op) for op in graph.operators],
            [list(map(int, graph.inputs)), list(map(int, graph.outputs))],
        ]
        for graph in model.subgraphs
    ]


def _tensor(content, model, tensor):
    buffer = model.buffers[tensor.buffer]
    data = b"" if buffer.data is None else np.asarray(buffer.data, np.uint8).tobytes()
    if buffer.offset > 1:
        data = content[buffer.offset : buffer.offset + buffer.size]
    shape = [] if tensor.shape is None else list(map(int, tensor.shape))
    return [tensor.type, shape, data, _options(tensor.quantization), _options(tensor.sparsity)]


def _operator(codes, op):
    ends = [[] if ends is None else list(map(int, ends)) for ends in (op.inputs, op.outputs)]
    custom = b"" if op.customOptions is None else bytes(bytearray(op.customOptions))
    return [codes[op.opcodeIndex], ends, _options(op.builtinOptions), custom]


def _options(record):
    """A record of the schema as plain values."""
    if isinstance(record, list):
        return [_options(item) for item in record]
    if hasattr(record, "__dict__"):
        return {key: _options(value) for key, value in vars(record).items()}
    return record


def _plain(value):
    """Yields the numbers, texts, bytes and arrays in a value, in a fixed order."""
    if isinstance(value, dict):
        for key in sorted(value, key=str):
            yield str(key)
            yield from _plain(value[key])
    elif dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            yield from _plain(getattr(value, field.name))
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _plain(item)
    elif isinstance(value, np.generic):
        yield value.item()
    elif value is None or isinstance(value, bool | int | float | str | bytes | np.ndarray):
        yield value
    else:
        raise TypeError(f"value must be plain, got {type(value).__name__}")


def _leaves(value):
    """Yields bytes that two values have in common only where they are equal."""
    if isinstance(value, dict):
        yield b"{%d" % len(value)
        for key in sorted(value, key=str):
            yield from _leaves(str(key))
            yield from _leaves(value[key])
    elif dataclasses.is_dataclass(value):
        yield from _leaves([getattr(value, field.name) for field in dataclasses.fields(value)])
    elif isinstance(value, list | tuple):
        yield b"[%d" % len(value)
        for item in value:
            yield from _leaves(item)
    else:
        [plain] = _plain(value)
        yield from _leaf(plain)


def _leaf(value):
    if isinstance(value, np.ndarray):
        yield f"a{value.dtype.str}{value.shape}".encode()
        yield np.ascontiguousarray(value).tobytes()
    elif isinstance(value, bool) or value is None:
        yield str(value).encode()
    elif isinstance(value, float):
        yield b"f" + struct.pack("<d", value)
    elif isinstance(value, bytes):
        yield b"b%d:" % len(value)
        yield value
    else:
        text = str(value).encode()
        yield f"{type(value).__name__}{len(text)}:".encode()
        yield text


def _number(leaf):
    """A number that is a text, as one of a report, as a number."""
    if isinstance(leaf, str) and _NUMBER.fullmatch(leaf):
        return float(leaf.replace(",", ""))
    return leaf


def _numeric(leaf):
    if isinstance(leaf, np.ndarray):
        return leaf.dtype.kind in "biuf"
    return isinstance(leaf, int | float)
