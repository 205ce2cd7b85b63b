"""Mean average precision beside a slow computation of the definition, and cases by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfnas.tasks.assessment import Assessment
from tfnas.tasks.detection_metrics import COCO, mean_average_precision


def value(metric, y, predictions):
    return metric.value(metric.values(y, predictions))


def iou(a, b):
    wide, high = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    both = max(wide, 0) * max(high, 0)
    area = lambda box: (box[2] - box[0]) * (box[3] - box[1])  # noqa: E731
    return both / (area(a) + area(b) - both)


def slow(y, predictions, thresholds):
    """The definition in loops: greedy matching by score, precision read at 101 recalls."""
    found = []
    for threshold in thresholds:
        for kind in sorted({int(box[0]) for image in y for box in image if box[0] >= 0}):
            marks, boxes = [], 0
            for image, guesses in zip(y, predictions, strict=True):
                true = [box[1:] for box in image if box[0] == kind]
                boxes += len(true)
                for guess in sorted(guesses, key=lambda guess: -guess[1]):
                    if guess[0] != kind:
                        continue
                    best = max(range(len(true)), key=lambda n: iou(guess[2:], true[n]), default=-1)
                    hit = best >= 0 and iou(guess[2:], true[best]) >= threshold
                    if hit:
                        true.pop(best)
                    marks.append((guess[1], hit))
            marks.sort(key=lambda mark: -mark[0])
            hits, curve = 0, []
            for n, (_, hit) in enumerate(marks):
                hits += hit
                curve.append((hits / boxes, hits / (n + 1)))
            precisions = [
                max((p for r, p in curve if r >= at / 100 - 1e-9), default=0) for at in range(101)
            ]
            found.append(np.mean(precisions))
    return np.mean(found)


def scene(seed, images=4, boxes=5, classes=3):
    """Targets, and predictions near them or anywhere, with all scores different."""
    rng = np.random.default_rng(seed)
    y = np.full((images, boxes, 5), -1.0)
    predictions = []
    for image in y:
        count = rng.integers(0, boxes + 1)
        low = rng.uniform(0, 60, (count, 2))
        corners = np.concatenate([low, low + rng.uniform(10, 40, (count, 2))], axis=1)
        image[:count] = np.concatenate([rng.integers(0, classes, (count, 1)), corners], axis=1)
        near = image[:count, 1:] + rng.normal(0, 3, (count, 4))
        kinds = np.where(rng.random(count) < 0.8, image[:count, 0], rng.integers(0, classes, count))
        extra = rng.uniform(0, 40, (2, 4)) + np.array([0, 0, 45, 45])
        kinds = np.concatenate([kinds, rng.integers(0, classes, 2)])
        scores = rng.random(count + 2)
        predictions.append(np.column_stack([kinds, scores, np.concatenate([near, extra])]))
    return y, predictions


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6))
def test_beside_the_definition(seed):
    y, predictions = scene(seed)
    if not (y[:, :, 0] >= 0).any():
        return
    for argument, thresholds in ((0.5, [0.5]), ("coco", COCO), ([0.5, 0.75], [0.5, 0.75])):
        metric = mean_average_precision(argument)
        assert value(metric, y, predictions) == pytest.approx(slow(y, predictions, thresholds))


def test_perfect_boxes_are_perfect_and_none_are_none():
    y, _ = scene(3)
    perfect = [
        np.column_stack([b[:, 0], np.ones(len(b)), b[:, 1:]]) for b in (i[i[:, 0] >= 0] for i in y)
    ]
    assert value(mean_average_precision("coco"), y, perfect) == 1.0
    assert value(mean_average_precision("coco"), y, [np.zeros((0, 6))] * len(y)) == 0.0
    wrong = [np.column_stack([b[:, 0] + 1, b[:, 1:]]) for b in perfect]
    assert value(mean_average_precision(), y[:, :1], wrong) < 1.0


def test_a_box_counts_once():
    y = np.array([[[0, 0, 0, 10, 10]]])
    twice = [np.array([[0, 0.9, 0, 0, 10, 10], [0, 0.8, 0, 0, 10, 10]])]
    rows = mean_average_precision().values(y, twice)
    assert rows[0, :2, 3].tolist() == [1, 0]


@pytest.mark.parametrize("filler", [np.nan, -1])
def test_arrays_that_are_filled_up_are_as_lists(filler):
    y, predictions = scene(4)
    y = np.where(y == -1, filler, y)
    full = np.full((len(y), 9, 6), np.nan)
    for image, boxes in zip(full, predictions, strict=True):
        image[: len(boxes)] = boxes
    metric = mean_average_precision()
    np.testing.assert_array_equal(metric.values(y, full), metric.values(y, predictions))


def test_only_boxes_of_the_highest_scores_count():
    y, predictions = scene(5)
    most = mean_average_precision(max_detections=2)
    best = [boxes[np.argsort(-boxes[:, 1])][:2] for boxes in predictions]
    assert value(most, y, predictions) == value(mean_average_precision(), y, best)


def test_an_interval_is_over_images():
    y, predictions = scene(6, images=30)
    metric = mean_average_precision()
    score = Assessment(metric, metric.values(y, predictions)).score
    assert score.examples == 30
    assert 0 <= score.low < score.value < score.high <= 1
    half = [metric.values(y[part], predictions[part]) for part in (slice(15), slice(15, None))]
    np.testing.assert_array_equal(np.concatenate(half), metric.values(y, predictions))


def test_other_forms_are_named():
    metric = mean_average_precision()
    with pytest.raises(
        ValueError, match=r"y must hold boxes .* of each of 2 images, got the shape"
    ):
        metric.values(np.zeros((2, 5)), [np.zeros((1, 6))] * 2)
    with pytest.raises(ValueError, match=r"predictions must hold boxes .* got an array of shape"):
        metric.values(np.zeros((1, 1, 5)), [np.zeros((1, 5))])
