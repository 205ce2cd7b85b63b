"""The inputs of a verification: real ones, ends of their ranges, other batches, other sizes."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import keras

    from tfnas.tflite.artifact import Artifact

REAL, EXTREME = "real inputs", "ends of ranges"
_CORNERS = 14


@dataclasses.dataclass(frozen=True, eq=False)
class Case:
    """Inputs that model and file are compared on.

    Args:
        name: What they are, as "batch of 3".
        columns: One array per input of the model, in its order: (examples, ...).
        batch_size: Examples per run of the file.
        extreme: Whether they lie at the ends of the inputs' ranges.
        real: Whether the examples are the first of the data.
    """

    name: str
    columns: tuple[np.ndarray, ...]
    batch_size: int = 64
    extreme: bool = False
    real: bool = True


def cases(
    model: keras.Model, artifact: Artifact, columns: Sequence[np.ndarray], seed: int
) -> Iterator[Case]:
    """Yields the inputs of a verification.

    Args:
        model: The Keras model.
        artifact: The file.
        columns: Real inputs, one array per input of the model.
        seed: Seed of the extreme inputs.
    """
    yield from cases_of_numbers(columns, seed)
    if all(tensor.shape[0] == -1 for tensor in artifact.inputs):
        for size in (1, 3):
            if len(columns[0]) >= size:
                yield Case(f"batch of {size}", tuple(c[: 2 * size] for c in columns), size)
    other = _other_sizes(model, artifact, columns)
    if other is not None:
        sizes = ", ".join("x".join(map(str, column.shape[1:])) for column in other)
        yield Case(f"inputs of {sizes}", other, 2, real=False)


def cases_of_numbers(columns: Sequence[np.ndarray], seed: int) -> Iterator[Case]:
    """Yields the inputs that differ by their numbers alone: real ones, and ends of their ranges.

    Args:
        columns: Real inputs, one array per input of the model.
        seed: Seed of the extreme inputs.
    """
    yield Case(REAL, tuple(columns))
    numbers = [column for column in columns if column.dtype.kind in "fiu"]
    if len(numbers) == len(columns):
        rng = np.random.default_rng(seed)
        corners = tuple(_corners(column, rng) for column in columns)
        yield Case(EXTREME, corners, extreme=True, real=False)


def _corners(column: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Each number at the least or the largest value that it has in the data.

    The first example has all of the least, the second all of the largest ones.
    """
    low, high = column.min(axis=0), column.max(axis=0)
    mixed = rng.random((_CORNERS, *low.shape)) < 0.5
    corners: np.ndarray = np.stack([low, high, *np.where(mixed, low, high)])
    return corners.astype(column.dtype)


def _other_sizes(
    model: keras.Model, artifact: Artifact, columns: Sequence[np.ndarray]
) -> tuple[np.ndarray, ...] | None:
    """The data in other sizes, where model and file leave some open; None: they leave none."""
    if {-1} & {size for tensor in artifact.inputs for size in tensor.shape[1:]}:
        wider = [
            _tiled(column[:2], tensor.shape[1:])
            for column, tensor in zip(columns, model.inputs, strict=True)
        ]
        if any(new.shape[1:] != old.shape[1:] for new, old in zip(wider, columns, strict=True)):
            return tuple(wider)
    return None


def _tiled(column: np.ndarray, shape: Sequence[int | None]) -> np.ndarray:
    """Examples whose open sizes are one and a half times as large, filled by repetition."""
    for axis, size in enumerate(shape, 1):
        if size is None:
            length = column.shape[axis]
            column = np.take(column, np.arange(length + max(1, length // 2)) % length, axis)
    return column
