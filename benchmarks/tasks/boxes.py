"""Boxes from the grid of a detector, and how good they are; NumPy, for a model and its file alike.

Detections are arrays of shape (images, 100, 6): class, score, x0, y0, x1, y1, best first; NaN
is padding.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

MOST = 30  # boxes of an image
KEPT = 100  # detections of an image
SIZE = 0.1  # share of the image whose logarithm is 0
LEAST = 0.05  # score
OVERLAP = 0.5  # of two detections of one class: the worse one is dropped


def decode(outputs: Mapping[str, np.ndarray]) -> np.ndarray:
    """Returns the detections of images.

    Args:
        outputs: "scores", logits (images, rows, columns, classes), and "boxes", (images, rows,
            columns, 4), of `blood_cells.Detector`.
    """
    scores = 1 / (1 + np.exp(-np.asarray(outputs["scores"], np.float64)))
    boxes = np.asarray(outputs["boxes"], np.float64)
    rows, columns = scores.shape[1:3]
    x = (np.arange(columns)[None, :] + boxes[..., 0]) / columns
    y = (np.arange(rows)[:, None] + boxes[..., 1]) / rows
    width, height = (SIZE * np.exp(np.minimum(boxes[..., i], 3.0)) / 2 for i in (2, 3))
    corners = np.stack([x - width, y - height, x + width, y + height], axis=-1)
    return np.stack([_of_image(*each) for each in zip(scores, corners, strict=True)])


def _of_image(scores: np.ndarray, corners: np.ndarray) -> np.ndarray:
    """Returns the detections of one image: (100, 6)."""
    row, column, kind = np.nonzero(scores >= LEAST)
    score = scores[row, column, kind]
    order = np.argsort(-score, kind="stable")
    found = np.column_stack([kind, score, corners[row, column]])[order]
    kept: list[np.ndarray] = []
    for each in found:
        same = [other for other in kept if other[0] == each[0]]
        if not same or overlap(each[None, 2:], np.array(same)[:, 2:]).max() < OVERLAP:
            kept.append(each)
        if len(kept) == KEPT:
            break
    result = np.full((KEPT, 6), np.nan)
    if kept:
        result[: len(kept)] = kept
    return result


def overlap(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Returns the intersection over union of each pair of boxes: (first boxes, second boxes).

    Example:
        >>> overlap(np.array([[0.0, 0.0, 0.5, 1.0]]), np.array([[0.0, 0.0, 1.0, 1.0]]))
        array([[0.5]])

    Args:
        first: Boxes, (boxes, 4): x0, y0, x1, y1.
        second: Boxes.
    """
    low = np.maximum(first[:, None, :2], second[None, :, :2])
    high = np.minimum(first[:, None, 2:], second[None, :, 2:])
    both = np.prod(np.maximum(high - low, 0), axis=-1)
    areas = [np.prod(each[:, 2:] - each[:, :2], axis=-1) for each in (first, second)]
    return both / np.maximum(areas[0][:, None] + areas[1][None, :] - both, 1e-12)


def mean_average_precision(
    y: np.ndarray, detections: np.ndarray, classes: int, least_overlap: float = 0.5
) -> float:
    """Returns the mean over the classes of the area under precision and recall.

    As in Pascal VOC since 2010: all points, precision made monotonous. A box is found once; classes
    without a box are left out.

    Args:
        y: True boxes, (images, boxes, 5): class, x0, y0, x1, y1; class -1 is padding.
        detections: The result of `decode`.
        classes: Number of classes.
        least_overlap: Intersection over union from which a box is found.
    """
    values = []
    for kind in range(classes):
        truths = [each[each[:, 0] == kind, 1:] for each in y]
        total = sum(map(len, truths))
        if not total:
            continue
        scores, hits = [], []
        for truth, found in zip(truths, detections, strict=True):
            found = found[found[:, 0] == kind]
            scores.append(found[:, 1])
            hits.append(_hits(truth, found[:, 2:], least_overlap))
        values.append(_area(np.concatenate(scores), np.concatenate(hits), total))
    return float(np.mean(values))


def _hits(truth: np.ndarray, found: np.ndarray, least: float) -> np.ndarray:
    """Returns which detections of one class in one image, best first, find a new box."""
    hits = np.zeros(len(found), dtype=bool)
    if not len(truth):
        return hits
    overlaps = overlap(found, truth)
    free = np.ones(len(truth), dtype=bool)
    for index, row in enumerate(overlaps):
        best = int(np.argmax(row))
        if row[best] >= least and free[best]:
            hits[index], free[best] = True, False
    return hits


def _area(scores: np.ndarray, hits: np.ndarray, total: int) -> float:
    """Returns the area under precision over recall."""
    hits = hits[np.argsort(-scores, kind="stable")]
    right = np.cumsum(hits)
    precision = right / np.arange(1, len(hits) + 1)
    precision = np.maximum.accumulate(precision[::-1])[::-1]
    return float(precision[hits].sum() / total)
