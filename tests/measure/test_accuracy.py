"""tfnas.evaluate: values and intervals against scikit-learn and SciPy."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from scipy.stats import binomtest
from sklearn import metrics

import tfnas
from tfnas.measure.accuracy import paired_difference, score, wilson_interval


@pytest.fixture(scope="module")
def regression():
    """(file, x, y, predictions) of a model with one output of 3 units."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((4,)), layers.Dense(3)])
    rng = np.random.default_rng(0)
    x = rng.normal(size=(80, 4)).astype(np.float32)
    y = rng.normal(size=(80, 3)).astype(np.float32)
    return tfnas.to_tflite(model), x, y, model.predict(x, verbose=0)


@pytest.fixture(scope="module")
def binary():
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((4,)), layers.Dense(1, "sigmoid")])
    x = np.random.default_rng(0).normal(size=(80, 4)).astype(np.float32)
    predictions = model.predict(x, verbose=0)[:, 0]
    noise = np.random.default_rng(1).random(80) < 0.2
    return tfnas.to_tflite(model), x, ((predictions > 0.5) ^ noise).astype(int), predictions


@pytest.fixture(scope="module")
def two_outputs():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((4,))
    model = keras.Model(inputs, [layers.Dense(3)(inputs), layers.Dense(2)(inputs)])
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 4)).astype(np.float32)
    targets = [rng.integers(0, 3, 60), rng.normal(size=(60, 2)).astype(np.float32)]
    return tfnas.to_tflite(model), x, targets, model.predict(x, verbose=0)


@pytest.mark.parametrize(("k", "n"), [(0, 1), (1, 1), (0, 50), (50, 50), (90, 100), (7213, 10000)])
def test_wilson_interval(k, n):
    expected = binomtest(k, n).proportion_ci(0.95, method="wilson")
    assert wilson_interval(k, n) == pytest.approx((expected.low, expected.high), abs=1e-9)


@pytest.mark.parametrize("mode", ["float32", "int8"])
def test_accuracy_equals_that_of_sklearn(artifacts, digits, mode):
    found = tfnas.evaluate(artifacts[mode], digits.x_test, digits.y_test)
    classes = artifacts[mode].predict(digits.x_test).argmax(1)
    assert found.value == metrics.accuracy_score(digits.y_test, classes)
    expected = binomtest(int((classes == digits.y_test).sum()), 360).proportion_ci(method="wilson")
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    assert (found.name, found.examples) == ("accuracy", 360)


def test_accuracy_for_every_form_of_targets(artifacts, digits):
    x, y = digits.x_test, digits.y_test
    expected = tfnas.evaluate(artifacts["float32"], x, y)
    assert 0.5 < expected.value < 1  # otherwise the comparisons below show little
    dataset = tf.data.Dataset.from_tensor_slices((x, y)).batch(50)
    for arguments in ((x, y[:, None]), (x, np.eye(10)[y]), (x, y.tolist()), ((x, y),), (dataset,)):
        assert tfnas.evaluate(artifacts["float32"], *arguments) == expected
    small_batches = tfnas.evaluate(artifacts["float32"], x, y, batch_size=7, threads=2)
    assert small_batches == expected


def test_dataset_that_is_shuffled_each_time_keeps_its_pairs(artifacts, digits):
    pairs = tf.data.Dataset.from_tensor_slices((digits.x_test, digits.y_test))
    found = tfnas.evaluate(artifacts["float32"], pairs.shuffle(360).batch(32))
    assert found == tfnas.evaluate(artifacts["float32"], digits.x_test, digits.y_test)


@pytest.mark.parametrize("form", [np.asarray, lambda y: y[:, None], lambda y: y.astype(bool)])
def test_accuracy_of_one_unit(binary, form):
    artifact, x, y, predictions = binary
    found = tfnas.evaluate(artifact, x, form(y))
    assert found.value == metrics.accuracy_score(y, predictions > 0.5)
    assert 0.6 < found.value < 0.95


def test_mse_by_name(regression):
    artifact, x, y, predictions = regression
    found = tfnas.evaluate(artifact, x, y, "mse")
    assert found.value == pytest.approx(metrics.mean_squared_error(y, predictions), rel=1e-5)
    assert (found.name, found.examples) == ("mse", 80)
    errors = ((y - predictions) ** 2).mean(axis=1)
    spread = 1.96 * errors.std() / np.sqrt(80)  # the bootstrap is near the normal interval
    assert found.low == pytest.approx(found.value - spread, abs=0.25 * spread)
    assert found.high == pytest.approx(found.value + spread, abs=0.25 * spread)


def test_other_metric_by_name(digits, artifacts):
    found = tfnas.evaluate(
        artifacts["float32"], digits.x_test, digits.y_test, "sparse_categorical_accuracy"
    )
    expected = tfnas.evaluate(artifacts["float32"], digits.x_test, digits.y_test)
    assert found.value == pytest.approx(expected.value)
    assert found.low == pytest.approx(expected.low, abs=0.02)


def test_interval_of_a_metric_with_a_state(binary):
    artifact, x, y, predictions = binary
    found = tfnas.evaluate(artifact, x, y, "AUC")
    own = score(y, predictions, lambda t, p: metrics.roc_auc_score(t, p))
    assert found.value == pytest.approx(own.value, abs=0.02)
    assert (found.low, found.high) == pytest.approx((own.low, own.high), abs=0.03)


def test_function_that_returns_one_value_per_example(regression):
    artifact, x, y, predictions = regression

    def distance(y_true, y_pred):
        return np.abs(y_true - y_pred).max(axis=1)

    found = tfnas.evaluate(artifact, x, y, distance)
    assert found.name == "distance"
    assert found.value == pytest.approx(distance(y, predictions).mean(), rel=1e-5)
    assert found.low < found.value < found.high
    assert tfnas.evaluate(artifact, x, y, distance) == found  # the same every time


def test_function_that_returns_one_value_in_all(regression):
    artifact, x, y, predictions = regression
    found = tfnas.evaluate(artifact, x, y, lambda t, p: metrics.r2_score(t, p))
    assert found.value == pytest.approx(metrics.r2_score(y, predictions), rel=1e-5)
    assert found.low < found.value < found.high


def test_function_of_the_wrong_shape(regression):
    artifact, x, y, _ = regression
    with pytest.raises(
        ValueError, match=r"one value, or one value per example, got an array of shape \(79,\)"
    ):
        tfnas.evaluate(artifact, x, y, lambda t, p: t[1:, 0])


@pytest.mark.parametrize("as_dict", [False, True])
def test_dictionary_of_metrics(two_outputs, as_dict):
    artifact, x, targets, predictions = two_outputs
    y = {"output_1": targets[1], "output_0": targets[0]} if as_dict else targets
    found = tfnas.evaluate(artifact, x, y, {"output_1": "mse", "output_0": "accuracy"})
    assert list(found) == ["output_1", "output_0"]
    assert found["output_0"].value == metrics.accuracy_score(targets[0], predictions[0].argmax(1))
    expected = metrics.mean_squared_error(targets[1], predictions[1])
    assert found["output_1"].value == pytest.approx(expected, rel=1e-5)


def test_dictionary_of_metrics_for_targets_of_some_outputs(two_outputs):
    artifact, x, targets, _ = two_outputs
    found = tfnas.evaluate(artifact, x, {"output_0": targets[0]}, {"output_0": "accuracy"})
    assert list(found) == ["output_0"]


def test_one_function_of_all_outputs(two_outputs):
    artifact, x, targets, predictions = two_outputs

    def both(y_true, y_pred):
        right = y_pred[0].argmax(1) == y_true[0]
        return right + ((y_true[1] - y_pred[1]) ** 2).mean(axis=1)

    found = tfnas.evaluate(artifact, x, targets, both)
    assert found.value == pytest.approx(both(targets, predictions).mean(), rel=1e-5)
    assert found.examples == 60

    def scalar(y_true, y_pred):
        return both(y_true, y_pred).mean()

    again = tfnas.evaluate(artifact, x, targets, scalar)
    assert again.value == pytest.approx(found.value)
    assert again.low == pytest.approx(found.low, abs=0.1)


def test_errors(artifacts, digits, two_outputs):
    artifact, x, y = artifacts["float32"], digits.x_test, digits.y_test
    with pytest.raises(ValueError, match="y must hold the targets, got None"):
        tfnas.evaluate(artifact, x)
    with pytest.raises(ValueError, match=r"one target per example, got targets \(359,\)"):
        tfnas.evaluate(artifact, x, y[:-1])
    with pytest.raises(
        ValueError, match=r"class indices or one-hot rows, got the shape \(360, 4\)"
    ):
        tfnas.evaluate(artifact, x, np.eye(4)[y % 4])
    with pytest.raises(ValueError, match=r"must be a metric of keras.metrics, got 'goodness'"):
        tfnas.evaluate(artifact, x, y, "goodness")
    with pytest.raises(ValueError, match=r"must name outputs of \['output_0'\], got logits"):
        tfnas.evaluate(artifact, x, y, {"logits": "accuracy"})
    artifact, x, targets, _ = two_outputs
    with pytest.raises(
        ValueError, match=r"must be a dictionary by output name, one of .*'output_1'\], got"
    ):
        tfnas.evaluate(artifact, x, targets)
    with pytest.raises(ValueError, match="y must hold 2 targets, one per output, got 1"):
        tfnas.evaluate(artifact, x, targets[0], {"output_0": "accuracy"})
    with pytest.raises(ValueError, match="y must hold the targets of output_1, got"):
        tfnas.evaluate(artifact, x, {"output_0": targets[0]}, {"output_1": "mse"})


# --- paired differences


def test_paired_difference_is_antisymmetric_and_holds_its_value():
    rng = np.random.default_rng(0)
    a, b = rng.random((2, 500)) < [[0.9], [0.8]]
    value, low, high = paired_difference(a, b)
    assert value == pytest.approx(a.mean() - b.mean())
    assert low < value < high
    assert paired_difference(b, a) == pytest.approx((-value, -high, -low))


def test_paired_difference_of_equal_models():
    a = np.random.default_rng(0).random(300) < 0.9
    value, low, high = paired_difference(a, a)
    assert value == 0
    assert low == pytest.approx(-high)
    assert 0 < high < 0.01


def test_paired_difference_by_the_formula():
    # 30 gained, 10 lost of 200: Wald's interval of counts 30.5 and 10.5 of 202.
    a = np.array([True] * 30 + [False] * 10 + [True] * 160)
    b = np.array([False] * 30 + [True] * 10 + [True] * 160)
    p, q, n = 30.5 / 202, 10.5 / 202, 202
    half = 1.959964 * np.sqrt((p + q - (p - q) ** 2) / n)
    assert paired_difference(a, b) == pytest.approx((0.1, p - q - half, p - q + half), rel=1e-5)


def test_pairing_narrows_the_interval():
    rng = np.random.default_rng(0)
    a = rng.random(1000) < 0.7
    b = a ^ (rng.random(1000) < 0.02)
    _, low, high = paired_difference(a, b)
    _, apart_low, apart_high = paired_difference(a, rng.permutation(b))
    assert high - low < 0.3 * (apart_high - apart_low)


def test_paired_difference_covers_the_truth():
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(1000):
        a, b = rng.random((2, 200)) < [[0.9], [0.85]]
        _, low, high = paired_difference(a, b)
        covered += low <= 0.05 <= high
    assert 0.93 < covered / 1000 < 0.98


def test_paired_difference_of_different_lengths():
    with pytest.raises(ValueError, match=r"right_b must have the shape \(3,\), got \(2,\)"):
        paired_difference(np.ones(3, bool), np.ones(2, bool))


def test_a_keras_model_is_no_file():
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    with pytest.raises(ValueError, match=r"artifact must be .* got Sequential: tfnas.to_tflite"):
        tfnas.evaluate(model, np.zeros((5, 4)), np.zeros(5, int))
