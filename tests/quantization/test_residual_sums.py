"""Sums of residual branches with 16 bits, and factors of channels before them."""

import keras
import numpy as np
import pytest
from keras import layers as L
from slow_cases import slow_but

import tfnas
from tfnas.quantization.residual_sums import has_wide_sums

IDS = np.random.default_rng(0).integers(0, 20, (64, 6))
OUTLIERS = np.where(np.arange(16) == 3, 30.0, np.where(np.arange(16) == 7, 0.05, 1.0))
WIDE = tfnas.QuantSpec("int8", residual_bits=16)


def transformer(order):
    """A block whose stream has outliers: normalizations behind sums ("post") or before kernels."""
    keras.utils.set_random_seed(0)
    ids, pre = keras.Input((6,), dtype="int32", name="ids"), order == "pre"
    tables = [L.Embedding(20, 16, name=name)(ids) for name in ("words", "others")]
    x = L.LayerNormalization(name="first")(L.Add(name="sum")(tables))
    h = L.LayerNormalization(name="before")(x) if pre else x
    x = L.Add(name="one")([x, L.MultiHeadAttention(2, 8, name="attention")(h, h)])
    h = x = L.LayerNormalization(name="second")(x) if not pre else x
    h = L.LayerNormalization(name="middle")(x) if pre else x
    inside = L.Dense(32, activation="gelu", name="inside")(h)
    inside = L.Dropout(0.1, name="drop")(L.Dense(16, name="outside")(inside))
    x = L.LayerNormalization(name="last")(L.Add(name="two")([x, inside]))
    outputs = L.Dense(4, name="head")(L.GlobalAveragePooling1D(name="mean")(x))
    model = keras.Model(ids, outputs, name=order)
    for name in ("words", "others", "outside"):
        kernel = model.get_layer(name).weights[0]
        kernel.assign(kernel * OUTLIERS)
    return model


@pytest.fixture(scope="module", params=slow_but(["post", "pre"], "pre"))
def case(request):
    model = transformer(request.param)
    smooth, report = tfnas.smooth_activations(model, IDS, residual=True)
    return model, smooth, report, tfnas.quantize_aware(smooth, WIDE, data=IDS)


def error(aware, expected):
    """Mean squared error of a quantization-aware copy, of the variance of the outputs."""
    return np.square(np.asarray(aware(IDS)) - expected).mean() / expected.var()


def test_the_outputs_are_the_same(case):
    model, smooth, _, _ = case
    expected = model.predict(IDS, verbose=0)
    np.testing.assert_allclose(
        smooth.predict(IDS, verbose=0), expected, atol=1e-5 * np.abs(expected).max()
    )


def test_branches_are_named_with_their_readers(case):
    model, _, report, _ = case
    found = {each.source: each.readers for each in report.scaled}
    assert found["outside"] == ("outside_back",)
    assert found["attention"] == ("attention_back",)
    if model.name == "post":
        assert found["first"] == ("attention", "first_back")
        assert found["second"] == ("inside", "second_back")
    assert [each.name for each in report.skipped][-1] == "last"


def test_integers_lose_less(case):
    model, _, _, aware = case
    expected = model.predict(IDS, verbose=0)
    plain = error(tfnas.quantize_aware(model, "int8", data=IDS), expected)
    wide = error(tfnas.quantize_aware(model, WIDE, data=IDS), expected)
    assert wide < 0.75 * plain
    # Kernels read no sum where a normalization is before them: evening adds less there.
    assert error(aware, expected) < {"post": 0.4, "pre": 0.75}[model.name] * plain


def test_the_file_has_integers_alone_and_is_what_keras_computes(case):
    _, _, _, aware = case
    file = tfnas.to_tflite(aware, WIDE)
    operators = [op for graph in file.graphs for op in graph.operators]
    assert {each.dtype for op in operators for each in op.outputs} <= {"int8", "int16", "int32"}
    assert [op.outputs[0].dtype for op in operators if op.name == "ADD"] == ["int16"] * 3
    keras_says = np.asarray(aware(IDS))
    found = file.predict(IDS, reference=True)
    step = file.outputs[0].scale
    assert np.median(np.abs(found - keras_says)) <= 1.01 * step


def test_stripped_of_quantization_it_is_the_float_model(case):
    _, smooth, _, aware = case
    floats = tfnas.strip_quantization(aware)
    np.testing.assert_allclose(
        floats.predict(IDS, verbose=0), smooth.predict(IDS, verbose=0), atol=1e-5
    )


def test_other_readers_of_a_sum_get_eight_bits():
    inputs = keras.Input((6, 16))
    total = L.Add(name="sum")([inputs, L.Dense(16, name="dense")(inputs)])
    joined = L.Multiply(name="product")([L.LayerNormalization(name="norm")(total), total])
    model = keras.Model(inputs, joined)
    x = np.random.default_rng(0).normal(size=(32, 6, 16)).astype("float32")
    aware = tfnas.quantize_aware(model, WIDE, data=x)
    assert has_wide_sums(aware)
    assert {r.bits for r in aware.layers if r.name == "product_input_range"} == {8}
    found, expected = np.asarray(aware(x)), model.predict(x, verbose=0)
    assert np.abs(found - expected).max() < 0.05 * np.abs(expected).max()


def test_all_sums_of_three_tensors_count_and_those_behind_a_dropout():
    inputs = keras.Input((6, 16), name="rows")
    branches = [L.Dense(16, name=name)(inputs) for name in ("first", "second")]
    total = L.Dropout(0.1, name="drop")(L.Add(name="sum")([inputs, *branches]))
    last = L.LayerNormalization(name="last")(total)
    model = keras.Model(inputs, L.Dense(2, name="head")(last), name="three")
    x = np.random.default_rng(0).normal(size=(32, 6, 16)).astype("float32")
    smooth, report = tfnas.smooth_activations(model, x, residual=True)
    readers = {each.source: each.readers for each in report.scaled}
    assert readers.keys() == {"first", "second", "last"}
    assert readers["second"] == ("second_back",)
    aware = tfnas.quantize_aware(smooth, WIDE, data=x)
    file = tfnas.to_tflite(aware, WIDE)
    assert [op.outputs[0].dtype for op in file.graph.operators if op.name == "ADD"][:2] == [
        "int16",
        "int16",
    ]
    steps = np.abs(file.predict(x, reference=True) - np.asarray(aware(x))) / file.outputs[0].scale
    assert steps.max() <= 2.01
    found = np.asarray(aware(x, training=True))  # the Dropout drops
    assert not np.array_equal(found, np.asarray(aware(x)))


def test_what_has_no_such_sums_is_refused():
    model = keras.Sequential([keras.Input((4,)), L.Dense(3, name="d")], name="flat")
    x = np.random.default_rng(0).normal(size=(16, 4)).astype("float32")
    with pytest.raises(ValueError, match="residual_bits must be 8 for 'flat', got 16: it has no"):
        tfnas.quantize_aware(model, WIDE)
    aware = tfnas.quantize_aware(model, "int8", data=x)
    with pytest.raises(ValueError, match="residual_bits must be 8 as model 'flat' was trained for"):
        tfnas.to_tflite(aware, WIDE)
    with pytest.raises(ValueError, match="residual must be True or False, got 1"):
        tfnas.smooth_activations(model, x, residual=1)


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"residual_bits": 12}, "residual_bits must be 8 or 16, got 12"),
        (
            {"residual_bits": 16, "activations": "float32"},
            "residual_bits 16 goes with integer activations, got 'float32'",
        ),
    ],
)
def test_bits_that_are_refused(settings, match):
    with pytest.raises(ValueError, match=match):
        tfnas.QuantSpec("int8", **settings)


def test_a_branch_that_ends_in_an_activation_is_named():
    inputs = keras.Input((6, 16))
    first = L.LayerNormalization(name="first")(inputs)
    branch = L.Dense(16, "tanh", name="dense")(first)
    last = L.LayerNormalization(name="last")(L.Add()([first, branch]))
    model = keras.Model(inputs, L.Dense(2, name="head")(last))
    x = np.random.default_rng(0).normal(size=(32, 6, 16)).astype("float32")
    _, report = tfnas.smooth_activations(model, x, residual=True)
    assert {each.name: each.kind for each in report.skipped} == {"dense": "Dense"}
