"""Metrics of the ranks of scores: the area under the ROC curve, the average precision."""

from __future__ import annotations

import functools
from typing import Literal

import numpy as np

from tfnas.runtime.argument_rules import check_choice
from tfnas.tasks.assessment import Metric
from tfnas.tasks.class_metrics import points
from tfnas.tasks.target_forms import HALF, class_pairs, label_pairs


def auc(
    curve: Literal["ROC", "PR"] = "ROC",
    *,
    average: Literal["macro", "micro"] = "macro",
    several_labels: bool = False,
) -> Metric:
    """Returns the area under the ROC curve, or the average precision.

    Both are exact, not of some thresholds. Of several classes each is compared with the rest.

    Example:
        >>> metric = auc()
        >>> y, scores = np.array([0, 0, 1, 1]), np.array([[0.1], [0.4], [0.35], [0.8]])
        >>> metric.value(metric.values(y, scores))
        0.75

    Args:
        curve: "ROC", or "PR": the average precision.
        average: "macro": the mean over classes; "micro": of all classes as one problem.
        several_labels: Whether each unit is a label that may hold beside others.

    Returns:
        The metric; its predictions are (examples, ..., classes) or (examples, ..., 1).

    Raises:
        ValueError: `curve` or `average` is unknown.

    References:
        Fawcett, "An introduction to ROC analysis", 2006, section 7; `sklearn.metrics.roc_auc_score`
        and `average_precision_score`.
    """
    check_choice("curve", curve, ("ROC", "PR"))
    check_choice("average", average, ("macro", "micro"))
    values = functools.partial(_columns, several_labels=several_labels)
    area = functools.partial(_area, curve=curve, average=average)
    return points("AUC" if curve == "ROC" else "PR AUC", values=values, aggregate=area)


def _columns(y: np.ndarray, predictions: np.ndarray, several_labels: bool) -> np.ndarray:
    """Truth and score of each class at each position, (examples, positions, 2, classes)."""
    if several_labels:
        truth, scores = label_pairs(y, predictions)
        classes = truth.shape[-1] if truth.ndim > 1 else 1
    else:
        labels, _, classes = class_pairs(y, predictions)
        scores = np.asarray(predictions)
        if classes == 2:  # one problem, not two that are each other's mirror image
            truth, scores, classes = labels == 1, scores.reshape(*labels.shape, -1)[..., -1], 1
        else:
            truth = labels[..., None] == np.arange(classes)
    form = len(truth), -1, classes
    pair = [np.reshape(each, form).astype(np.float32) for each in (truth, scores)]
    return np.stack(pair, axis=2)


def _area(rows: np.ndarray, curve: str, average: str) -> float:
    both = np.moveaxis(rows, 2, 0)  # (2, examples, positions, classes)
    form = (-1, 1) if average == "micro" else (-1, both.shape[-1])
    truth, scores = both[0].reshape(form) > HALF, both[1].reshape(form)
    area = _roc_area if curve == "ROC" else _average_precision
    # A class without examples, or without others, has no curve.
    found = [
        area(column, scores[:, n])
        for n, column in enumerate(truth.T)
        if column.any() and not column.all()
    ]
    return float(np.mean(found)) if found else float("nan")


def _roc_area(truth: np.ndarray, scores: np.ndarray) -> float:
    """Probability that a positive example scores above a negative one; ties count half."""
    from scipy.stats import rankdata

    positive = int(truth.sum())
    ranks = rankdata(scores)[truth].sum() - positive * (positive + 1) / 2
    return float(ranks / (positive * (len(truth) - positive)))


def _average_precision(truth: np.ndarray, scores: np.ndarray) -> float:
    """Mean precision over the steps of recall, at each threshold."""
    order = np.argsort(-scores, kind="stable")
    hits = np.cumsum(truth[order])
    last = np.r_[np.flatnonzero(np.diff(scores[order])), len(order) - 1]  # of equal scores
    precision_at, recall_at = hits[last] / (last + 1), hits[last] / hits[-1]
    return float(np.sum(np.diff(recall_at, prepend=0.0) * precision_at))
