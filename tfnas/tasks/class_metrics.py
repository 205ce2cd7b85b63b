"""Metrics of classifiers: accuracy, top-k, F-scores, calibration error.

Each function returns a :class:`tfnas.Metric`. Outputs may have positions between the examples and
the classes, such as steps of a sequence or pixels of an image.
"""

from __future__ import annotations

import functools
from typing import Literal

import numpy as np

from tfnas.measure.accuracy import correct
from tfnas.measure.agreement import confidence_gap, probabilities
from tfnas.runtime.argument_rules import check_choice, check_count
from tfnas.tasks.assessment import Metric
from tfnas.tasks.target_forms import HALF, class_pairs, label_pairs

Average = Literal["auto", "binary", "macro", "micro", "weighted"]
_AVERAGES = ("auto", "binary", "macro", "micro", "weighted")
# Differences of shares are points; planning as for the accuracy of images.
points = functools.partial(Metric, scale=100.0, unit="points", little=0.3, hopeless=3.0)


def accuracy(
    *, threshold: float = HALF, several_labels: bool = False, ignore_class: int | None = None
) -> Metric:
    """Returns the share of right classes.

    Of one class for each example it is a proportion; of classes at several positions the mean
    over all of them.

    Example:
        >>> metric = accuracy()
        >>> scores = np.array([[0.1, 0.9], [0.8, 0.2], [0.6, 0.4]])
        >>> metric.value(metric.values(np.array([1, 0, 1]), scores))
        0.6666666666666666

    Args:
        threshold: Score above which one unit, or a label, is predicted: 0 of logits.
        several_labels: Whether each unit is a label that may hold beside others.
        ignore_class: Class at whose positions nothing is judged, such as padding; None: none.

    Returns:
        The metric; its predictions are (examples, ..., classes) or (examples, ..., 1), its
        targets class indices or one-hot rows.

    References:
        `keras.metrics.Accuracy`, `BinaryAccuracy`, `CategoricalAccuracy`.
    """
    if ignore_class is None:
        right = functools.partial(_right, threshold=threshold, several_labels=several_labels)
        return points("accuracy", values=right)
    if several_labels:
        raise ValueError(f"ignore_class must be None for several labels, got {ignore_class!r}")
    values = functools.partial(_right_kept, threshold=threshold, ignore_class=ignore_class)
    return points("accuracy", values=values, aggregate=_ratio)


def top_k(k: int = 5) -> Metric:
    """Returns the share of examples whose class is among those of the highest scores.

    Of equal scores the first classes count, as in an accuracy.

    Example:
        >>> metric = top_k(2)
        >>> scores = np.array([[0.1, 0.2, 0.7], [0.5, 0.3, 0.2]])
        >>> metric.values(np.array([1, 2]), scores)
        array([ True, False])

    Args:
        k: Number of classes.

    Returns:
        The metric; its predictions are (examples, ..., classes).

    Raises:
        ValueError: `k` is below 1.

    References:
        `keras.metrics.TopKCategoricalAccuracy`, which counts all of equal scores.
    """
    check_count("k", k, 1)
    return points(f"top-{k} accuracy", values=functools.partial(_among, k=k))


def f1(
    average: Average = "auto",
    *,
    beta: float = 1.0,
    threshold: float = HALF,
    several_labels: bool = False,
) -> Metric:
    """Returns the F1 score, the harmonic mean of precision and recall.

    Example:
        >>> metric = f1()
        >>> y, scores = np.array([0, 1, 1]), np.array([[0.2], [0.9], [0.3]])
        >>> round(metric.value(metric.values(y, scores)), 4)
        0.6667

    Args:
        average: "macro" is the mean over the classes that occur, "weighted" weights them by
            their examples, "micro" counts all together, "binary" is of class 1 alone; "auto" is
            "binary" for one unit, else "macro".
        beta: Weight of the recall; 1 of F1.
        threshold: Score above which one unit, or a label, is predicted: 0 of logits.
        several_labels: Whether each unit is a label that may hold beside others.

    Returns:
        The metric; its predictions are (examples, ..., classes) or (examples, ..., 1).

    Raises:
        ValueError: `average` is unknown, or `beta` is not above 0.

    References:
        `sklearn.metrics.fbeta_score`; `keras.metrics.F1Score`.
    """
    if not beta > 0:
        raise ValueError(f"beta must be above 0, got {beta!r}")
    name = "F1" if beta == 1 else f"F{beta:g}"
    return _counted(name, average, threshold, several_labels, beta)


def precision(
    average: Average = "auto", *, threshold: float = HALF, several_labels: bool = False
) -> Metric:
    """Returns the share of a class's predictions that are right; arguments as for :func:`f1`.

    Example:
        >>> metric = precision()
        >>> metric.value(metric.values(np.array([0, 1]), np.array([[0.7], [0.9]])))
        0.5

    Args:
        average: How the classes are averaged.
        threshold: Score above which one unit, or a label, is predicted: 0 of logits.
        several_labels: Whether each unit is a label that may hold beside others.

    Returns:
        The metric; its predictions are (examples, ..., classes) or (examples, ..., 1).

    Raises:
        ValueError: `average` is unknown.
    """
    return _counted("precision", average, threshold, several_labels, 0.0)


def recall(
    average: Average = "auto", *, threshold: float = HALF, several_labels: bool = False
) -> Metric:
    """Returns the share of a class's examples that are found; arguments as for :func:`f1`.

    Example:
        >>> metric = recall()
        >>> metric.value(metric.values(np.array([1, 1]), np.array([[0.7], [0.2]])))
        0.5

    Args:
        average: How the classes are averaged.
        threshold: Score above which one unit, or a label, is predicted: 0 of logits.
        several_labels: Whether each unit is a label that may hold beside others.

    Returns:
        The metric; its predictions are (examples, ..., classes) or (examples, ..., 1).

    Raises:
        ValueError: `average` is unknown.
    """
    return _counted("recall", average, threshold, several_labels, np.inf)


def expected_calibration_error(*, from_logits: bool | None = None) -> Metric:
    """Returns how far the probabilities of predicted classes are from the share that is right.

    Example:
        >>> metric = expected_calibration_error()
        >>> metric.value(metric.values(np.array([0, 1]), np.array([[1.0, 0.0], [1.0, 0.0]])))
        0.5

    Args:
        from_logits: Whether outputs are logits; None: where they do not sum to 1.

    Returns:
        The metric, in [0, 1], over 15 bins of equal width; lower is better.

    References:
        Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, equation 3.
    """
    values = functools.partial(_certain, from_logits=from_logits)
    return Metric(
        *("calibration error", False, 100.0, "points", 0.3, 3.0), values=values, aggregate=_gap
    )


def _counted(
    name: str, average: Average, threshold: float, several_labels: bool, beta: float
) -> Metric:
    check_choice("average", average, _AVERAGES)
    values = functools.partial(
        _counts, binary=average == "binary", threshold=threshold, several_labels=several_labels
    )
    return points(name, values=values, aggregate=functools.partial(_f, average=average, beta=beta))


def _right(
    y: np.ndarray, predictions: np.ndarray, threshold: float, several_labels: bool
) -> np.ndarray:
    """Whether each example is right, or the share of its positions that are."""
    if several_labels:
        truth, scores = label_pairs(y, predictions)
        return _shares((truth == (scores > threshold)).reshape(len(truth), -1))
    if threshold == HALF and np.ndim(predictions) == 2:
        return correct(np.asarray(y), np.asarray(predictions))
    labels, guesses, _ = class_pairs(y, predictions, threshold)
    return _shares(labels == guesses)


def _shares(right: np.ndarray) -> np.ndarray:
    """The share of each example's positions, a boolean where it has but one."""
    return right[:, 0] if right.shape[1] == 1 else right.mean(axis=1)


def _right_kept(
    y: np.ndarray, predictions: np.ndarray, threshold: float, ignore_class: int
) -> np.ndarray:
    """Numbers of right and of judged positions of each example, (examples, 2)."""
    labels, guesses, _ = class_pairs(y, predictions, threshold, ignore_class)
    kept = labels != ignore_class
    return np.stack([((labels == guesses) & kept).sum(axis=1), kept.sum(axis=1)], axis=1)


def _ratio(rows: np.ndarray) -> float:
    """Sum of the first column as a fraction of that of the second."""
    part, whole = rows.sum(axis=0).tolist()
    return part / whole if whole else float("nan")


def _among(y: np.ndarray, predictions: np.ndarray, k: int) -> np.ndarray:
    labels, _, classes = class_pairs(y, predictions)
    if k >= classes:
        raise ValueError(f"k must be below the number of classes, {classes}, got {k}")
    scores = np.reshape(predictions, (*labels.shape, classes))
    own = np.take_along_axis(scores, labels[..., None], axis=-1)
    earlier = np.arange(classes) < labels[..., None]
    before = (scores > own) | ((scores == own) & earlier)
    return _shares(before.sum(axis=-1) < k)


def _counts(
    y: np.ndarray, predictions: np.ndarray, binary: bool, threshold: float, several_labels: bool
) -> np.ndarray:
    """Right, predicted and true occurrences of each class, (examples, 3, classes)."""
    if several_labels:
        truth, scores = label_pairs(y, predictions)
        form = len(truth), -1, truth.shape[-1] if truth.ndim > 1 else 1
        truth, guessed = truth.reshape(form), (scores > threshold).reshape(form)
        found = [(truth & guessed).sum(axis=1), guessed.sum(axis=1), truth.sum(axis=1)]
        return np.stack(found, axis=1)
    labels, guesses, classes = class_pairs(y, predictions, threshold)
    one_unit = np.ndim(predictions) == 1 or np.shape(predictions)[-1] == 1
    if binary and classes != 2:
        raise ValueError(f"average must not be 'binary' for {classes} classes")
    rows = np.stack(
        [
            class_counts(np.where(labels == guesses, labels, classes), classes + 1)[:, :-1],
            class_counts(guesses, classes),
            class_counts(labels, classes),
        ],
        axis=1,
    )
    return rows[:, :, 1:] if one_unit or binary else rows


def class_counts(labels: np.ndarray, classes: int) -> np.ndarray:
    """Returns how often each class occurs in each example, (examples, classes).

    Args:
        labels: Class indices, (examples, positions).
        classes: Number of classes.
    """
    cells = labels + classes * np.arange(len(labels))[:, None]
    counts = np.bincount(cells.reshape(-1), minlength=classes * len(labels))
    return counts.reshape(len(labels), classes)


def _f(rows: np.ndarray, average: str, beta: float) -> float:
    """F-score of counts; the precision for beta 0, the recall for infinity."""
    right, guessed, true = rows.sum(axis=0).astype(float)
    if average == "micro":
        right, guessed, true = (np.sum(each, keepdims=True) for each in (right, guessed, true))
    present = guessed + true > 0
    right, guessed, true = right[present], guessed[present], true[present]
    if not len(right):
        return float("nan")
    weight = 1.0 if np.isinf(beta) else beta**2 / (1 + beta**2)
    whole = weight * true + (1 - weight) * guessed
    scores = np.divide(right, whole, out=np.zeros_like(right), where=whole > 0)
    if average == "weighted":
        return float(np.average(scores, weights=true)) if true.any() else float("nan")
    return float(scores.mean())


def _certain(y: np.ndarray, predictions: np.ndarray, from_logits: bool | None) -> np.ndarray:
    """Confidence and rightness at each position, (examples, positions, 2)."""
    labels, _, _ = class_pairs(y, predictions)
    units = 1 if np.ndim(predictions) == 1 else np.shape(predictions)[-1]
    shares = probabilities(np.reshape(predictions, (-1, units)), from_logits)
    right = shares.argmax(axis=-1) == labels.reshape(-1)
    return np.stack([shares.max(axis=-1), right], axis=-1).reshape(*labels.shape, 2)


def _gap(rows: np.ndarray) -> float:
    flat = rows.reshape(-1, 2)
    return confidence_gap(flat[:, 0], flat[:, 1] > HALF)
