"""The values of tensors for all batches: in memory up to a limit, in temporary files beyond it.

A run of all batches through a network, layer by layer, holds the inputs of a layer for each batch.
For 256 images of 224 x 224 pixels that is more than 1 GB for one layer. A :class:`Column` holds one
tensor's values, batch by batch, and reads those that are in a file when they are asked for; they
come back to the bit. A file has no name, so nothing is left of it when the process is killed.
"""

from __future__ import annotations

import dataclasses
import math
import tempfile
import weakref
from collections.abc import Sequence
from typing import IO, Any, overload

import numpy as np


class ColumnMemory:
    """Counts what its columns hold in memory, and says whether there is room for more.

    Args:
        limit: Bytes that all columns together may hold in memory.
    """

    def __init__(self, limit: int) -> None:
        self._limit, self._held = limit, 0

    def column(self) -> Column:
        """Returns a column without values, whose values count here as long as it exists."""
        return Column(_Pages(self), ())

    def take(self, size: int) -> bool:
        """Returns whether there is room for this many bytes; they count as held then."""
        fits = self._held + size <= self._limit
        self._held += size if fits else 0
        return fits

    def release(self, size: int) -> None:
        """Counts this many bytes as free again."""
        self._held -= size


class Column(Sequence[Any]):
    """The values of one tensor, batch by batch.

    Example:
        >>> column = ColumnMemory(limit=0).column()
        >>> column.append(np.arange(6.0).reshape(3, 2))
        >>> column.examples, np.asarray(column[0]).sum()
        (3, 15.0)

    Args:
        pages: Where its values are.
        places: Which of them are its own, in order.
    """

    def __init__(self, pages: _Pages, places: Sequence[int]) -> None:
        self._pages, self._places = pages, list(places)

    def append(self, value: Any) -> None:
        """Adds the value of the next batch, (examples, ...)."""
        self._places.append(self._pages.store(value))

    @property
    def examples(self) -> int:
        """The number of examples of all batches, without reading any."""
        return sum(self._pages.examples(place) for place in self._places)

    def picked(self, places: Sequence[int]) -> Column:
        """Returns a column of some of the values, which are not copied.

        Args:
            places: Their numbers.
        """
        return Column(self._pages, [self._places[place] for place in places])

    def __len__(self) -> int:
        return len(self._places)

    @overload
    def __getitem__(self, index: int) -> Any: ...

    @overload
    def __getitem__(self, index: slice) -> Column: ...

    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return self.picked(range(len(self))[index])
        return self._pages.load(self._places[index])


def examples_of(batches: Sequence[Any]) -> int:
    """Returns the number of examples of all batches.

    Args:
        batches: A :class:`Column`, or arrays (examples, ...).
    """
    return batches.examples if isinstance(batches, Column) else sum(len(x) for x in batches)


@dataclasses.dataclass(frozen=True)
class _Page:
    """Where a value is in a file."""

    offset: int
    shape: tuple[int, ...]
    dtype: np.dtype


class _Room:
    """What a column takes up, given back when the column is gone."""

    def __init__(self, memory: ColumnMemory) -> None:
        self.memory = memory
        self.held = 0  # bytes in memory
        self.file: IO[bytes] | None = None

    def give_back(self) -> None:
        self.memory.release(self.held)
        if self.file is not None:
            self.file.close()


class _Pages:
    """Values of a column, shared by its slices."""

    def __init__(self, memory: ColumnMemory) -> None:
        self._values: list[Any] = []
        self._end = 0  # of the file
        self._room = _Room(memory)
        weakref.finalize(self, self._room.give_back)

    def store(self, value: Any) -> int:
        size = _byte_count(value)
        if size is None or self._room.memory.take(size):
            self._room.held += size or 0
            self._values.append(value)
        else:
            self._values.append(self._written(value))
        return len(self._values) - 1

    def load(self, place: int) -> Any:
        value, file = self._values[place], self._room.file
        if not isinstance(value, _Page) or file is None:
            return value
        import keras

        file.seek(value.offset)
        array = np.fromfile(file, np.uint8, math.prod(value.shape) * value.dtype.itemsize)
        return keras.ops.convert_to_tensor(array.view(value.dtype).reshape(value.shape))

    def examples(self, place: int) -> int:
        value = self._values[place]
        return int(value.shape[0] if isinstance(value, _Page) else len(value))

    def _written(self, value: Any) -> _Page:
        import keras

        array = np.ascontiguousarray(keras.ops.convert_to_numpy(value))
        room = self._room
        if room.file is None:
            room.file = tempfile.TemporaryFile(prefix="tfnas_")  # noqa: SIM115
        room.file.seek(self._end)
        array.tofile(room.file)
        page = _Page(self._end, array.shape, array.dtype)
        self._end += array.nbytes
        return page


def _byte_count(value: Any) -> int | None:
    """Bytes of a dense array of numbers; None for anything else, which stays in memory."""
    import tensorflow as tf

    if isinstance(value, np.ndarray):
        return value.nbytes if value.dtype.kind != "O" else None
    if isinstance(value, tf.Tensor) and value.dtype not in (tf.string, tf.variant, tf.resource):
        return math.prod(value.shape) * value.dtype.size
    return None
