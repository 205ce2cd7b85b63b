"""Tables of any flatbuffer, written and read by the indices of their fields, without a schema."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import Any

import flatbuffers.encode  # type: ignore[import-untyped]
import flatbuffers.packer  # type: ignore[import-untyped]
import flatbuffers.table  # type: ignore[import-untyped]


def pack_table(
    builder: Any, offsets: dict[int, int] | None = None, bytes_: dict[int, int] | None = None
) -> int:
    """Writes a table.

    Args:
        builder: A `flatbuffers.Builder`.
        offsets: Index of a field -> offset of the table, string or vector that it holds.
        bytes_: Index of a field -> its value of one byte.

    Returns:
        The offset of the table in the builder.
    """
    offsets, bytes_ = offsets or {}, bytes_ or {}
    builder.StartObject(1 + max((*offsets, *bytes_), default=-1))
    for field, offset in offsets.items():
        builder.PrependUOffsetTRelativeSlot(field, offset, 0)
    for field, value in bytes_.items():
        builder.PrependUint8Slot(field, value, 0)
    return builder.EndObject()


def pack_vector(builder: Any, offsets: Sequence[int]) -> int:
    """Writes a vector of tables.

    Args:
        builder: A `flatbuffers.Builder`.
        offsets: Offset of each table in the builder.

    Returns:
        The offset of the vector in the builder.
    """
    builder.StartVector(4, len(offsets), 4)
    for offset in reversed(offsets):  # a flatbuffer is written from its end to its start
        builder.PrependUOffsetTRelative(offset)
    return builder.EndVector()


class FlatbufferTable:
    """A table of a flatbuffer, read by the indices of its fields.

    Args:
        data: The flatbuffer.
        position: Position of the table in it, in bytes.
    """

    def __init__(self, data: bytes, position: int) -> None:
        self._table = flatbuffers.table.Table(data, position)

    @classmethod
    def root(cls, data: bytes) -> FlatbufferTable:
        """Returns the table that a flatbuffer begins with."""
        return cls(data, flatbuffers.encode.Get(flatbuffers.packer.uoffset, data, 0))

    def _position(self, field: int) -> int:
        """Position of a field in the flatbuffer, 0 if the table does not have it."""
        offset = self._table.Offset(4 + 2 * field)
        return self._table.Pos + offset if offset else 0

    def text(self, field: int) -> str:
        """Returns a string, "" where the table does not have it."""
        position = self._position(field)
        return self._table.String(position).decode() if position else ""

    def byte(self, field: int) -> int:
        """Returns a number of one byte, 0 where the table does not have it."""
        position = self._position(field)
        return self._table.Bytes[position] if position else 0

    def table(self, field: int) -> FlatbufferTable | None:
        """Returns a table, None where this one does not have it."""
        position = self._position(field)
        return (
            FlatbufferTable(self._table.Bytes, self._table.Indirect(position)) if position else None
        )

    def tables(self, field: int) -> Iterator[FlatbufferTable]:
        """Yields the tables of a vector."""
        offset = self._table.Offset(4 + 2 * field)
        for i in range(self._table.VectorLen(offset) if offset else 0):
            position = self._table.Vector(offset) + 4 * i
            yield FlatbufferTable(self._table.Bytes, self._table.Indirect(position))

    def floats(self, field: int) -> tuple[float, ...]:
        """Returns a vector of 32-bit floats, empty where the table does not have it."""
        offset = self._table.Offset(4 + 2 * field)
        if not offset:
            return ()
        start, count = self._table.Vector(offset), self._table.VectorLen(offset)
        return struct.unpack_from(f"<{count}f", self._table.Bytes, start)

    def place(self, field: int) -> int | None:
        """Returns where a vector begins, None where the table does not have it."""
        offset = self._table.Offset(4 + 2 * field)
        return self._table.Vector(offset) if offset else None
