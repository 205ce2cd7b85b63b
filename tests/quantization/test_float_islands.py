"""Layers that stay float in an integer file because the specification says so."""

import re

import keras
import numpy as np
import pytest
from keras import layers
from slow_cases import slow_but

import tfnas
from tfnas.graph.functional import Skipped
from tfnas.quantization.float_islands import layers_in_the_way, line_that_allows, with_islands
from tfnas.quantization.quantize_aware import quantize_aware_partly

X = np.random.default_rng(0).normal(size=(40, 6, 8)).astype("float32")
ISLANDS = {"LayerNormalization": "float32", "gelu": "float32", "elu_*": "float32"}


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(1)
    inputs = keras.Input((6, 8))
    x = layers.LayerNormalization()(layers.Dense(8, "gelu", name="first")(inputs))
    x = layers.ELU(name="elu_one")(layers.Dense(8)(x))
    return keras.Model(inputs, layers.Dense(3, name="head")(layers.Flatten()(x)))


@pytest.fixture(scope="module")
def trainable(model):
    return tfnas.quantize_aware(model, tfnas.QuantSpec("int8", layers=ISLANDS), data=X)


def float_operators(file):
    return {
        op.name
        for op in file.graph.operators
        if any(tensor.dtype == "float32" for tensor in (*op.inputs, *op.outputs))
    }


def test_layers_are_left_float_by_class_function_and_pattern(trainable):
    skipped = tfnas.unquantized_layers(trainable)
    assert {each.reason for each in skipped} == {"left float by the specification"}
    kinds = [each.kind for each in skipped]
    assert kinds == ["Activation", "LayerNormalization", "ELU"]


def test_islands_are_float_in_the_file_and_kernels_are_not(trainable):
    file = tfnas.to_tflite(trainable, "int8")
    floats = float_operators(file)
    assert {"GELU", "RSQRT", "ELU"} <= floats
    assert "FULLY_CONNECTED" not in floats
    assert "CAST" not in floats  # of a detour that only the converter needs
    steps = np.abs(file.predict(X) - trainable.predict(X, verbose=0)) / file.outputs[0].scale
    assert np.median(steps) <= 1.0
    assert steps.max() <= 4.01


def test_islands_after_training_and_without_are_the_same(model):
    spec = tfnas.QuantSpec("int8", layers={"LayerNormalization": "float32"})
    file = tfnas.to_tflite(model, spec, X)
    assert "RSQRT" in float_operators(file)
    assert "GELU" not in float_operators(file)
    with pytest.raises(ValueError, match=r"got GELU: no kernel$"):  # the island is no hindrance
        tfnas.check_micro(file)
    expected = model.predict(X, verbose=0)
    np.testing.assert_allclose(file.predict(X), expected, atol=0.05 * np.ptp(expected))


@pytest.mark.parametrize("layers_", [{"nothing": "float32"}, {"LayerNormalization": "int4"}])
def test_a_name_must_be_of_a_layer(model, layers_):
    with pytest.raises(ValueError, match="layers must name layers"):
        tfnas.quantize_aware(model, tfnas.QuantSpec("int8", layers=layers_))


def test_a_star_stands_for_the_layers_with_kernels(model):
    spec = tfnas.QuantSpec("int8", layers={"head": "int8", "*": "float32"})
    skipped = tfnas.unquantized_layers(tfnas.quantize_aware(model, spec))
    assert {each.kind for each in skipped} == {"Dense"}


def test_what_stands_in_the_way_is_named_with_the_line_that_allows_it():
    inputs = keras.Input((6, 8))
    x = layers.LayerNormalization(axis=1, name="odd")(layers.Dense(8)(inputs))
    odd = keras.Model(inputs, layers.Dense(3)(layers.Flatten()(x)))
    with pytest.raises(tfnas.ConversionError) as caught:
        tfnas.to_tflite(odd, "int8", X)
    assert "odd: no integer form of LayerNormalization over other axes" in str(caught.value)
    line = 'QuantSpec("int8", layers={"LayerNormalization": "float32"})'
    assert line in str(caught.value)
    file = tfnas.to_tflite(odd, eval(f"tfnas.{line}"), X)
    assert "FULLY_CONNECTED" not in float_operators(file)


def test_lines_of_other_formats():
    left = [Skipped("a", "Odd", "why"), Skipped("b", "Odd", "why"), Skipped("c", "Lambda", "why")]
    spec = tfnas.QuantSpec("int8", "int16", layers={"d": "float32"})
    assert line_that_allows(spec, left) == (
        'QuantSpec("int8", "int16", layers={"Odd": "float32", "c": "float32", "d": "float32"})'
    )
    assert with_islands(spec, left).layers[0] == ("Odd", "float32")


def test_layers_of_the_specification_do_not_stand_in_the_way(trainable):
    skipped = tfnas.unquantized_layers(trainable)
    spec = tfnas.QuantSpec("int8", layers=ISLANDS)
    assert layers_in_the_way(trainable, spec, skipped) == []
    assert layers_in_the_way(trainable, tfnas.QuantSpec(), skipped) == []


def refusal(model, spec="int8"):
    """The line in the message that refuses to train a model in integers."""
    with pytest.raises(ValueError, match="must have integers throughout") as caught:
        tfnas.quantize_aware(model, spec)
    return re.search(r"QuantSpec\(.*\)(?= leaves)", str(caught.value))[0]


@pytest.fixture(scope="module")
def odd():
    """Layers without an integer form, beside others of their classes that have one."""
    inputs = keras.Input((6, 8))
    x = layers.BatchNormalization()(layers.Conv1D(8, 1)(inputs))
    x = layers.BatchNormalization(axis=1, name="odd")(layers.Dense(8)(x))
    x = layers.Lambda(lambda v: v * v + 1.0, name="squares")(x)
    return keras.Model(inputs, layers.Dense(3)(layers.Flatten()(x)))


def test_training_refuses_and_names_the_line_that_allows(odd):
    line = refusal(odd)
    assert line == 'QuantSpec("int8", layers={"odd": "float32", "squares": "float32"})'
    trainable = tfnas.quantize_aware(odd, eval(f"tfnas.{line}"), data=X)
    assert [each.name for each in tfnas.unquantized_layers(trainable)] == ["odd", "squares"]
    file = tfnas.to_tflite(trainable, "int8")
    assert not {"FULLY_CONNECTED", "CONV_2D"} & float_operators(file)
    steps = np.abs(file.predict(X, reference=True) - trainable(X)) / file.outputs[0].scale
    assert np.median(steps) <= 1.0
    assert refusal(odd, "int16x8").startswith('QuantSpec("int8", "int16", layers=')


def test_jobs_that_choose_formats_leave_layers_float_and_say_so(odd, caplog):
    trainable = quantize_aware_partly(odd, data=X)
    assert [each.name for each in tfnas.unquantized_layers(trainable)] == ["odd", "squares"]
    assert 'layers={"odd": "float32", "squares": "float32"}' in caplog.text


def _swapped(a, b):
    return keras.ops.matmul(keras.ops.moveaxis(a, 1, 2), keras.ops.swapaxes(b, -1, 2))


# Class -> what joins two branches, and an operator that is float then.
JOINS = {
    "Dot": (lambda a, b: layers.Dot((2, 2), name="it")([a, b]), "BATCH_MATMUL"),
    "Dot of itself": (lambda a, b: layers.Dot((2, 2), name="it")([a, a]), "BATCH_MATMUL"),
    "Dot, normalized": (
        lambda a, b: layers.Dot((2, 2), normalize=True, name="it")([a, b]),
        "RSQRT",
    ),
    "Matmul": (_swapped, "BATCH_MATMUL"),
    "Einsum": (lambda a, b: keras.ops.einsum("bij,bkj->bik", a, b), "BATCH_MATMUL"),
    "Attention": (lambda a, b: layers.Attention(name="it")([a, b]), "SOFTMAX"),
    "MultiHeadAttention": (lambda a, b: layers.MultiHeadAttention(2, 4, name="it")(a, b), "MUL"),
    "Concatenate": (lambda a, b: layers.Concatenate(name="it")([a, b]), "CONCATENATION"),
    "Average": (lambda a, b: layers.Average(name="it")([a, b]), "ADD"),
    "Stack": (lambda a, b: keras.ops.stack([a, b], 1), "PACK"),
    "UpSampling1D": (lambda a, b: layers.UpSampling1D(2, name="it")(a), "TILE"),
    "Bidirectional": (
        lambda a, b: layers.Bidirectional(layers.LSTM(3), name="it")(a),
        "WHILE",
    ),
    "Masking": (lambda a, b: layers.LSTM(4)(layers.Masking(name="it")(a)), "SELECT_V2"),
}
OPERATIONS = ("Matmul", "Einsum", "Stack")  # these have no name of their own
CASES = [(kind, "class", "int8") for kind in JOINS]
CASES += [(kind, "name", "int8") for kind in JOINS if kind not in OPERATIONS]
CASES += [(kind, "class", "int16") for kind in ("Dot", "Concatenate", "UpSampling1D")]
FAST = [("Dot", "name", "int8"), ("MultiHeadAttention", "class", "int8")]


@pytest.mark.parametrize(("kind", "by", "activations"), slow_but(CASES, *FAST))
def test_a_layer_that_other_ones_compute_in_integers_is_left_whole(kind, by, activations):
    keras.utils.set_random_seed(2)
    inputs = keras.Input((6, 8))
    join, operator = JOINS[kind]
    x = join(layers.Dense(6, name="one")(inputs), layers.Dense(6, name="two")(inputs))
    whole = keras.Model(inputs, layers.Dense(3)(layers.Flatten()(x)))
    key = kind.split()[0].rstrip(",") if by == "class" else "it"
    spec = tfnas.QuantSpec("int8", activations, layers={key: "float32"})
    trainable = tfnas.quantize_aware(whole, spec, data=X)
    (left,) = tfnas.unquantized_layers(trainable)
    assert left.reason == "left float by the specification"
    file = tfnas.to_tflite(trainable, spec.mode)
    assert operator in float_operators(file)
    integers = [op for op in file.graph.operators if op.name == "FULLY_CONNECTED"]
    dtypes = [op.outputs[0].dtype for op in integers]
    assert dtypes.count(activations) >= 2
    after = tfnas.to_tflite(whole, spec, X)
    assert float_operators(after) == float_operators(file)
    assert list(after.origin["unquantized_layers"]) == [left.name]
    expected = np.asarray(trainable(X))
    steps = np.abs(file.predict(X, reference=True) - expected) / file.outputs[0].scale
    assert np.median(steps) <= 1.01
    assert steps.max() <= 4.01
    np.testing.assert_allclose(tfnas.strip_quantization(trainable)(X), whole(X), atol=1e-5)


def test_what_joins_numbers_of_a_float_layer_is_no_cause():
    inputs = keras.Input((4,))
    x = layers.Lambda(lambda v: v * v + 1.0, name="squares")(layers.Dense(4)(inputs))
    joined = layers.Concatenate()([x, layers.Dense(4)(inputs)])
    line = refusal(keras.Model(inputs, layers.Dense(2)(joined)))
    assert line == 'QuantSpec("int8", layers={"squares": "float32"})'
