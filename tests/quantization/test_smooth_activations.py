"""Outliers behind normalizations move into kernels: the same outputs, fewer errors."""

import keras
import numpy as np
import pytest
from keras import layers as L

import tfnas

X = np.random.default_rng(0).normal(size=(48, 6, 16)).astype("float32")
OUTLIERS = np.where(np.arange(16) % 7 == 2, 40.0, 1.0).astype("float32")


def transformer(norm=L.LayerNormalization):
    """A block whose normalizations have outliers, and kernels that make them even."""
    keras.utils.set_random_seed(3)
    inputs = keras.Input((6, 16))
    one = norm(name="one")(inputs)
    x = L.Add()([inputs, L.MultiHeadAttention(2, 8, name="attention")(one, one)])
    two = norm(name="two")(x)
    wide = L.Dense(32, "relu", name="wide")(two)
    also = L.EinsumDense("abc,cd->abd", (None, 32), name="also")(two)
    x = L.Dense(16, name="narrow")(L.Multiply()([wide, also]))
    model = keras.Model(inputs, L.Dense(4, name="head")(norm(name="three")(x)))
    for layer in model.layers:
        if layer.name in ("one", "two", "three"):
            for weight in layer.weights:
                weight.assign(weight * OUTLIERS)
    attention = model.get_layer("attention")
    kernels = [w for w in attention.weights if w.name == "kernel" and w.shape[0] == 16]
    for kernel in (*kernels, *(model.get_layer(n).kernel for n in ("wide", "also", "head"))):
        kernel.assign(kernel / OUTLIERS.reshape(-1, *[1] * (len(kernel.shape) - 1)))
    return model


@pytest.fixture(scope="module")
def case():
    model = transformer()
    return model, *tfnas.smooth_activations(model, X)


def test_the_outputs_are_the_same(case):
    model, smooth, _ = case
    expected = model.predict(X, verbose=0)
    np.testing.assert_allclose(
        smooth.predict(X, verbose=0), expected, atol=1e-5 * np.abs(expected).max()
    )


def test_outliers_are_smaller_and_integers_lose_less():
    keras.utils.set_random_seed(3)
    norm, wide = L.LayerNormalization(name="norm"), L.Dense(32, "relu")
    model = keras.Sequential([keras.Input((6, 16)), norm, wide, L.Dense(4)])
    norm.gamma.assign(norm.gamma * OUTLIERS)
    wide.kernel.assign(wide.kernel / OUTLIERS[:, None])
    smooth, _ = tfnas.smooth_activations(model, X)
    ratios, errors = [], []
    for each in (model, smooth):
        loudest = np.abs(each.layers[0](X)).max(axis=(0, 1))
        ratios.append(loudest.max() / np.median(loudest))
        expected = np.asarray(each(X))
        found = np.asarray(tfnas.quantize_aware(each, "int8", data=X)(X))
        errors.append(np.square(found - expected).mean() / expected.var())
    assert ratios[1] < 0.5 * ratios[0]
    assert errors[1] < 0.5 * errors[0]


def test_the_report_names_readers(case):
    _, _, report = case
    assert [(each.source, each.readers) for each in report.scaled] == [
        ("one", ("attention",)),
        ("two", ("wide", "also")),
        ("three", ("head",)),
    ]
    assert report.skipped == ()
    assert all(each.most > 5 * each.least for each in report.scaled)


def test_a_strength_of_one_makes_activations_even():
    norm = L.RMSNormalization(name="norm")
    model = keras.Sequential([keras.Input((6, 16)), norm, L.Dense(3)])
    norm.scale.assign(OUTLIERS)
    smooth, _ = tfnas.smooth_activations(model, X, strength=1.0)
    found = np.abs(smooth.layers[0](X)).max(axis=(0, 1))
    np.testing.assert_allclose(found, np.ones(16), rtol=1e-5)


def left(build):
    inputs = keras.Input((6, 16))
    return keras.Model(inputs, build(inputs))


@pytest.mark.parametrize(
    ("build", "reason"),
    [
        (
            lambda x: L.Add()([(n := L.LayerNormalization()(x)), L.Dense(16)(n)]),
            "reads its output",
        ),
        (lambda x: L.Dense(3)(L.LayerNormalization(axis=1)(x)), "another axis than the last"),
        (lambda x: L.Dense(3)(L.LayerNormalization(scale=False)(x)), "it has no factors"),
        (lambda x: L.LayerNormalization()(x), "it is an output of the model"),
        (
            lambda x: (d := L.Dense(16, name="d"))(L.LayerNormalization()(d(x))),
            "d is called several times",
        ),
        (lambda x: L.EinsumDense("abc,bd->adc", (3, 16))(L.LayerNormalization()(x)), "last axis"),
    ],
)
def test_normalizations_that_are_left_are_named(build, reason):
    _, report = tfnas.smooth_activations(left(build), X)
    assert not report.scaled
    assert reason in report.skipped[0].reason


def test_attention_scales_the_projections_that_read_a_tensor():
    a, b = keras.Input((6, 16)), keras.Input((5, 16))
    query, value = L.LayerNormalization(name="q")(a), L.LayerNormalization(name="v")(b)
    attended = L.MultiHeadAttention(2, 4, name="attention")(query, value)
    model = keras.Model([a, b], attended)
    data = [X, 3.0 * X[:, :5]]
    smooth, report = tfnas.smooth_activations(model, data)
    assert [each.source for each in report.scaled] == ["q", "v"]
    np.testing.assert_allclose(
        smooth.predict(data, verbose=0), model.predict(data, verbose=0), atol=1e-5
    )


@pytest.mark.parametrize("strength", [-0.1, 1.1, "half", None, True])
def test_a_strength_out_of_range_is_refused(strength):
    with pytest.raises(ValueError, match=r"strength must be in \[0, 1\]"):
        tfnas.smooth_activations(transformer(), X, strength)
