"""The errors of one output of a file against Keras."""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from tfnas.measure.verification.bounds import OutputErrors


@dataclasses.dataclass(frozen=True)
class OutputCheck:
    """An output of the file beside the same output of the Keras model.

    Args:
        case: Which inputs.
        output: The output's name in Keras; where the model has none, that in the file.
        relative: Root mean square of the difference, as a fraction of that of Keras' outputs.
        largest: Largest difference, as a fraction of Keras' largest output.
        absolute: Largest difference, in the output's unit.
        changed: Fraction of the examples whose class is another one; None: the outputs have no
            shape (examples, classes).
        excesses: Which of these are above their bounds; empty: the output is verified.
    """

    case: str
    output: str
    relative: float
    largest: float
    absolute: float
    changed: float | None
    excesses: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether no error is above its bound."""
        return not self.excesses


def errors(
    expected: np.ndarray, found: np.ndarray, *, size_of: np.ndarray | None = None
) -> OutputErrors:
    """Returns the errors of an output by their names in :class:`OutputCheck`.

    Example:
        >>> errors(np.array([[3.0, 4.0]]), np.array([[3.0, 4.5]]))["largest"]
        0.125

    Args:
        expected: Keras' output, (examples, ...).
        found: The file's, of the same shape.
        size_of: Keras' outputs whose size the errors are fractions of, (examples, ...); None:
            `expected`. Few examples may have small outputs by chance.
    """
    one, other = expected.astype(np.float64), found.astype(np.float64)
    # Where Keras computes inf or NaN itself, the file may too.
    known = np.isfinite(one)
    if not np.isfinite(other[known]).all():
        changed = _changed(one, other)
        return {"relative": math.inf, "largest": math.inf, "absolute": math.inf, "changed": changed}
    difference = np.where(known, one, 0.0) - np.where(known, other, 0.0)
    absolute = float(np.abs(difference).max(initial=0.0))
    sizes = one if size_of is None else size_of.astype(np.float64)
    sizes = sizes[np.isfinite(sizes)]
    scale = float(np.abs(sizes).max(initial=0.0))
    signal = float(np.sqrt(np.mean(np.square(sizes)))) if sizes.size else 0.0
    noise = float(np.sqrt(np.mean(np.square(difference)))) if difference.size else 0.0
    return {
        "relative": _share(noise, signal),
        "largest": _share(absolute, scale),
        "absolute": absolute,
        "changed": _changed(one, other),
    }


def _share(part: float, whole: float) -> float:
    if not part:
        return 0.0
    return part / whole if whole else math.inf


def changed_examples(expected: np.ndarray, found: np.ndarray) -> np.ndarray | None:
    """Returns which examples have another class; None: the outputs have no classes.

    Example:
        >>> changed_examples(np.array([[3.0, 4.0]]), np.array([[4.5, 4.0]]))
        array([ True])

    Args:
        expected: Keras' output, (examples, ...).
        found: The file's, of the same shape.
    """
    if expected.ndim != 2 or expected.shape[1] < 2:
        return None
    finite = np.where(np.isfinite(found) | ~np.isfinite(expected), found, -np.inf)
    return np.asarray(expected.argmax(axis=1) != finite.argmax(axis=1))


def _changed(expected: np.ndarray, found: np.ndarray) -> float | None:
    changed = changed_examples(expected, found)
    return None if changed is None else float(changed.mean())
