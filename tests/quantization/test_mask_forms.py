"""Masking layers in integer files: which steps count is found by comparing integers."""

import keras
import numpy as np
import pytest
from keras import layers as L

import tfnas

RNG = np.random.default_rng(0)


def network(value):
    """Two recurrent layers behind a Masking, and examples of which some have masked steps."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((7, 3), name="series")
    x = L.LSTM(4, return_sequences=True, name="lstm")(L.Masking(value, name="masking")(inputs))
    model = keras.Model(inputs, L.GRU(4, name="gru")(x), name="masked")
    series = RNG.uniform(-1.2, 1.0, (64, 7, 3)).astype("float32")
    series[:30, 4:] = series[30:40, :2] = series[40] = value
    series[41, 3] = (value, value, value + 0.1)  # a step that counts
    return model, series


@pytest.fixture(scope="module")
def case():
    model, x = network(-1.0)
    aware = tfnas.quantize_aware(model, "int8", data=x)
    return model, x, aware, tfnas.to_tflite(aware, "int8")


def test_nothing_stays_float_and_the_same_steps_are_masked(case):
    model, x, aware, _ = case
    assert tfnas.unquantized_layers(aware) == []
    expected = model.predict(x, verbose=0)
    assert np.abs(np.asarray(aware(x)) - expected).max() < 0.04 * np.ptp(expected)
    np.testing.assert_allclose(tfnas.strip_quantization(aware)(x), expected, atol=1e-6)


def test_the_file_compares_integers_and_is_what_keras_computes(case):
    _, x, aware, file = case
    operators = [op for graph in file.graphs for op in graph.operators]
    (compared,) = [op for op in operators if op.name == "NOT_EQUAL"]
    assert {each.dtype for each in compared.inputs} == {"int32"}
    outputs = {each.dtype for op in operators for each in op.outputs}
    assert outputs <= {"int8", "int16", "int32", "bool"}
    apart = np.abs(file.predict(x, reference=True) - np.asarray(aware(x))) / file.outputs[0].scale
    assert apart.max() <= 1.01
    assert apart.mean() < 0.05


def test_neighbors_of_the_value_count_in_both(case):
    """The kernels of NOT_EQUAL for 8 bits would take some of them for the value itself."""
    _, x, aware, file = case
    step = file.inputs[0].scale
    near = x[:16].copy()
    near[:, 4:] = -1.0 + step * RNG.integers(-2, 3, (16, 3, 1))
    apart = np.abs(file.predict(near, reference=True) - np.asarray(aware(near)))
    assert apart.max() <= 1.01 * file.outputs[0].scale


@pytest.mark.slow
@pytest.mark.parametrize(("mode", "value"), [("int16x8", 0.5), ("int8", 0.0)])
def test_other_bits_and_values(mode, value):
    model, x = network(value)
    aware = tfnas.quantize_aware(model, mode, data=x)
    assert tfnas.unquantized_layers(aware) == []
    file = tfnas.to_tflite(model, mode, x)
    expected = model.predict(x, verbose=0)
    assert np.abs(file.predict(x, reference=True) - expected).max() < 0.04 * np.ptp(expected)


def test_a_value_that_the_numbers_cannot_have_is_refused():
    inputs = keras.Input((5, 3))
    x = keras.layers.Dense(2, "relu", name="positive")(inputs)
    model = keras.Model(inputs, keras.layers.LSTM(3)(keras.layers.Masking(-1.0)(x)))
    with pytest.raises(ValueError, match=r"mask_value must be .* 0 to inf, .*, got -1"):
        tfnas.quantize_aware(model, "int8")
