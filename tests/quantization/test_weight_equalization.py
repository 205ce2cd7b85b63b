"""Factors between kernels: the same outputs, and fewer errors as integers."""

import keras
import numpy as np
import pytest
from keras import layers as L

import tfnas

X = np.random.default_rng(0).normal(size=(48, 8, 8, 3)).astype("float32")


def error_as_integers(model, x):
    expected = model.predict(x, verbose=0)
    found = tfnas.quantize_aware(model, "int8", data=x).predict(x, verbose=0)
    return float(np.square(found - expected).mean() / expected.var())


def randomized(model, seed=0):
    rng = np.random.default_rng(seed)
    for weight in model.weights:
        positive = weight.name in ("gamma", "moving_variance")
        draw = rng.uniform(0.5, 2.0, weight.shape) if positive else rng.normal(size=weight.shape)
        weight.assign(draw * (1.0 if positive else 0.3))
    return model


def uneven():
    """A network whose channels differ by a factor of up to 100 from kernel to kernel."""
    inputs = keras.Input((8, 8, 3))
    x = L.Conv2D(8, 3, name="first")(inputs)
    x = L.ReLU()(L.BatchNormalization(name="norm")(x))
    x = L.ReLU()(L.DepthwiseConv2D(3, depth_multiplier=2, name="second")(x))
    x = L.Conv2D(6, 1, activation="relu", name="third")(L.MaxPooling2D(2)(x))
    x = L.Dense(7, activation="leaky_relu", name="fourth")(L.Flatten()(x))
    model = randomized(keras.Model(inputs, L.Dense(4, name="last")(x)))
    layers = {layer.name: layer for layer in model.layers}
    factors = 10.0 ** np.random.default_rng(1).uniform(-1, 1, 8).astype("float32")
    for variable in (layers["norm"].gamma, layers["norm"].beta):
        variable.assign(variable * factors)
    kernel = layers["second"].kernel
    kernel.assign(kernel / factors[:, None])
    factors = 10.0 ** np.random.default_rng(2).uniform(-1, 1, 7).astype("float32")
    fourth, last = layers["fourth"], layers["last"]
    fourth.kernel.assign(fourth.kernel * factors)
    fourth.bias.assign(fourth.bias * factors)
    last.kernel.assign(last.kernel / factors[:, None])
    return model


@pytest.fixture(scope="module")
def case():
    model = uneven()
    return model, *tfnas.equalize_weights(model)


def test_the_outputs_are_the_same(case):
    model, equal, _ = case
    expected = model.predict(X, verbose=0)
    np.testing.assert_allclose(
        equal.predict(X, verbose=0), expected, atol=1e-5 * np.abs(expected).max()
    )
    before, after = model.get_layer("second").kernel, equal.get_layer("second").kernel
    assert np.abs(np.asarray(before) - np.asarray(after)).max() > 0.1


def test_integers_lose_less(case):
    model, equal, _ = case
    assert error_as_integers(equal, X) < 0.5 * error_as_integers(model, X)


def test_the_report_names_pairs_and_what_has_none(case):
    _, _, report = case
    pairs = [(each.source, *each.readers) for each in report.scaled]
    assert pairs == [
        ("first", "second"),
        ("second", "third"),
        ("third", "fourth"),
        ("fourth", "last"),
    ]
    (skipped,) = report.skipped
    assert (skipped.name, skipped.reason) == (
        "last",
        "its output is read by several layers, by a merge, or by none",
    )
    assert all(0 < each.least < each.most for each in report.scaled)


def test_both_kernels_have_channels_of_one_size():
    model = keras.Sequential([keras.Input((5,)), L.Dense(6, use_bias=False), L.ReLU(), L.Dense(3)])
    equal, _ = tfnas.equalize_weights(randomized(model))
    first, last = (np.abs(np.asarray(layer.kernel)) for layer in equal.layers[::2])
    np.testing.assert_allclose(first.max(axis=0), last.max(axis=1), rtol=1e-3)


@pytest.mark.parametrize(
    ("between", "reason"),
    [
        (L.ReLU(6.0), "does not let factors pass"),
        (L.Activation("sigmoid"), "does not let factors pass"),
        (L.Reshape((8, 32)), "does not let factors pass"),
        (L.BatchNormalization(scale=False), "has no factors of channels"),
    ],
)
def test_layers_that_let_no_factor_pass_are_named(between, reason):
    model = keras.Sequential([keras.Input((8, 8, 3)), L.Conv2D(4, 1, name="a"), between])
    model.add(L.Conv1D(3, 1, name="b") if isinstance(between, L.Reshape) else L.Conv2D(3, 1))
    _, report = tfnas.equalize_weights(model)
    assert not report.scaled
    assert reason in report.skipped[0].reason


def test_shared_and_merged_layers_stay_as_they_are():
    inputs = keras.Input((6,))
    both, first = L.Dense(6, name="both"), L.Dense(6, name="first")(inputs)
    x = L.Add()([both(first), both(inputs)])
    model = randomized(keras.Model(inputs, L.Dense(2, name="last")(x)))
    equal, report = tfnas.equalize_weights(model)
    assert not report.scaled
    assert {each.name for each in report.skipped} == {"both", "first", "last"}
    x = X.reshape(-1, 6)
    np.testing.assert_array_equal(equal.predict(x, verbose=0), model.predict(x, verbose=0))


def test_a_channel_of_no_use_is_left_alone():
    model = randomized(keras.Sequential([keras.Input((5,)), L.Dense(4), L.ReLU(), L.Dense(3)]))
    kernel = np.asarray(model.layers[0].kernel).copy()
    kernel[:, 1] = 0.0
    bias = np.asarray(model.layers[0].bias) * np.float32([1.0, 0.0, 1.0, 1.0])
    model.layers[0].set_weights([kernel, bias])
    equal, _ = tfnas.equalize_weights(model)
    np.testing.assert_array_equal(
        np.asarray(equal.layers[-1].kernel)[1], np.asarray(model.layers[-1].kernel)[1]
    )


def test_a_quantized_model_is_refused():
    model = keras.Sequential([keras.Input((5,)), L.Dense(4)])
    with pytest.raises(ValueError, match="equalize_weights"):
        tfnas.equalize_weights(tfnas.quantize_aware(model))
