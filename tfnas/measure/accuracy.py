"""The quality of predictions, with a 95% interval, and paired differences."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from tfnas.keras_private import metric_function
from tfnas.measure.measurement import Score

Judge = str | Callable[[Any, Any], Any]
_Z95 = 1.959963984540054
_RESAMPLES = 1000


def score(y_true: Any, y_pred: Any, metric: Judge = "accuracy") -> Score:
    """Computes a metric of predictions, with its 95% interval.

    Example:
        >>> score(np.array([0, 1]), np.array([[0.9, 0.1], [0.2, 0.8]])).value
        1.0

    Args:
        y_true: Targets, as for :func:`tfnas.evaluate`.
        y_pred: Predictions, (examples, classes) for "accuracy"; lists with several outputs.
        metric: "accuracy", the name of a metric of `keras.metrics`, or a function of
            (y_true, y_pred) that returns one value per example or one value in all.

    Raises:
        ValueError: Targets do not fit the predictions, or the metric is unknown.
    """
    if metric == "accuracy":
        right = correct(np.asarray(y_true), np.asarray(y_pred))
        low, high = wilson_interval(int(right.sum()), len(right))
        return Score("accuracy", float(right.mean()), low, high, len(right))
    function, name = _metric_function(metric)
    values = np.asarray(function(y_true, y_pred), np.float64)
    examples = len(_first(y_true))
    rng = np.random.default_rng(0)
    if values.shape[:1] == (examples,) and values.ndim:
        per_example = values.reshape(examples, -1).mean(axis=1)
        draws = [rng.choice(per_example, examples).mean() for _ in range(_RESAMPLES)]
    else:
        if values.ndim:
            raise ValueError(
                f"metric {name!r} must return one value, or one value per example, got an array of "
                f"shape {values.shape}"
            )
        picks = (rng.integers(examples, size=examples) for _ in range(_RESAMPLES // 5))
        draws = [float(np.asarray(function(_take(y_true, i), _take(y_pred, i)))) for i in picks]
    low, high = np.percentile(draws, [2.5, 97.5])
    return Score(name, float(values.mean()), float(low), float(high), examples)


def wilson_interval(successes: int, trials: int) -> tuple[float, float]:
    """Returns the 95% interval of a proportion.

    Example:
        >>> [round(end, 4) for end in wilson_interval(90, 100)]
        [0.8256, 0.9448]

    Args:
        successes: Number of successes.
        trials: Number of trials, at least 1.

    References:
        Wilson, "Probable Inference", JASA 1927.
    """
    proportion = successes / trials
    denominator = 1 + _Z95**2 / trials
    center = (proportion + _Z95**2 / (2 * trials)) / denominator
    half = (
        _Z95
        / denominator
        * math.sqrt(proportion * (1 - proportion) / trials + (_Z95 / (2 * trials)) ** 2)
    )
    return max(0.0, center - half), min(1.0, center + half)


def paired_difference(right_a: np.ndarray, right_b: np.ndarray) -> tuple[float, float, float]:
    """Returns the accuracy of model a minus that of model b on the same examples.

    Example:
        >>> paired_difference(np.array([True, True]), np.array([True, False]))[0]
        0.5

    Args:
        right_a: Whether model a is right, (examples,) of bool.
        right_b: Whether model b is right, (examples,) of bool.

    Returns:
        The difference with its 95% interval: (value, low, high).

    Raises:
        ValueError: The shapes differ.

    References:
        Agresti and Min, "Simple improved confidence intervals for comparing matched
        proportions", 2005: Wald's interval with half an example added to each cell.
    """
    if right_a.shape != right_b.shape:
        raise ValueError(f"right_b must have the shape {right_a.shape}, got {right_b.shape}")
    n = len(right_a) + 2
    gained = float((right_a & ~right_b).sum()) + 0.5
    lost = float((~right_a & right_b).sum()) + 0.5
    center = (gained - lost) / n
    half = _Z95 * math.sqrt(gained + lost - (gained - lost) ** 2 / n) / n
    return float(right_a.mean() - right_b.mean()), center - half, center + half


def correct(y_true: np.ndarray, y_pred: np.ndarray) -> np.ndarray:
    """Returns whether each example's predicted class is the true one, (examples,) of bool.

    Args:
        y_true: Class indices (n,) or (n, 1), or one-hot rows (n, classes).
        y_pred: Predictions (n, classes), or (n, 1) of a binary model with a threshold of 0.5.

    Raises:
        ValueError: The shapes do not fit, or a class is none of the predictions'.
    """
    check_numbers(y_true)
    if y_pred.ndim != 2 or len(y_true) != len(y_pred):
        raise ValueError(
            "y must hold one target per example and predictions must have the shape "
            f"(examples, classes), got targets {y_true.shape} and predictions {y_pred.shape}"
        )
    if y_true.ndim == 2 and y_true.shape[1] == y_pred.shape[1] > 1:
        y_true = y_true.argmax(axis=1)
    if y_true.size != len(y_pred):
        raise ValueError(f"y must hold class indices or one-hot rows, got the shape {y_true.shape}")
    labels = y_true.reshape(-1)
    if y_pred.shape[1] == 1:
        return (y_pred[:, 0] > 0.5) == (labels > 0.5)
    check_classes(labels, y_pred.shape[1])
    return y_pred.argmax(axis=1) == labels


def check_classes(labels: np.ndarray, classes: int, what: str = "y") -> None:
    """Checks that classes are among those of a model.

    Args:
        labels: Class indices.
        classes: Number of classes.
        what: Name of the argument, for the message.

    Raises:
        ValueError: A class is not.
    """
    if labels.size and not 0 <= labels.min() <= labels.max() < classes:
        wrong = labels[(labels < 0) | (labels >= classes)][0]
        raise ValueError(
            f"{what} must hold classes from 0 to {classes - 1}, got {wrong}; ignore_class leaves "
            "out one that stands for nothing"
        )


def check_numbers(y: np.ndarray, what: str = "y") -> None:
    """Checks that targets are numbers, not names of classes.

    Args:
        y: Targets.
        what: Name of the argument, for the message.

    Raises:
        ValueError: They are texts.
    """
    first = y.reshape(-1)[0] if y.dtype.kind in "OSU" and y.size else None
    if isinstance(first, str | bytes):
        raise ValueError(
            f"{what} must hold numbers, got texts such as {str(first)!r}: give the number of each "
            "class, in the order of the model's outputs"
        )


def _metric_function(metric: Judge) -> tuple[Callable[[Any, Any], Any], str]:
    if callable(metric):
        return metric, getattr(metric, "__name__", type(metric).__name__)
    import keras

    try:
        found: Any = keras.metrics.get(metric)
    except ValueError as error:
        raise ValueError(f"metric must be a metric of keras.metrics, got {metric!r}") from error
    function = metric_function(found)

    def values(y_true: Any, y_pred: Any) -> Any:
        if isinstance(function, keras.metrics.Metric):
            function.reset_state()  # a metric accumulates: each resample starts anew
        return keras.ops.convert_to_numpy(function(y_true, y_pred))

    return values, metric


def _first(item: Any) -> Any:
    if isinstance(item, dict):
        return next(iter(item.values()))
    return item[0] if isinstance(item, list | tuple) else item


def _take(item: Any, index: np.ndarray) -> Any:
    if isinstance(item, dict):
        return {key: value[index] for key, value in item.items()}
    if isinstance(item, list | tuple):
        return type(item)(value[index] for value in item)
    return np.asarray(item)[index]
