"""Metrics by name, by object of Keras and by output."""

import keras
import numpy as np
import pytest
from sklearn import metrics as sk

import tfnas
from tfnas.tasks import metrics
from tfnas.tasks.assessment import ACCURACY, Assessment
from tfnas.tasks.metrics import metric_of, metrics_by_output, of_output

RNG = np.random.default_rng(0)
Y, SCORES = (
    RNG.integers(0, 4, 50),
    keras.ops.convert_to_numpy(keras.ops.softmax(RNG.normal(size=(50, 4)).astype("float32"))),
)
ONE_HOT = np.eye(4, dtype="float32")[Y]
FLAGS, CHANCES = RNG.integers(0, 2, (50, 1)).astype("float32"), RNG.random((50, 1), np.float32)
NUMBERS, GUESSES = RNG.normal(size=(2, 50, 3)).astype("float32")


def value(metric, y, predictions):
    return metric.value(metric.values(y, predictions))


@pytest.mark.parametrize(
    ("name", "found", "higher", "unit"),
    [
        ("accuracy", "accuracy", True, "points"),
        ("acc", "accuracy", True, "points"),
        ("top_5", "top-5 accuracy", True, "points"),
        ("top-3 accuracy", "top-3 accuracy", True, "points"),
        ("AUC", "AUC", True, "points"),
        ("pr_auc", "PR AUC", True, "points"),
        ("f1_score", "F1", True, "points"),
        ("MeanIoU", "mean IoU", True, "points"),
        ("mean_iou", "mean IoU", True, "points"),
        ("mAP", "mAP@0.5", True, "points"),
        ("mean_squared_error", "mse", False, ""),
        ("MAE", "mae", False, ""),
        ("rmse", "rmse", False, ""),
        ("r2", "R2", True, ""),
        ("reconstruction_error", "reconstruction error", False, ""),
        ("ece", "calibration error", False, "points"),
        ("sparse_categorical_accuracy", "sparse_categorical_accuracy", True, "points"),
        ("categorical_crossentropy", "categorical_crossentropy", False, ""),
        ("huber", "huber", False, ""),
        ("cosine_similarity", "cosine_similarity", True, ""),
        ("mape", "mape", False, ""),
    ],
)
def test_names(name, found, higher, unit):
    metric = metric_of(name)
    assert (metric.name, metric.higher_is_better, metric.unit) == (found, higher, unit)
    if unit:
        assert (metric.scale, metric.little, metric.hopeless) == (100.0, 0.3, 3.0)
    else:
        assert (metric.scale, metric.little, metric.hopeless) == (1.0, None, None)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("acuracy", "got 'acuracy': did you mean 'accuracy'"),
        ("mean_iuo", "got 'mean_iuo': did you mean 'mean_iou'"),
        ("zzz", "got 'zzz': others are accuracy, top_5"),
        (3, "metric must be a name, a tfnas.Metric, .* got 3"),
        (lambda y, p: y, r"wrap it, tfnas.Metric\('<lambda>', higher_is_better=\.\.\., values"),
        (keras.metrics.Mean(), "unknown of 'mean': wrap it"),
        (keras.metrics.MeanMetricWrapper(lambda y, p: y - p, "bias"), "unknown of 'bias'"),
        (keras.metrics.F1Score(average=None), "average must be 'macro', 'micro' or 'weighted'"),
    ],
)
def test_what_is_unknown_is_named(spec, message):
    with pytest.raises(ValueError, match=message):
        metric_of(spec)


@pytest.mark.parametrize(
    ("theirs", "y", "predictions", "higher"),
    [
        (keras.metrics.SparseCategoricalAccuracy(), Y, SCORES, True),
        (keras.metrics.CategoricalAccuracy(), ONE_HOT, SCORES, True),
        (keras.metrics.BinaryAccuracy(threshold=0.7), FLAGS, CHANCES, True),
        (keras.metrics.SparseTopKCategoricalAccuracy(k=2), Y, SCORES, True),
        (keras.metrics.TopKCategoricalAccuracy(k=3), ONE_HOT, SCORES, True),
        (keras.metrics.F1Score("macro"), ONE_HOT, SCORES, True),
        (keras.metrics.F1Score("micro", threshold=0.3), ONE_HOT, SCORES, True),
        (keras.metrics.FBetaScore("weighted", beta=2.0), ONE_HOT, SCORES, True),
        (keras.metrics.MeanIoU(4), Y, SCORES.argmax(1), True),
        (keras.metrics.OneHotMeanIoU(4), ONE_HOT, SCORES, True),
        (keras.metrics.BinaryIoU(target_class_ids=[1], threshold=0.4), FLAGS, CHANCES, True),
        (keras.metrics.MeanSquaredError(), NUMBERS, GUESSES, False),
        (keras.metrics.RootMeanSquaredError(), NUMBERS, GUESSES, False),
        (keras.metrics.R2Score(), NUMBERS, GUESSES, True),
        pytest.param(
            keras.metrics.R2Score("variance_weighted_average"),
            NUMBERS,
            GUESSES,
            True,
            marks=pytest.mark.slow,
        ),
        (keras.metrics.Precision(0.6), FLAGS, CHANCES, True),
        pytest.param(keras.metrics.Recall(), FLAGS, CHANCES, True, marks=pytest.mark.slow),
        (keras.metrics.FalsePositives(), FLAGS, CHANCES, False),
        pytest.param(keras.metrics.TruePositives(), FLAGS, CHANCES, True, marks=pytest.mark.slow),
        (keras.metrics.CosineSimilarity(), NUMBERS, GUESSES, True),
        (keras.metrics.MeanAbsolutePercentageError(), NUMBERS, GUESSES, False),
        (keras.metrics.SparseCategoricalCrossentropy(from_logits=True), Y, GUESSES[:, :3], False),
        (keras.metrics.PearsonCorrelation(), NUMBERS, GUESSES, True),
        (keras.metrics.MeanMetricWrapper(keras.losses.huber, "huber"), NUMBERS, GUESSES, False),
    ],
    ids=lambda each: type(each).__name__ if isinstance(each, keras.metrics.Metric) else "",
)
def test_metrics_of_keras(theirs, y, predictions, higher):
    if "Crossentropy" in type(theirs).__name__:
        y = y % 3
    theirs.update_state(y, predictions)
    expected = float(theirs.result())
    metric = metric_of(theirs)
    assert metric.higher_is_better is higher
    assert metric.name == theirs.name
    assert value(metric, y, predictions) == pytest.approx(expected, rel=1e-4, abs=1e-6)
    assert float(theirs.result()) == expected  # its state is not changed
    score = Assessment(metric, metric.values(y, predictions)).score
    assert score.low <= score.value <= score.high


@pytest.mark.parametrize(
    ("loss", "y", "predictions"),
    [
        (keras.losses.Huber(delta=0.5), NUMBERS, GUESSES),
        (keras.losses.MeanSquaredError(), NUMBERS, GUESSES),
        (keras.losses.SparseCategoricalCrossentropy(from_logits=True), Y % 3, GUESSES),
        (keras.losses.CategoricalCrossentropy(label_smoothing=0.1), ONE_HOT, SCORES),
        (keras.losses.BinaryCrossentropy(from_logits=True), FLAGS, CHANCES),
    ],
    ids=lambda each: type(each).__name__ if isinstance(each, keras.losses.Loss) else "",
)
def test_losses_of_keras(loss, y, predictions):
    metric = metric_of(loss)
    assert not metric.higher_is_better
    assert metric.name == loss.name
    expected = float(loss(y, predictions))
    assert value(metric, y, predictions) == pytest.approx(expected, rel=1e-4)
    assert metric.values(y, predictions).shape == (50,)


def test_functions_and_classes_of_keras():
    assert not metric_of(keras.losses.mean_absolute_error).higher_is_better
    assert metric_of(keras.metrics.binary_accuracy).higher_is_better
    assert metric_of(keras.metrics.MeanSquaredError).name == "mean_squared_error"
    y, predictions = FLAGS, CHANCES
    one_at_a_time = [float(keras.losses.Dice()(y[[n]], predictions[[n]])) for n in range(50)]
    assert value(metric_of("dice"), y, predictions) == pytest.approx(np.mean(one_at_a_time))


def test_a_subclass_keeps_the_direction_of_its_class():
    class Own(keras.metrics.MeanIoU):
        def update_state(self, y_true, y_pred, sample_weight=None):
            return super().update_state(y_true, keras.ops.argmax(y_pred, -1), sample_weight)

    metric = metric_of(Own(4, name="own"))
    assert (metric.name, metric.higher_is_better, metric.unit) == ("own", True, "points")
    expected = keras.metrics.MeanIoU(4)(Y, SCORES.argmax(1))
    assert value(metric, Y, SCORES) == pytest.approx(float(expected), abs=1e-6)


def test_a_metric_of_tfnas_stays_but_for_the_accuracy_without_values():
    own = tfnas.Metric("own", values=lambda y, p: y)
    assert metric_of(own) is own
    assert metric_of(ACCURACY).values is not None


def test_a_form_of_the_output_tells_logits_and_several_labels():
    logits = keras.losses.BinaryCrossentropy(from_logits=True)
    metric = metric_of("accuracy", (None, 1), "", logits)
    assert metric.values(np.array([1, 0]), np.array([[0.2], [-0.2]])).all()
    metric = metric_of("accuracy", (None, 2), "sigmoid", "binary_crossentropy")
    both = np.array([[0.9, 0.8], [0.1, 0.7]])
    assert metric.values(np.array([[1, 1], [0, 0]]), both).tolist() == [1.0, 0.5]
    metric = metric_of("accuracy", (None, 2), "softmax", "sparse_categorical_crossentropy")
    assert metric.values(np.array([0, 1]), both).tolist() == [True, True]


@pytest.mark.parametrize(
    ("loss", "name"),
    [
        ("sparse_categorical_crossentropy", "accuracy"),
        (keras.losses.BinaryCrossentropy(), "accuracy"),
        ("bce", "accuracy"),
        (None, "accuracy"),
        ("mse", "mse"),
        (keras.losses.Huber(), "huber_loss"),
        (lambda y, p: abs(y - p), "<lambda>"),
    ],
)
def test_no_metric_is_the_accuracy_or_the_loss(loss, name):
    metric = metric_of(None, loss=loss)
    assert metric.name == name
    assert metric.higher_is_better == (name == "accuracy")
    assert metric_of("loss", loss="mae").name == "mae"


# --- several outputs


def test_outputs_by_name_and_the_one_that_decides():
    specs = {"kind": "accuracy", "size": "mse"}
    found = metrics_by_output(specs, ["size", "kind"])
    assert [*found] == ["kind", "size"]
    assert [*metrics_by_output(specs, ["size", "kind"], decides="size")] == ["size", "kind"]
    y = {"kind": Y, "size": NUMBERS}
    for predictions in ([GUESSES, SCORES], {"kind": SCORES, "size": GUESSES}):
        assert value(found["size"], y, predictions) == pytest.approx(
            sk.mean_squared_error(NUMBERS, GUESSES), rel=1e-5
        )
        assert value(found["kind"], y, predictions) == sk.accuracy_score(Y, SCORES.argmax(1))
    assert found["size"].name == "mse of size"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: metrics_by_output({"sice": "mse"}, ["size", "kind"]),
            r"must name outputs of \['size', 'kind'\], got sice: did you mean 'size'",
        ),
        (
            lambda: metrics_by_output({"size": "mse"}, ["size", "kind"], decides="kind"),
            r"decides must be an output with a metric of \['size'\], got kind",
        ),
        (lambda: metrics_by_output({}, ["size"]), "at least one output, got none"),
        (
            lambda: of_output(tfnas.Metric("own"), "a", ["a"]),
            "metric 'own' must have values, got None",
        ),
        (
            lambda: of_output(metrics.mse(), "a", ["a", "b"]).values([Y], [Y, Y]),
            "y must hold 2 arrays, one per output, got 1",
        ),
        (
            lambda: of_output(metrics.mse(), "a", ["a", "b"]).values({"b": Y}, [Y, Y]),
            "y must hold 'a', got b",
        ),
    ],
)
def test_outputs_that_do_not_fit_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
