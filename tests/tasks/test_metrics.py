"""Metrics beside scikit-learn's, Keras's and values computed by hand."""

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from tfnas.measure.agreement import calibration_error
from tfnas.tasks import metrics
from tfnas.tasks.assessment import Assessment, NotFinite

SEEDS = st.integers(0, 10**6)


def value(metric, y, predictions):
    return metric.value(metric.values(y, predictions))


def classes_of(seed, classes=4, examples=60):
    """Labels and scores that agree often, with ties as integers have them."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, classes, examples)
    scores = rng.random((examples, classes)) + 0.6 * np.eye(classes)[y]
    return y, np.round(scores, 1)


def flags_of(seed, examples=60):
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 2, examples)
    y[:2] = 0, 1
    return y, np.round(np.clip(0.3 * y + 0.7 * rng.random(examples), 0, 1), 2)


# --- classes


@pytest.mark.parametrize("form", [lambda y: y, lambda y: y[:, None], lambda y: np.eye(4)[y]])
def test_accuracy_of_any_form_of_targets(form):
    y, scores = classes_of(0)
    values = metrics.accuracy().values(form(y), scores)
    assert values.dtype == bool
    assert values.mean() == sk.accuracy_score(y, scores.argmax(1))


@pytest.mark.parametrize("shape", [(12,), (12, 1)])
def test_accuracy_of_one_unit(shape):
    y, scores = flags_of(1, 12)
    found = metrics.accuracy().values(y, scores.reshape(shape))
    assert found.dtype == bool
    assert found.mean() == sk.accuracy_score(y, scores > 0.5)
    logits = np.log(scores / (1 - scores + 1e-9) + 1e-9).reshape(shape)
    assert value(metrics.accuracy(threshold=0.0), y, logits) == found.mean()


def test_accuracy_of_positions_is_the_mean_over_all():
    rng = np.random.default_rng(2)
    y, scores = rng.integers(0, 3, (5, 4, 6)), rng.random((5, 4, 6, 3))
    expected = (y == scores.argmax(-1)).mean()
    assert value(metrics.accuracy(), y, scores) == pytest.approx(expected)
    assert value(metrics.accuracy(), y[..., None], scores) == pytest.approx(expected)
    assert value(metrics.accuracy(), np.eye(3)[y], scores) == pytest.approx(expected)


def test_accuracy_leaves_padding_out():
    rng = np.random.default_rng(3)
    y, scores = rng.integers(0, 3, (8, 5)), rng.random((8, 5, 3))
    y[0] = 0  # an example of padding alone
    kept = y != 0
    metric = metrics.accuracy(ignore_class=0)
    assert value(metric, y, scores) == pytest.approx((y == scores.argmax(-1))[kept].mean())
    assert Assessment(metric, metric.values(y, scores)).score.low < value(metric, y, scores)


def test_accuracy_of_several_labels():
    rng = np.random.default_rng(4)
    y, scores = rng.integers(0, 2, (9, 3)), rng.random((9, 3))
    expected = keras.metrics.BinaryAccuracy()(y, scores)
    assert value(metrics.accuracy(several_labels=True), y, scores) == pytest.approx(float(expected))


@settings(max_examples=20, deadline=None)
@given(SEEDS, st.integers(1, 3))
def test_top_k_beside_sklearns(seed, k):
    y, scores = classes_of(seed)
    scores = scores + np.random.default_rng(seed).random(scores.shape) / 100  # without ties
    expected = sk.top_k_accuracy_score(y, scores, k=k, labels=range(4))
    assert value(metrics.top_k(k), y, scores) == pytest.approx(expected)


def test_equal_scores_are_no_success():
    y = np.arange(10)
    dead = np.zeros((10, 10))  # as of a file whose outputs never change
    assert value(metrics.top_k(5), y, dead) == 0.5
    assert value(metrics.top_k(1), y, dead) == value(metrics.accuracy(), y, dead) == 0.1
    with pytest.raises(ValueError, match="k must be below the number of classes, 10, got 10"):
        metrics.top_k(10).values(y, dead)


@settings(max_examples=25, deadline=None)
@given(SEEDS)
def test_areas_of_one_unit_beside_sklearns(seed):
    y, scores = flags_of(seed)
    for shape in ((60,), (60, 1)):
        guesses = scores.reshape(shape)
        assert value(metrics.auc(), y, guesses) == pytest.approx(sk.roc_auc_score(y, scores))
        expected = sk.average_precision_score(y, scores)
        assert value(metrics.auc("PR"), y, guesses) == pytest.approx(expected)
    both = np.stack([1 - scores, scores], axis=1)
    assert value(metrics.auc(), y, both) == pytest.approx(sk.roc_auc_score(y, scores))


@settings(max_examples=20, deadline=None)
@given(SEEDS)
def test_areas_of_classes_are_of_each_against_the_rest(seed):
    y, scores = classes_of(seed)
    truth = np.eye(4)[y]
    found = [c for c in range(4) if 0 < truth[:, c].sum() < len(y)]
    expected = np.mean([sk.roc_auc_score(truth[:, c], scores[:, c]) for c in found])
    assert value(metrics.auc(), y, scores) == pytest.approx(expected)
    micro = sk.roc_auc_score(truth.ravel(), scores.ravel())
    assert value(metrics.auc(average="micro"), y, scores) == pytest.approx(micro)


def test_an_area_without_one_of_the_classes_is_unknown_and_left_out_of_intervals():
    assert np.isnan(value(metrics.auc(), np.ones(4, int), np.arange(4.0)))
    y, scores = np.array([0] * 30 + [1]), np.arange(31.0)
    metric = metrics.auc()
    score = Assessment(metric, metric.values(y, scores)).score  # some resamples hold no 1
    assert score.low <= score.value == 1.0 <= score.high


@settings(max_examples=25, deadline=None)
@given(SEEDS, st.sampled_from(["macro", "micro", "weighted"]))
def test_f1_precision_and_recall_beside_sklearns(seed, average):
    y, scores = classes_of(seed, classes=5, examples=25)
    options = {"average": average, "zero_division": 0}
    guesses = scores.argmax(1)
    pairs = [
        (metrics.f1(average), sk.f1_score(y, guesses, **options)),
        (metrics.precision(average), sk.precision_score(y, guesses, **options)),
        (metrics.recall(average), sk.recall_score(y, guesses, **options)),
        (metrics.f1(average, beta=2.0), sk.fbeta_score(y, guesses, beta=2, **options)),
    ]
    for metric, expected in pairs:
        assert value(metric, y, scores) == pytest.approx(expected)


@settings(max_examples=20, deadline=None)
@given(SEEDS)
def test_f1_of_one_unit_is_of_the_positive_class(seed):
    y, scores = flags_of(seed)
    for metric, function in (
        (metrics.f1(), sk.f1_score),
        (metrics.precision(), sk.precision_score),
        (metrics.recall(), sk.recall_score),
    ):
        expected = function(y, scores > 0.5, zero_division=0)
        assert value(metric, y, scores) == pytest.approx(expected)
        both = np.stack([1 - scores, scores], axis=1)
    expected = sk.f1_score(y, both.argmax(1), zero_division=0)
    assert value(metrics.f1("binary"), y, both) == pytest.approx(expected)


def test_f1_of_several_labels():
    rng = np.random.default_rng(5)
    y, scores = rng.integers(0, 2, (40, 3)), rng.random((40, 3))
    expected = sk.f1_score(y, scores > 0.5, average="macro")
    assert value(metrics.f1(several_labels=True), y, scores) == pytest.approx(expected)


@pytest.mark.parametrize("units", [1, 4])
def test_calibration_error_beside_that_of_the_agreement(units):
    if units == 1:
        y, scores = flags_of(6, 400)
        answers = scores[:, None]
    else:
        y, scores = classes_of(6, examples=400)
        answers = scores / scores.sum(1, keepdims=True)
    metric = metrics.expected_calibration_error()
    assert value(metric, y, answers) == pytest.approx(calibration_error(answers, y))
    assert not metric.higher_is_better
    inside = ((answers > 0) & (answers < 1)).all(axis=1)
    y, answers = y[inside], answers[inside]
    logits = np.log(answers / (1 - answers)) if units == 1 else np.log(answers)
    of_logits = metrics.expected_calibration_error(from_logits=True)
    assert value(of_logits, y, logits) == pytest.approx(value(metric, y, answers))


# --- regions


@settings(max_examples=20, deadline=None)
@given(SEEDS, st.booleans())
def test_mean_iou_beside_keras(seed, ignored):
    rng = np.random.default_rng(seed)
    y, scores = rng.integers(0, 4, (3, 4, 5)), rng.random((3, 4, 5, 4))
    ignore = 3 if ignored else None
    own = metrics.mean_iou(ignore_class=ignore)
    theirs = keras.metrics.MeanIoU(4, ignore_class=ignore)(y, scores.argmax(-1))
    assert value(own, y, scores) == pytest.approx(float(theirs), abs=1e-6)
    assert value(own, np.eye(4)[y], scores) == pytest.approx(float(theirs), abs=1e-6)
    labels = metrics.mean_iou(4, ignore_class=ignore)
    assert value(labels, y, scores.argmax(-1)) == pytest.approx(float(theirs), abs=1e-6)
    some = keras.metrics.IoU(4, target_class_ids=[0, 2])(y, scores.argmax(-1))
    found = value(metrics.mean_iou(target_class_ids=[0, 2]), y, scores)
    assert found == pytest.approx(float(some), abs=1e-6)


def test_mean_iou_of_classes_in_an_image_as_wide_as_there_are_classes():
    rng = np.random.default_rng(0)
    y, guesses = rng.integers(0, 8, (2, 3, 5, 8))
    keras_metric = keras.metrics.MeanIoU(8)
    keras_metric.update_state(y, guesses)
    assert value(metrics.mean_iou(8), y, guesses) == pytest.approx(float(keras_metric.result()))
    rows = np.eye(8)[y[:, 0]]
    assert value(metrics.mean_iou(8), rows, rows) == 1


@pytest.mark.parametrize(
    "name", ["accuracy", "top_2", "f1", "auc", "mean_iou", "calibration_error"]
)
@pytest.mark.parametrize(
    ("y", "message"),
    [
        (list("abc"), "y must hold numbers, got texts such as 'a'"),
        ([0, 1, 3], "from 0 to 2, got 3"),
    ],
)
def test_classes_that_a_model_does_not_have_are_refused(name, y, message):
    with pytest.raises(ValueError, match=message):
        metrics.metric_of(name).values(np.array(y), np.eye(3))


def test_a_mean_iou_of_one_image_has_no_interval():
    metric = metrics.mean_iou()
    rows = metric.values(np.array([[[0, 1]]]), np.array([[[[0.9, 0.1], [0.8, 0.2]]]]))
    one = Assessment(metric, rows)
    assert (one.score.low, one.score.high) == (-np.inf, np.inf)
    assert one.minus(one) == (0, -np.inf, np.inf)


def test_mean_iou_of_a_mask():
    y = np.array([[[1, 1], [0, 0]]])
    scores = np.array([[[0.9, 0.2], [0.1, 0.7]]])[..., None]
    assert value(metrics.mean_iou(), y, scores) == pytest.approx(1 / 3)
    assert value(metrics.mean_iou(), y[..., None], scores) == pytest.approx(1 / 3)


def test_void_classes_must_be_named():
    y, scores = np.full((1, 2, 2), 255), np.zeros((1, 2, 2, 3))
    with pytest.raises(ValueError, match="y must hold classes from 0 to 2, got 255; ignore_class"):
        metrics.mean_iou().values(y, scores)
    assert metrics.mean_iou(ignore_class=255).values(y, scores).sum() == 0
    with pytest.raises(ValueError, match="num_classes must be given where predictions are classes"):
        metrics.mean_iou().values(np.zeros((1, 2, 2), int), np.zeros((1, 2, 2), int))


# --- numbers


@settings(max_examples=25, deadline=None)
@given(SEEDS, st.sampled_from([(30,), (30, 1), (30, 3)]))
def test_errors_beside_sklearns(seed, shape):
    rng = np.random.default_rng(seed)
    y, guesses = rng.normal(5, 2, shape), rng.normal(5, 2, shape)
    for metric, function in (
        (metrics.mse(), sk.mean_squared_error),
        (metrics.mae(), sk.mean_absolute_error),
        (metrics.rmse(), lambda t, p: np.sqrt(sk.mean_squared_error(t, p))),
        (metrics.r2(), sk.r2_score),
        (metrics.reconstruction_error(), sk.mean_squared_error),
    ):
        assert value(metric, y, guesses) == pytest.approx(function(y, guesses))
        assert metric.higher_is_better == (metric.name == "R2")


def test_r2_of_a_constant_as_sklearn_has_it():
    y = np.array([[1.0, 1.0], [1.0, 2.0]])
    for guesses in (np.array([[1.0, 1.0], [1.0, 3.0]]), np.array([[2.0, 1.0], [1.0, 2.0]])):
        assert value(metrics.r2(), y, guesses) == pytest.approx(sk.r2_score(y, guesses))


def test_r2_far_from_zero_keeps_its_digits():
    rng = np.random.default_rng(7)
    y = 1e8 + rng.normal(size=50)
    guesses = y + rng.normal(0, 0.1, 50)
    assert value(metrics.r2(), y, guesses) == pytest.approx(sk.r2_score(y, guesses), rel=1e-6)


# --- rules of all of them


@pytest.mark.parametrize(
    ("metric", "y", "guesses", "message"),
    [
        (metrics.mse(), np.zeros((4, 2)), np.zeros((4, 3)), r"shape of the predictions, \(4, 3\)"),
        (metrics.mse(), np.zeros(3), np.zeros(4), r"one target per example, got targets \(3,\)"),
        (metrics.f1(), np.full(4, 9), np.eye(4), "y must hold classes from 0 to 3, got 9"),
        (metrics.auc(), np.full(4, -1), np.eye(4), "y must hold classes from 0 to 3, got -1"),
        (
            metrics.auc(several_labels=True),
            np.full((4, 4), 0.3),
            np.eye(4),
            "y must hold 0 or 1 for each label, got 0.3",
        ),
        (
            metrics.mse(),
            {"a": np.zeros(3), "b": np.zeros(3)},
            np.zeros(3),
            "y must be of one output",
        ),
    ],
)
def test_targets_that_do_not_fit_are_named(metric, y, guesses, message):
    with pytest.raises(ValueError, match=message):
        metric.values(y, guesses)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: metrics.auc("roc"), "curve must be one of ROC, PR, got 'roc'"),
        (lambda: metrics.f1("mean"), "average must be one of auto, .* got 'mean'"),
        (lambda: metrics.f1(beta=0), "beta must be above 0, got 0"),
        (lambda: metrics.top_k(0), "k must be a whole number >= 1, got 0"),
        (lambda: metrics.mean_iou(1), "num_classes must be a whole number >= 2, got 1"),
        (lambda: metrics.mean_iou(target_class_ids=()), "target_class_ids must hold classes"),
        (lambda: metrics.mean_average_precision(0), "iou must be numbers above 0"),
        (lambda: metrics.mean_average_precision("voc"), "iou must be numbers .* got 'voc'"),
        (
            lambda: metrics.accuracy(several_labels=True, ignore_class=0),
            "ignore_class must be None for several labels, got 0",
        ),
    ],
)
def test_arguments_outside_their_rule_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("metric", [metrics.mse(), metrics.auc(), metrics.top_k(2)])
def test_nan_is_no_prediction(metric):
    with pytest.raises(NotFinite, match="predictions must be numbers, got NaN"):
        metric.values(np.zeros(3), np.full((3, 1), np.nan))


@pytest.mark.parametrize(
    "metric",
    [
        *(metrics.auc(), metrics.f1(), metrics.mean_iou(), metrics.expected_calibration_error()),
        metrics.accuracy(ignore_class=3),
    ],
)
def test_batches_give_the_rows_of_all_examples(metric):
    y, scores = classes_of(8)
    if metric.name == "mean IoU":
        y, scores = y.reshape(15, 2, 2), scores.reshape(15, 2, 2, 4)
    whole = metric.values(y, scores)
    half = len(y) // 2
    parts = [metric.values(y[part], scores[part]) for part in (slice(half), slice(half, None))]
    np.testing.assert_array_equal(np.concatenate(parts), whole)
    score = Assessment(metric, whole).score
    assert 0 <= score.low <= score.value <= score.high <= 1


def test_identities_tell_parameters_apart():
    same = metrics.top_k(3).identity()
    assert same == metrics.top_k(3).identity()
    assert same != metrics.top_k(4).identity()
    assert metrics.f1("macro").identity() != metrics.f1("micro").identity()
    assert metrics.mean_iou().identity() != metrics.mean_iou(ignore_class=3).identity()
