"""The quality of predictions by a task's metric, and differences between two of them."""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from tfnas.measure.accuracy import paired_difference, wilson_interval
from tfnas.measure.measurement import Score

_Z95 = 1.959963984540054


class NotFinite(ValueError):
    """Predictions are not finite, so that nothing can be said of their quality."""


@dataclasses.dataclass(frozen=True)
class Metric:
    """A task's metric: the mean of one value for each example.

    Example:
        >>> Metric("error", higher_is_better=False, unit="m").drop(0.5)
        0.5

    Args:
        name: Its name in tables, such as "accuracy".
        higher_is_better: Its direction.
        scale: Factor of differences in tables: 100 shows fractions as points.
        unit: Unit of scaled differences.
        little: Drop in this unit that is too small to be worth a training; None: 0.3% of what the
            uncompressed model reaches.
        hopeless: Drop in this unit, beyond what is allowed, that longer training won't win back;
            None: 3% of what the uncompressed model reaches.

    Raises:
        ValueError: A number is outside its rule.
    """

    name: str
    higher_is_better: bool = True
    scale: float = 1.0
    unit: str = ""
    little: float | None = None
    hopeless: float | None = None

    def __post_init__(self) -> None:
        if not 0 < self.scale < math.inf:
            raise ValueError(f"scale must be a finite number above 0, got {self.scale!r}")
        for name in ("little", "hopeless"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < math.inf:
                raise ValueError(f"{name} must be None or a finite number >= 0, got {value!r}")

    @property
    def digits(self) -> int:
        """Decimals of scaled differences, so that they are as exact as values with four."""
        return max(0, 4 - round(math.log10(self.scale)))

    def text(self, scaled: float) -> str:
        """Returns a scaled difference with its unit.

        Example:
            >>> ACCURACY.text(1.5), Metric("error").text(0.25)
            ('1.50 points', '0.2500')

        Args:
            scaled: A difference in the metric's unit.
        """
        return f"{scaled:.{self.digits}f} {self.unit}".rstrip()

    def gain(self, drop: float) -> float:
        """Returns a drop in the metric's unit as a difference of values that would undo it."""
        return drop / self.scale if self.higher_is_better else -drop / self.scale

    def drop(self, difference: float) -> float:
        """Returns how much worse a scaled difference is than 0, in the metric's unit."""
        return -self.scale * difference if self.higher_is_better else self.scale * difference


ACCURACY = Metric("accuracy", scale=100.0, unit="points", little=0.3, hopeless=3.0)


@dataclasses.dataclass(frozen=True, eq=False)
class Assessment:
    """The quality of a model's predictions.

    Example:
        >>> right = Assessment(ACCURACY, np.array([True, True, False, True]))
        >>> right.score.value
        0.75

    Args:
        metric: The metric.
        values: Its value for each example, (examples,); booleans where it is a proportion.
    """

    metric: Metric
    values: np.ndarray = dataclasses.field(repr=False)

    @property
    def score(self) -> Score:
        """The mean with its 95% interval: Wilson's of a proportion, else Student's."""
        values = self.values
        if values.dtype == bool:
            low, high = wilson_interval(int(values.sum()), len(values))
        else:
            low, high = _interval(values)
        return Score(self.metric.name, float(values.mean()), low, high, len(values))

    def minus(self, other: Assessment) -> tuple[float, float, float]:
        """Returns the difference to another assessment of the same examples.

        Args:
            other: The other assessment.

        Returns:
            The difference with its 95% interval: (value, low, high), not scaled.

        Raises:
            ValueError: The numbers of examples differ.
        """
        if self.values.dtype == other.values.dtype == bool:
            return paired_difference(self.values, other.values)
        if self.values.shape != other.values.shape:
            raise ValueError(
                f"other must hold {len(self.values)} examples, got {len(other.values)}"
            )
        differences = self.values.astype(float) - other.values.astype(float)
        return float(differences.mean()), *_interval(differences)

    def drop_from(self, baseline: Assessment) -> tuple[float, float, float]:
        """Returns how much worse this is than a baseline, in the metric's unit.

        Args:
            baseline: The assessment of the model before compression, on the same examples.

        Returns:
            The drop with its 95% interval: (value, low, high); negative where this is better.
        """
        value, low, high = (self.metric.drop(each) for each in self.minus(baseline))
        return value, min(low, high), max(low, high)


def _interval(values: np.ndarray) -> tuple[float, float]:
    """Returns the 95% interval of a mean, by Student's t."""
    from scipy import stats

    mean, count = float(values.mean()), len(values)
    if count < 2:
        return -math.inf, math.inf
    half = float(stats.t.ppf(0.975, count - 1)) * float(values.std(ddof=1)) / math.sqrt(count)
    return mean - half, mean + half
