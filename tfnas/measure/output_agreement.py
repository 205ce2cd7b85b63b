"""Agreement of two files whose outputs are numbers: whether one still answers as the other does.

An example's change is the root mean square of the difference of its outputs, as a fraction of the
outputs' spread: the standard deviation of the original's outputs over the examples, each number
around its own mean. So it has no unit, and 0.1 means that an answer moved by a tenth of what
answers differ by.
"""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Any

import numpy as np

from tfnas.measure.accuracy import wilson_interval

if TYPE_CHECKING:
    from tfnas.data.examples import ExampleSet
    from tfnas.tflite.artifact import Artifact

TOLERANCE = 0.1  # of the outputs' spread
WORST = 12  # examples that changed most
_OFTEN = 0.05  # share of changed answers that is worth a warning


@dataclasses.dataclass(frozen=True)
class OutputChange:
    """How one output of two files differs.

    Args:
        name: Name of the output.
        spread: Standard deviation of the original's output over the examples.
        rms: Root mean square of the difference, in the output's unit.
        relative: `rms` as a fraction of `spread`.
        largest: Largest absolute difference of a number, in the output's unit.
        changed: Fraction of the examples that changed beyond the tolerance.
    """

    name: str
    spread: float
    rms: float
    relative: float
    largest: float
    changed: float


@dataclasses.dataclass(frozen=True, eq=False)
class OutputAgreement:
    """How the outputs of two files agree on the same examples.

    Args:
        examples: Number of examples.
        tolerance: Change, as a fraction of an output's spread, beyond which an answer counts as
            changed.
        changed: Fraction of the examples of which any output changed, with its 95% interval:
            (value, low, high).
        outputs: How each output differs.
        worst: Indices of the examples that changed most, by falling change.
        changes: Their largest changes, as fractions of an output's spread.
    """

    examples: int
    tolerance: float
    changed: tuple[float, float, float]
    outputs: tuple[OutputChange, ...]
    worst: np.ndarray = dataclasses.field(repr=False)
    changes: np.ndarray = dataclasses.field(repr=False)

    def warnings(self) -> list[str]:
        """Returns what should not be overlooked: many changed answers, outputs that are far off."""
        found = []
        if self.changed[1] > _OFTEN:
            found.append(
                f"{100 * self.changed[0]:.1f}% of the answers change by more than "
                f"{100 * self.tolerance:g}% of the outputs' spread"
            )
        for each in self.outputs:
            if each.relative > self.tolerance:
                found.append(
                    f"output {each.name} is off by {100 * each.relative:.1f}% of its spread"
                )
        return found


def output_agreement(
    original: Artifact,
    small: Artifact,
    examples: ExampleSet,
    tolerance: float = TOLERANCE,
) -> OutputAgreement:
    """Compares the outputs of two files on the same examples, a batch at a time.

    Example:
        >>> import keras, tfnas
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
        >>> file = tfnas.to_tflite(model)
        >>> x = np.random.default_rng(0).normal(size=(20, 4)).astype("float32")
        >>> found = output_agreement(file, file, tfnas.data.Examples(x, x))
        >>> found.changed[0], [each.relative for each in found.outputs]
        (0.0, [0.0])

    Args:
        original: The original file.
        small: The compressed file.
        examples: The examples; their targets are not used.
        tolerance: Change, as a fraction of an output's spread, beyond which an answer counts as
            changed.

    Raises:
        ValueError: The files have different outputs, `tolerance` is not above 0, or there is no
            example.
    """
    if not 0 < tolerance < math.inf:
        raise ValueError(f"tolerance must be a finite number above 0, got {tolerance!r}")
    names = [tensor.name for tensor in original.outputs]
    sums: list[_Sums] = [_Sums() for _ in names]
    for batch in examples.batches():
        before, after = _listed(original.predict(batch.x)), _listed(small.predict(batch.x))
        if [each.shape for each in before] != [each.shape for each in after]:
            raise ValueError(
                "small must have the outputs of original, "
                f"{[each.shape for each in before]}, got {[each.shape for each in after]}"
            )
        for each, old, new in zip(sums, before, after, strict=True):
            each.add(old, new)
    if not sums[0].count:
        raise ValueError("examples must hold at least one example, got none")
    found = [each.result(name, tolerance) for name, each in zip(names, sums, strict=True)]
    changes = np.max([change for _, change in found], axis=0)
    changed, count = int((changes > tolerance).sum()), len(changes)
    worst = np.argsort(-changes, kind="stable")[:WORST]
    worst = worst[changes[worst] > 0]
    return OutputAgreement(
        count,
        tolerance,
        (changed / count, *wilson_interval(changed, count)),
        tuple(change for change, _ in found),
        worst,
        changes[worst],
    )


class _Sums:
    """Moments of one output of two files, over batches."""

    def __init__(self) -> None:
        self.count, self.largest = 0, 0.0
        self.mean: Any = 0.0  # of each number over the examples
        self.squares: Any = 0.0  # of deviations from it
        self.differences: list[np.ndarray] = []  # mean squared difference of each example

    def add(self, old: np.ndarray, new: np.ndarray) -> None:
        """Adds a batch; moments are merged as by Chan, Golub and LeVeque, 1979.

        Args:
            old: Outputs of the original file, (examples, ...).
            new: Outputs of the other file.
        """
        count = len(old)
        before = old.astype(np.float64).reshape(count, -1)
        difference = new.astype(np.float64).reshape(count, -1) - before
        self.differences.append(np.square(difference).mean(axis=1))
        self.largest = max(self.largest, float(np.abs(difference).max(initial=0.0)))
        if self.count and np.shape(self.mean) != before.shape[1:]:
            raise ValueError(
                f"outputs must have one shape in all batches, got {np.size(self.mean)} and "
                f"{before.shape[1]} numbers an example"
            )
        mean, total = before.mean(axis=0), self.count + count
        shift = mean - self.mean
        self.squares = self.squares + np.square(before - mean).sum(axis=0)
        self.squares = self.squares + np.square(shift) * (self.count * count / total)
        self.mean = self.mean + shift * (count / total)
        self.count = total

    def result(self, name: str, tolerance: float) -> tuple[OutputChange, np.ndarray]:
        """Returns how the output differs, and the change of each example.

        Args:
            name: Name of the output.
            tolerance: Change beyond which an answer counts as changed.
        """
        spread = math.sqrt(float(np.mean(self.squares)) / self.count)
        differences = np.concatenate(self.differences)
        # An output that is the same for all examples: in units of its size.
        scale = spread or math.sqrt(float(np.mean(np.square(self.mean)))) or 1.0
        changes = np.sqrt(differences) / scale
        rms = math.sqrt(float(differences.mean()))
        share = float((changes > tolerance).mean())
        return OutputChange(name, spread, rms, rms / scale, self.largest, share), changes


def _listed(outputs: Any) -> list[np.ndarray]:
    return [np.asarray(each) for each in (outputs if isinstance(outputs, list) else [outputs])]
