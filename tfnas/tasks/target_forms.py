"""Targets and predictions of classes and numbers, brought into one form."""

from __future__ import annotations

import numpy as np

from tfnas.measure.accuracy import check_classes, check_numbers
from tfnas.tasks.assessment import NotFinite

HALF = 0.5  # of a probability: above it a class is predicted


def checked(y: np.ndarray, predictions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns targets and predictions as arrays of as many examples.

    Args:
        y: Targets, (examples, ...).
        predictions: Predictions, (examples, ...).

    Raises:
        ValueError: The numbers of examples differ, or these are no arrays of numbers.
        NotFinite: A prediction is NaN.
    """
    if isinstance(y, dict | list | tuple) or isinstance(predictions, dict | list | tuple):
        y, predictions = _alone(y, "y"), _alone(predictions, "predictions")
    y, predictions = np.asarray(y), np.asarray(predictions)
    check_numbers(y)
    if not (y.ndim and predictions.ndim and len(y) == len(predictions)):
        raise ValueError(
            f"y must hold one target per example, got targets {y.shape} and predictions "
            f"{predictions.shape}"
        )
    if predictions.dtype.kind == "f" and np.isnan(predictions).any():
        raise NotFinite("predictions must be numbers, got NaN")
    return y, predictions


def _alone(nested: object, what: str) -> np.ndarray:
    parts = list(nested.values()) if isinstance(nested, dict) else nested
    if not isinstance(parts, list | tuple):
        return np.asarray(parts)
    if len(parts) == 1:
        return np.asarray(parts[0])
    if any(isinstance(part, dict | list | tuple) or np.ndim(part) for part in parts):
        raise ValueError(
            f"{what} must be of one output, got {len(parts)}: give a dictionary of metrics by "
            "output name"
        )
    return np.asarray(parts)


def class_pairs(
    y: np.ndarray,
    predictions: np.ndarray,
    threshold: float = HALF,
    ignore_class: int | None = None,
) -> tuple[np.ndarray, np.ndarray, int]:
    """Returns the true and the predicted class at each position, and the number of classes.

    Example:
        >>> scores = np.array([[0.1, 0.7, 0.2], [0.5, 0.3, 0.2]])
        >>> class_pairs(np.array([1, 2]), scores)
        (array([[1],
               [2]]), array([[1],
               [0]]), 3)

    Args:
        y: Class indices (examples, ...) or (examples, ..., 1), or one-hot
            (examples, ..., classes); 0 or 1 where there is one unit.
        predictions: Scores, (examples, ..., classes), or (examples, ..., 1) of one unit.
        threshold: Score of one unit above which class 1 is predicted.
        ignore_class: Class that need not be one of the model's; None: there is none.

    Returns:
        Class indices (examples, positions) of both, and the number of classes.

    Raises:
        ValueError: The shapes do not fit, or a class is none of the predictions'.
    """
    y, predictions = checked(y, predictions)
    if predictions.ndim == 1:
        predictions = predictions[:, None]
    units = predictions.shape[-1]
    labels = class_labels(y, predictions.shape)
    flat = len(y), -1
    if units == 1:
        guesses, labels = predictions[..., 0] > threshold, labels > HALF
        return labels.reshape(flat).astype(int), guesses.reshape(flat).astype(int), 2
    labels = labels.reshape(flat).astype(int)
    check_classes(labels if ignore_class is None else labels[labels != ignore_class], units)
    return labels, predictions.argmax(-1).reshape(flat), units


def class_labels(y: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Returns class indices at each position, of targets in any form.

    Args:
        y: Class indices (examples, ...) or (examples, ..., 1), or one-hot rows.
        shape: Shape of the scores, (examples, ..., classes).

    Returns:
        Class indices, (examples, ...), without the axis of classes.

    Raises:
        ValueError: The shapes do not fit.
    """
    if y.shape == shape and shape[-1] > 1:
        return y.argmax(axis=-1)
    if y.shape == (*shape[:-1], 1):
        return y[..., 0]
    if y.shape != shape[:-1]:
        raise ValueError(
            f"y must hold class indices or one-hot rows, got the shape {y.shape} for predictions "
            f"{shape}"
        )
    return y


def label_pairs(y: np.ndarray, predictions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns targets and scores of several labels that hold or not, each for itself.

    Args:
        y: 0 or 1 for each label, (examples, ..., labels).
        predictions: Scores of the same shape.

    Returns:
        Both, as booleans and numbers of one shape.

    Raises:
        ValueError: The shapes differ, or a target is neither 0 nor 1.
    """
    y, predictions = checked(y, predictions)
    y, predictions = same_shape(y, predictions)
    if not np.isin(y, (0, 1)).all():
        wrong = y[~np.isin(y, (0, 1))][0]
        raise ValueError(f"y must hold 0 or 1 for each label, got {wrong}")
    return y > HALF, predictions


def same_shape(y: np.ndarray, predictions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns targets and predictions of one shape; axes of length 1 at the end may differ.

    Example:
        >>> [each.shape for each in same_shape(np.zeros(5), np.zeros((5, 1)))]
        [(5,), (5,)]

    Args:
        y: Targets, (examples, ...).
        predictions: Predictions, (examples, ...).

    Raises:
        ValueError: The shapes differ otherwise.
    """
    y, predictions = checked(y, predictions)
    short = [_without_ones(array) for array in (y, predictions)]
    if short[0].shape != short[1].shape:
        raise ValueError(
            f"y must have the shape of the predictions, {predictions.shape}, got {y.shape}"
        )
    return short[0], short[1]


def _without_ones(array: np.ndarray) -> np.ndarray:
    while array.ndim > 1 and array.shape[-1] == 1:
        array = array[..., 0]
    return array
