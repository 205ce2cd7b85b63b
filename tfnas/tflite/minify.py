"""The same `.tflite` file in fewer bytes: what it computes stays as it is, to the bit.

A converted file says many things more than once. Every tensor has its own list of zero points,
8 bytes a channel, which are nearly always zeros; its own list of steps and its own shape; and a
name that tells every operation of every layer that was fused into it. Lists that are equal can
be held once, since a flatbuffer points at them, and of a name the layers suffice. In a small
network, as microcontrollers run them, that is a tenth of the file.
"""

from __future__ import annotations

from typing import Any

import flatbuffers  # type: ignore[import-untyped]
from ai_edge_litert import schema_py_generated as schema

from tfnas.tflite.file_validation import check_file
from tfnas.tflite.flatbuffer import PRODUCT, integers, pack, unpack
from tfnas.tflite.metadata import attached_files, with_files

_NOTES = b"CONVERSION_METADATA"  # the converter's versions and options; nothing reads them


def minify(content: bytes) -> bytes:
    """Returns a `.tflite` file that computes the same in fewer bytes; never a larger one.

    Args:
        content: The file.

    Raises:
        ValueError: The content is no `.tflite` file, or has buffers behind its flatbuffer.
    """
    check_file(content)
    model = unpack(content)
    _drop_notes(model)
    for graph in model.subgraphs:
        # Inputs and outputs are called by name.
        ends = {*integers(graph.inputs), *integers(graph.outputs)}
        for index, tensor in enumerate(graph.tensors or ()):
            if tensor.name and index not in ends:
                data = model.buffers[tensor.buffer].data
                held = data is not None and len(data) > 0
                tensor.name = short_name(tensor.name.decode(), constant=held).encode()
    smaller = with_files(pack(model, _SharingBuilder()), attached_files(content))
    return min(smaller, content, key=len)


def short_name(tensor_name: str, constant: bool = False) -> str:
    """Returns a tensor's name with each of its layers once, and what multiplies by a kernel.

    Example:
        >>> short_name("net_1/bn_1/add;net_1/bn_1/mul;net_1/conv_1/convolution;net_1/conv_1/bias")
        'net_1/bn_1/add;net_1/conv_1/convolution'
        >>> short_name("net_1/bn_1/add;net_1/conv_1/convolution", constant=True)
        'net_1/conv_1/convolution'

    Args:
        tensor_name: Names of operations within their scopes, with ";" between them. The first
            one stays whole, since it tells operators of one layer apart.
        constant: Whether it is a kernel or a bias, of which the product alone is of use.
    """
    kept: dict[str, str] = {}
    for part in tensor_name.split(";"):
        scope, slash, _ = part.rpartition("/")
        if PRODUCT.search(part) or (slash and not kept):
            kept[scope] = part
        elif slash:
            kept.setdefault(scope, scope + slash)
    products = [part for part in kept.values() if PRODUCT.search(part)]
    return ";".join(products if constant and products else kept.values()) or tensor_name


def _drop_notes(model: Any) -> None:
    notes = [entry for entry in model.metadata or () if entry.name == _NOTES]
    model.metadata = [entry for entry in model.metadata or () if entry.name != _NOTES]
    used = {entry.buffer for entry in model.metadata}
    used.update(t.buffer for graph in model.subgraphs for t in graph.tensors or ())
    for entry in notes:
        if entry.buffer not in used:
            model.buffers[entry.buffer] = schema.BufferT()  # others are counted by their places


class _SharingBuilder(flatbuffers.Builder):
    """Writes vectors of numbers and characters once that are equal to the byte.

    Vectors of offsets are not: these count from where they stand.
    """

    def __init__(self) -> None:
        super().__init__(1024)
        self._known: dict[tuple[bytes, int], int] = {}  # vector, alignment -> its place
        self._before, self._alignment, self._points = 0, 1, False

    def StartVector(self, size: int, count: int, alignment: int) -> Any:
        self._before, self._alignment, self._points = self.Offset(), alignment, False
        return super().StartVector(size, count, alignment)

    def CreateString(self, *given: Any, **options: Any) -> Any:
        self._before, self._alignment, self._points = self.Offset(), 1, False
        return super().CreateString(*given, **options)

    def PrependUOffsetTRelative(self, offset: int) -> None:
        self._points = True
        super().PrependUOffsetTRelative(offset)

    def EndVector(self, *given: Any) -> Any:
        place = super().EndVector(*given)
        if self._points:
            return place
        start = len(self.Bytes) - self._before
        held = bytes(self.Bytes[len(self.Bytes) - self.Offset() : start])
        known = self._known.setdefault((held, self._alignment), place)
        if known != place:  # takes back what was written
            self.head = start
        return known
