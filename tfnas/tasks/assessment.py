"""The quality of predictions by a task's metric, and differences between two of them."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tfnas.data.examples import Nested, leaves
from tfnas.measure.accuracy import paired_difference, wilson_interval
from tfnas.measure.measurement import Score
from tfnas.runtime.failed_work import FailedWork
from tfnas.runtime.files import code_text

RESAMPLES = 400  # of a bootstrap: an interval's ends vary by some percent of its width


class NotFinite(FailedWork):
    """Predictions are not finite, so that nothing can be said of their quality."""


@dataclasses.dataclass(frozen=True)
class Metric:
    """A task's metric: how predictions are judged, and which direction is better.

    Each example has one value, and the metric is their mean. Where it is no such mean, each
    example has a row of numbers, and `aggregate` turns the rows of any examples into the metric.

    Example:
        >>> Metric("error", higher_is_better=False, unit="m").drop(0.5)
        0.5
        >>> def counts(y, predictions):  # of true positives, predicted and true ones
        ...     guess = predictions[:, 0] > 0.5
        ...     return np.stack([guess & (y == 1), guess, y == 1], axis=1)
        >>> def f1(rows):
        ...     hits, predicted, true = rows.sum(axis=0)
        ...     return 2 * hits / (predicted + true)
        >>> metric = Metric("f1", scale=100.0, unit="points", values=counts, aggregate=f1)
        >>> metric.value(counts(np.array([1, 1, 0]), np.array([[0.9], [0.2], [0.1]])))
        0.6666666666666666

    Args:
        name: Its name in tables, such as "accuracy".
        higher_is_better: Its direction.
        scale: Factor of differences in tables: 100 shows fractions as points.
        unit: Unit of scaled differences.
        little: Drop in this unit that is too small to be worth a training; None: 0.3% of what the
            uncompressed model reaches.
        hopeless: Drop in this unit, beyond what is allowed, that longer training won't win back;
            None: 3% of what the uncompressed model reaches.
        values: Function of (targets, predictions) that returns the value of each example,
            (examples,), or its row of numbers, (examples, ...). None: the task defines
            `example_values`.
        aggregate: Function of rows, (examples, ...), that returns the metric of these examples;
            None: the mean.

    Raises:
        ValueError: A number is outside its rule.
    """

    name: str
    higher_is_better: bool = True
    scale: float = 1.0
    unit: str = ""
    little: float | None = None
    hopeless: float | None = None
    values: Callable[[Any, Any], np.ndarray] | None = None
    aggregate: Callable[[np.ndarray], float] | None = None

    def __post_init__(self) -> None:
        if not 0 < self.scale < math.inf:
            raise ValueError(f"scale must be a finite number above 0, got {self.scale!r}")
        for name in ("little", "hopeless"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < math.inf:
                raise ValueError(f"{name} must be None or a finite number >= 0, got {value!r}")

    def identity(self) -> dict[str, Any]:
        """Returns what makes a metric the same, as JSON can hold it: functions by their
        names, those of the user by their code too."""
        return {
            field.name: _named(value) if callable(value := getattr(self, field.name)) else value
            for field in dataclasses.fields(self)
        }

    def value(self, values: np.ndarray) -> float:
        """Returns the metric of some examples.

        Args:
            values: Their values, (examples,), or rows, (examples, ...).
        """
        if self.aggregate is None:
            return float(values.mean())
        return float(self.aggregate(values))

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
            Rows, (examples, ...), where the metric is no mean of values.
    """

    metric: Metric
    values: np.ndarray = dataclasses.field(repr=False)

    @functools.cached_property
    def score(self) -> Score:
        """The metric with its 95% interval.

        Wilson's of a proportion, Student's of another mean, else a bootstrap over the examples.
        """
        values = self.values
        if self.metric.aggregate is not None:
            low, high = _bootstrap(lambda index: self.metric.value(values[index]), len(values))
        elif values.dtype == bool:
            low, high = wilson_interval(int(values.sum()), len(values))
        else:
            low, high = _interval(values)
        return Score(self.metric.name, self.metric.value(values), low, high, len(values))

    def minus(self, other: Assessment) -> tuple[float, float, float]:
        """Returns the difference to another assessment of the same examples.

        Args:
            other: The other assessment.

        Returns:
            The difference with its 95% interval: (value, low, high), not scaled.

        Raises:
            ValueError: The numbers of examples differ.
        """
        own, others, metric = self.values, other.values, self.metric
        if len(own) != len(others):
            raise ValueError(f"other must hold {len(own)} examples, got {len(others)}")
        if metric.aggregate is not None:
            low, high = _bootstrap(
                lambda index: metric.value(own[index]) - metric.value(others[index]), len(own)
            )
            return metric.value(own) - metric.value(others), low, high
        if own.dtype == others.dtype == bool:
            return paired_difference(own, others)
        differences = own.astype(float) - others.astype(float)
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


def checked_values(
    values: np.ndarray, metric: Metric, y: Nested, outputs: Nested, source: str
) -> np.ndarray:
    """Returns a metric's values, or rows, of some examples, if they are such.

    Args:
        values: What was computed.
        metric: The metric.
        y: The targets.
        outputs: The outputs.
        source: Who computed it, for the message.

    Raises:
        ValueError: There is not one value for each example.
        NotFinite: A value is not finite.
    """
    examples = len(leaves(y)[0])
    if values.shape[:1] != (examples,) or (values.ndim > 1 and metric.aggregate is None):
        raise ValueError(
            f"{source} must return one value for each example, of shape ({examples},), got "
            f"{values.shape}; targets are {shapes(y)} and outputs {shapes(outputs)}"
        )
    finite = finite_rows(values)
    if not finite.all():
        raise NotFinite(
            f"{metric.name} of {int((~finite).sum())} of {examples} examples is not finite"
        )
    return values


def shapes(nested: Nested) -> str:
    """Returns the shapes of nested arrays, for a message."""
    return ", ".join(str(np.shape(leaf)) for leaf in leaves(nested))


def finite_rows(values: np.ndarray) -> np.ndarray:
    """Returns whether the value or the row of each example is finite, (examples,) of bool.

    Args:
        values: Values (examples,), rows (examples, ...), or records of arrays, (examples,).
    """
    if values.dtype.names:
        parts = [finite_rows(values[name]) for name in values.dtype.names]
        return np.logical_and.reduce(parts)
    if values.dtype.kind not in "fc":
        return np.ones(len(values), bool)
    return np.isfinite(values).reshape(len(values), -1).all(axis=1)


def rows_of(parts: Sequence[np.ndarray]) -> np.ndarray:
    """Returns the values or rows of batches as one array.

    Args:
        parts: Values (examples,) or rows (examples, ...) of each batch.

    Raises:
        ValueError: Rows have another shape in one batch than in another.
    """
    if not parts:
        raise ValueError("examples must hold at least one example, got none")
    if len({(part.shape[1:], str(part.dtype.names and part.dtype)) for part in parts}) > 1:
        shapes = sorted({str(part.shape[1:]) for part in parts})
        raise ValueError(
            f"rows of a metric must have one shape in all batches, got {', '.join(shapes)}: pad "
            "targets to one shape"
        )
    return np.concatenate(parts)


def _named(function: Callable[..., Any]) -> str:
    """Returns what a function is, as it stays the same in another process.

    Two functions of the user's may have one name, as all lambdas do: their code tells them apart.
    """
    if not isinstance(function, functools.partial):
        name = getattr(function, "__qualname__", repr(type(function)))
        code = getattr(function, "__code__", None)
        if code is None or str(function.__module__).split(".")[0] == "tfnas":
            return name
        cells = [cell.cell_contents for cell in function.__closure__ or ()]
        held = [*(function.__defaults__ or ()), *cells]
        text = code_text(code) + str([each if _plain(each) else type(each) for each in held])
        return f"{name} {hashlib.sha256(text.encode()).hexdigest()[:16]}"
    arguments = [*function.args, *function.keywords.values()]
    names = [*[""] * len(function.args), *(f"{name}=" for name in function.keywords)]
    shown = [
        f"{name}{_named(each) if callable(each) else repr(each) if _plain(each) else type(each)}"
        for name, each in zip(names, arguments, strict=True)
    ]
    return f"{_named(function.func)}({', '.join(shown)})"


def _plain(value: object) -> bool:
    if isinstance(value, tuple):
        return all(map(_plain, value))
    return value is None or isinstance(value, str | int | float | bool)


def _interval(values: np.ndarray) -> tuple[float, float]:
    """Returns the 95% interval of a mean, by Student's t."""
    from scipy import stats

    mean, count = float(values.mean()), len(values)
    if count < 2:
        return -math.inf, math.inf
    half = float(stats.t.ppf(0.975, count - 1)) * float(values.std(ddof=1)) / math.sqrt(count)
    return mean - half, mean + half


def _bootstrap(value: Callable[[np.ndarray], float], examples: int) -> tuple[float, float]:
    """Returns the 95% percentile interval of a value over resampled examples.

    Resamples without a value, such as a recall without a positive example, are left out.

    Args:
        value: Function of the indices of a resample.
        examples: Number of examples.

    References:
        Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, section 13.3.
    """
    if examples < 2:  # all resamples are the same: they say nothing of the spread
        return -math.inf, math.inf
    rng = np.random.default_rng(0)
    draws = [value(rng.integers(examples, size=examples)) for _ in range(RESAMPLES)]
    finite = [each for each in draws if math.isfinite(each)]
    if not finite:
        return -math.inf, math.inf
    low, high = np.percentile(finite, [2.5, 97.5])
    return float(low), float(high)
