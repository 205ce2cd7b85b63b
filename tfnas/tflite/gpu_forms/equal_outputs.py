"""Whether two files compute the same: on random inputs, and on the ends of ranges."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from tfnas.tflite.artifact import Artifact
from tfnas.tflite.file_runs import FileRuns
from tfnas.tflite.tensor_details import TensorDetails

if TYPE_CHECKING:
    from ai_edge_litert.interpreter import Interpreter

EQUAL = 1e-5  # largest difference of an output that counts as equal, as a fraction of the largest
_RANGES = ((-1.0, 1.0), (0.0, 255.0), (-1e3, 1e3))  # of inputs of floats


def largest_difference(one: Artifact, other: Artifact, seed: int = 0) -> float:
    """Returns the largest difference of an output, as a fraction of its largest for that example.

    Each example is random in one of several ranges, or at the ends of one, and is compared by
    itself: outputs for large inputs would hide what small ones change. Files run without
    XNNPACK, which rounds in a way that depends on the operators beside.

    Args:
        one: A file, for any size of the batch.
        other: One with the same inputs and outputs.
        seed: Seed of the random inputs.

    Returns:
        The difference, without unit; infinite where one has a number and the other has none, or
        where an output has no number to compare for any example.

    Raises:
        ValueError: A file does not have an output per example.
        RuntimeError: A file can't be run.
    """
    rng = np.random.default_rng(seed)
    columns = [np.stack(list(_examples(tensor, rng))) for tensor in one.inputs]
    pairs = zip(_outputs(one, columns), _outputs(other, columns), strict=True)
    return max((_difference(*pair) for pair in pairs), default=0.0)


def _outputs(file: Artifact, columns: list[np.ndarray]) -> list[np.ndarray]:
    def new(shapes: list[tuple[int, ...]] | None) -> Interpreter:
        return file.interpreter(xnnpack=False, shapes=shapes)

    found = FileRuns(new, file.inputs, file.outputs, file.state, batch_size=1)(columns)
    return [t.dequantize(values) for t, values in zip(file.outputs, found, strict=True)]


def _examples(tensor: TensorDetails, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Examples of one input, of the shape that the file has."""
    shape = tuple(max(size, 1) for size in tensor.shape[1:])
    for low, high in _ranges(tensor):
        random, corner = rng.uniform(low, high, shape), np.where(rng.random(shape) < 0.5, low, high)
        for values in (random, corner):
            yield values.astype("float32" if tensor.scale else tensor.dtype)


def _ranges(tensor: TensorDetails) -> tuple[tuple[float, float], ...]:
    if tensor.scale:
        ends = np.iinfo(tensor.dtype)
        low, high = ((end - tensor.zero_point) * tensor.scale for end in (ends.min, ends.max))
        return ((low, high),) * len(_RANGES)
    if not tensor.dtype.startswith("float"):
        return ((0.0, 1.9),) * len(_RANGES)  # the least indices, which each table has
    return _RANGES


def _difference(one: np.ndarray, other: np.ndarray) -> float:
    a, b = one.astype(np.float64), other.astype(np.float64)
    if a.shape != b.shape or (a.size and not np.isfinite(a).any()):
        return float("inf")
    return max(map(_difference_of_example, a, b), default=0.0)


def _difference_of_example(a: np.ndarray, b: np.ndarray) -> float:
    known = np.isfinite(a)
    same = np.array_equal(known, np.isfinite(b))
    if not same or not np.array_equal(a[~known], b[~known], equal_nan=True):
        return float("inf")
    largest = float(np.abs(a[known] - b[known]).max(initial=0.0))
    scale = float(np.abs(a[known]).max(initial=0.0))
    return largest / scale if scale else largest
