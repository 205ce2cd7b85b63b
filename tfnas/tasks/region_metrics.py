"""Mean intersection over union: the metric of segmentations."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np

from tfnas.measure.accuracy import check_classes
from tfnas.runtime.argument_rules import check_count
from tfnas.tasks.assessment import Metric
from tfnas.tasks.class_metrics import class_counts, points
from tfnas.tasks.target_forms import HALF, checked, class_pairs


def mean_iou(
    num_classes: int | None = None,
    *,
    target_class_ids: Sequence[int] | None = None,
    ignore_class: int | None = None,
    threshold: float = HALF,
) -> Metric:
    """Returns the intersection over union of the pixels of each class, averaged over classes.

    Intersections and unions are summed over the images first. Classes that are neither true nor
    predicted anywhere are left out.

    Example:
        >>> metric = mean_iou()
        >>> y = np.array([[[0, 1]]])  # one image of 1x2 pixels
        >>> scores = np.array([[[[0.9, 0.1], [0.8, 0.2]]]])
        >>> metric.value(metric.values(y, scores))
        0.25

    Args:
        num_classes: Number of classes; None: as many as there are scores. Needed where
            predictions are classes, (images, height, width), rather than scores.
        target_class_ids: Classes that are averaged; None: all.
        ignore_class: Class of pixels that are not judged, such as "void"; None: none.
        threshold: Score above which one unit is class 1: 0 of logits.

    Returns:
        The metric; its predictions are (images, height, width, classes), or one unit, and its
        targets class indices (images, height, width) or one-hot.

    Raises:
        ValueError: A number is outside its rule.

    References:
        `keras.metrics.MeanIoU`.
    """
    check_count("num_classes", num_classes, 2, optional=True)
    wanted = None if target_class_ids is None else tuple(int(each) for each in target_class_ids)
    if wanted is not None and (not wanted or min(wanted) < 0):
        raise ValueError(f"target_class_ids must hold classes >= 0, got {target_class_ids!r}")
    values = functools.partial(
        _overlaps, num_classes=num_classes, ignore_class=ignore_class, threshold=threshold
    )
    mean = functools.partial(_mean, classes=wanted)
    return points("mean IoU", values=values, aggregate=mean)


def _overlaps(
    y: np.ndarray,
    predictions: np.ndarray,
    num_classes: int | None,
    ignore_class: int | None,
    threshold: float,
) -> np.ndarray:
    """Pixels in the intersection and in the union of each class, (images, 2, classes)."""
    y, predictions = checked(y, predictions)
    labels, guesses, classes = _pixels(y, predictions, num_classes, ignore_class, threshold)
    kept = np.ones(labels.shape, bool) if ignore_class is None else labels != ignore_class
    check_classes(labels[kept], classes)
    check_classes(guesses, classes, "predictions")
    # Pixels that do not count are of one class more, which is cut off.
    labels, guesses = np.where(kept, labels, classes), np.where(kept, guesses, classes)
    both = np.where(labels == guesses, labels, classes)
    hits, true, guessed = (
        class_counts(each, classes + 1)[:, :-1] for each in (both, labels, guesses)
    )
    return np.stack([hits, true + guessed - hits], axis=1)


def _pixels(
    y: np.ndarray,
    predictions: np.ndarray,
    num_classes: int | None,
    ignore_class: int | None,
    threshold: float,
) -> tuple[np.ndarray, np.ndarray, int]:
    """True and predicted classes, (images, pixels), and the number of classes."""
    whole = predictions.dtype.kind in "iub" or num_classes is not None
    units = predictions.shape[-1]
    # An image as wide as there are classes has the size of one-hot rows.
    if whole and y.size == predictions.size and units != 1 and not _is_one_hot(y, num_classes):
        if num_classes is None:
            raise ValueError("num_classes must be given where predictions are classes, got None")
        flat = len(y), -1
        guesses = predictions.reshape(flat).astype(int)
        return y.reshape(flat).astype(int), guesses, num_classes
    labels, guesses, classes = class_pairs(y, predictions, threshold, ignore_class)
    if num_classes not in (None, classes):
        raise ValueError(
            f"num_classes must be None or the number of scores, {classes}, got {num_classes}"
        )
    return labels, guesses, classes


def _is_one_hot(y: np.ndarray, classes: int | None) -> bool:
    """Whether targets are rows of one 1 and zeros, one number for each class."""
    rows = y.reshape(-1, y.shape[-1])
    return y.shape[-1] == classes and bool(
        np.all((rows == 0) | (rows == 1)) and np.all(rows.sum(axis=-1) == 1)
    )


def _mean(rows: np.ndarray, classes: tuple[int, ...] | None) -> float:
    hits, unions = rows.sum(axis=0).astype(float)
    if classes is not None:
        if max(classes) >= len(hits):
            raise ValueError(
                f"target_class_ids must be below the number of classes, {len(hits)}, got "
                f"{max(classes)}"
            )
        hits, unions = hits[list(classes)], unions[list(classes)]
    present = unions > 0
    return float(np.mean(hits[present] / unions[present])) if present.any() else float("nan")
