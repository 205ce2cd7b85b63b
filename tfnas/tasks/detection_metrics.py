"""Mean average precision: the metric of object detectors."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Literal

import numpy as np

from tfnas.runtime.argument_rules import check_count
from tfnas.tasks.assessment import Metric
from tfnas.tasks.class_metrics import points

COCO = tuple(np.round(np.arange(0.5, 1.0, 0.05), 2).tolist())  # thresholds of overlap
_RECALLS = np.linspace(0, 1, 101)  # at which COCO reads the precision
_FOUND, _TRUE = 1.0, 2.0  # kinds of rows; 0 is no object


def mean_average_precision(
    iou: float | Sequence[float] | Literal["coco"] = 0.5, *, max_detections: int = 100
) -> Metric:
    """Returns the average precision of detected boxes, averaged over classes and overlaps.

    A task's `postprocess` decodes a model's outputs to boxes, with non-maximum suppression; it is
    the same for a Keras model and for its file.

    Example:
        >>> metric = mean_average_precision()
        >>> y = np.array([[[0, 10, 10, 20, 20], [1, 0, 0, 5, 5]]])  # one image, two boxes
        >>> found = [np.array([[0, 0.9, 11, 10, 20, 20]])]  # one of them
        >>> metric.value(metric.values(y, found))
        0.5

    Args:
        iou: Overlap, as intersection over union, from which a box is right; several: their mean;
            "coco": 0.5, 0.55, ..., 0.95.
        max_detections: Number of an image's boxes that count, those of the highest scores.

    Returns:
        The metric. Its predictions are, for each image, boxes (boxes, 6) of
        (class, score, x0, y0, x1, y1), or all in one array (images, boxes, 6) where NaN fills up;
        its targets (images, boxes, 5) of (class, x0, y0, x1, y1), where NaN or -1 fills up.
        "Crowds" and difficult boxes are as others.

    Raises:
        ValueError: An argument is outside its rule.

    References:
        Lin et al., "Microsoft COCO", ECCV 2014: precision at 101 recalls, greedy by score.
    """
    overlaps = COCO if isinstance(iou, str) else tuple(np.atleast_1d(iou).tolist())
    if (isinstance(iou, str) and iou != "coco") or not all(0 < each <= 1 for each in overlaps):
        raise ValueError(f"iou must be numbers above 0 and up to 1, or 'coco', got {iou!r}")
    check_count("max_detections", max_detections, 1)
    span = f"{overlaps[0]:g}" + (f":{overlaps[-1]:g}" if len(overlaps) > 1 else "")
    values = functools.partial(_matches, overlaps=overlaps, most=max_detections)
    return points(f"mAP@{span}", values=values, aggregate=_mean_precision)


def boxes_in_one_array(boxes: Sequence[np.ndarray] | np.ndarray, most: int) -> np.ndarray:
    """Returns the boxes of the highest scores of each image, by falling score.

    Args:
        boxes: For each image (boxes, 6), or (images, boxes, 6) where NaN fills up.
        most: Number of boxes that are kept.

    Returns:
        Boxes (images, most, 6); NaN fills up.

    Raises:
        ValueError: They have another form.
    """
    filled = np.full((len(boxes), most, 6), np.nan)
    for image, found in zip(filled, boxes, strict=True):
        found = np.asarray(found, np.float64)
        if found.size == 0:
            continue
        if found.ndim != 2 or found.shape[1] != 6:
            raise ValueError(
                "predictions must hold boxes (class, score, x0, y0, x1, y1) of each image, got an "
                f"array of shape {found.shape}"
            )
        found = found[~np.isnan(found[:, :2]).any(axis=1)]
        found = found[np.argsort(-found[:, 1], kind="stable")][:most]
        image[: len(found)] = found
    return filled


def overlaps_of(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Returns the intersection over union of each box with each other box.

    Example:
        >>> overlaps_of(np.array([[0, 0, 2, 2]]), np.array([[1, 0, 3, 2], [5, 5, 6, 6]])).round(2)
        array([[0.33, 0.  ]])

    Args:
        one: Boxes (..., boxes, 4) of (x0, y0, x1, y1).
        other: Boxes (..., others, 4).

    Returns:
        Overlaps, (..., boxes, others); NaN where a box holds NaN.
    """
    one, other = one[..., :, None, :], other[..., None, :, :]
    low, high = np.maximum(one[..., :2], other[..., :2]), np.minimum(one[..., 2:], other[..., 2:])
    both = np.prod(np.maximum(high - low, 0), axis=-1)
    areas = [np.prod(np.maximum(box[..., 2:] - box[..., :2], 0), axis=-1) for box in (one, other)]
    union = areas[0] + areas[1] - both
    return np.divide(both, union, out=np.zeros_like(both), where=union != 0)


def _matches(
    y: np.ndarray, predictions: Sequence[np.ndarray], overlaps: tuple[float, ...], most: int
) -> np.ndarray:
    """Boxes that were found and boxes that are true, (images, most + boxes, 3 + overlaps).

    The columns: kind, class, score, and for each threshold whether the box is right.
    """
    y = np.asarray(y, np.float64)
    if y.ndim != 3 or y.shape[2] != 5 or len(y) != len(predictions):
        raise ValueError(
            f"y must hold boxes (class, x0, y0, x1, y1) of each of {len(predictions)} images, got "
            f"the shape {y.shape}"
        )
    found = boxes_in_one_array(predictions, most)
    real = ~(np.isnan(y[:, :, 0]) | (y[:, :, 0] < 0))
    y = np.where(real[..., None], y, np.nan)
    rows = np.zeros((len(y), most + y.shape[1], 3 + len(overlaps)), np.float32)
    there = ~np.isnan(found[:, :, 0])
    rows[:, :most, 0] = np.where(there, _FOUND, 0)
    rows[:, :most, 1:3] = np.where(there[..., None], found[:, :, :2], 0)
    rows[:, :most, 3:] = _right(found, y, np.array(overlaps))
    rows[:, most:, 0] = np.where(real, _TRUE, 0)
    rows[:, most:, 1] = np.where(real, y[:, :, 0], 0)
    return rows


def _right(found: np.ndarray, y: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """Whether each box found is right, (images, boxes, thresholds): greedy, by falling score."""
    images, boxes = found.shape[:2]
    right = np.zeros((images, boxes, len(thresholds)), bool)
    if not y.shape[1]:
        return right
    iou = overlaps_of(found[:, :, 2:], y[:, :, 1:])
    same = found[:, :, None, 0] == y[:, None, :, 0]  # NaN is equal to nothing
    iou = np.where(same, np.nan_to_num(iou), -1.0)
    free = np.ones((images, len(thresholds), y.shape[1]), bool)
    for box in range(boxes):
        if np.isnan(found[:, box, 0]).all():
            break
        candidates = np.where(free, iou[:, box, None, :], -1.0)
        best = candidates.argmax(axis=2)[..., None]
        hit = np.take_along_axis(candidates, best, axis=2)[..., 0] >= thresholds - 1e-9
        right[:, box] = hit
        taken = np.take_along_axis(free, best, axis=2) & ~hit[..., None]
        np.put_along_axis(free, best, taken, axis=2)
    return right


def _mean_precision(rows: np.ndarray) -> float:
    rows = rows.reshape(-1, rows.shape[-1])
    found, true = rows[rows[:, 0] == _FOUND], rows[rows[:, 0] == _TRUE]
    found = found[np.argsort(-found[:, 2], kind="stable")]
    classes, counts = np.unique(true[:, 1], return_counts=True)
    if not len(classes):
        return float("nan")
    scores = [
        _average_precisions(found[found[:, 1] == each, 3:], int(count))
        for each, count in zip(classes, counts, strict=True)
    ]
    return float(np.mean(scores))


def _average_precisions(right: np.ndarray, boxes: int) -> np.ndarray:
    """Average precision of a class at each threshold.

    Args:
        right: Whether each box found is right, by falling score, (found, thresholds).
        boxes: Number of true boxes.
    """
    hits = np.cumsum(right, axis=0)
    precision = hits / np.arange(1, len(right) + 1)[:, None]
    precision = np.maximum.accumulate(precision[::-1], axis=0)[::-1]
    recall = hits / boxes
    found = np.zeros(right.shape[1])
    for n in range(right.shape[1]):
        at = np.searchsorted(recall[:, n], _RECALLS - 1e-9)
        found[n] = precision[at[at < len(right)], n].sum() / len(_RECALLS)
    return found
