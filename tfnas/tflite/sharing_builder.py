"""Files that hold equal vectors once: how they are written, and recognized.

A flatbuffer refers to vectors by their place. No reader sees whether two places are the same.
"""

from __future__ import annotations

from typing import Any

import flatbuffers  # type: ignore[import-untyped]
from ai_edge_litert import schema_py_generated as schema

from tfnas.tflite.flatbuffer import pack
from tfnas.tflite.flatbuffer_tables import FlatbufferTable

_GRAPHS, _TENSORS, _SHAPE = 2, 0, 0  # fields of a model, a graph, a tensor


def pack_as(content: bytes, model: schema.ModelT) -> bytes:
    """Returns the file of a model's objects, with equal vectors once where the first file has so.

    Args:
        content: The file that the objects were read from.
        model: The objects, changed since.
    """
    return pack(model, SharingBuilder() if shares_vectors(content) else None)


def shares_vectors(content: bytes) -> bool:
    """Returns whether some tensors of a file have their shapes in one place.

    Args:
        content: The file.
    """
    graph = next(FlatbufferTable.root(content).tables(_GRAPHS))
    places = [tensor.place(_SHAPE) for tensor in graph.tables(_TENSORS)]
    found = [place for place in places if place is not None]
    return len(set(found)) < len(found)


class SharingBuilder(flatbuffers.Builder):
    """Writes equal vectors of numbers and characters once.

    Vectors of offsets can't be shared, because offsets are relative to their own position.
    """

    def __init__(self) -> None:
        super().__init__(1024)
        self._known: dict[tuple[bytes, int], int] = {}  # vector, alignment -> its position
        self._before, self._alignment, self._has_offsets = 0, 1, False

    def StartVector(self, size: int, count: int, alignment: int) -> Any:
        self._before, self._alignment, self._has_offsets = self.Offset(), alignment, False
        return super().StartVector(size, count, alignment)

    def CreateString(self, *args: Any, **kwargs: Any) -> Any:
        self._before, self._alignment, self._has_offsets = self.Offset(), 1, False
        return super().CreateString(*args, **kwargs)

    def PrependUOffsetTRelative(self, offset: int) -> None:
        self._has_offsets = True
        super().PrependUOffsetTRelative(offset)

    def EndVector(self, *args: Any) -> Any:
        position = super().EndVector(*args)
        if self._has_offsets:
            return position
        start = len(self.Bytes) - self._before
        vector = bytes(self.Bytes[len(self.Bytes) - self.Offset() : start])
        known = self._known.setdefault((vector, self._alignment), position)
        if known != position:  # written before: discard the copy
            self.head = start
        return known
