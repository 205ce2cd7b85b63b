"""Recurrent layers with fake quantization: training, saving, zeros, the way back."""

import keras
import numpy as np
import pytest
from keras import layers

import tfnas
from tfnas.quantization.aware_models import fake_quants
from tfnas.quantization.recurrent_cells import RecurrentStep
from tfnas.quantization.recurrent_forms import step_layers

STEPS, FEATURES = 5, 3
X = np.random.default_rng(0).normal(size=(32, STEPS, FEATURES)).astype("float32")


def network(layer):
    keras.utils.set_random_seed(3)
    return keras.Sequential([keras.Input((STEPS, FEATURES)), layer, layers.Dense(2, name="end")])


class FloatMath:
    """Computes a step in NumPy, without rounding."""

    def __init__(self, cell):
        self.cell = cell
        self.bias = np.asarray(cell.bias).reshape(-1, cell.kernel.shape[-1])

    def product(self, x, kernel, bias, name, columns=None):
        weights = np.asarray(getattr(self.cell, kernel))
        weights = weights if columns is None else weights[:, columns[0] : columns[1]]
        return x @ weights + (0 if bias is None else self.bias[bias])

    def add(self, first, second, name):
        return first + second

    def subtract(self, first, second, name):
        return first - second

    def multiply(self, first, second, name):
        return first * second

    def split(self, x, parts):
        return np.split(x, parts, axis=-1)

    def activate(self, x, function, name):
        return np.asarray(keras.activations.get(function)(x))


STEPPED = {
    "LSTM": lambda: layers.LSTM(4),
    "GRU": lambda: layers.GRU(4),
    "GRU with the reset before": lambda: layers.GRU(4, reset_after=False),
    "SimpleRNN": lambda: layers.SimpleRNN(4, activation="relu"),
}


@pytest.mark.parametrize("kind", STEPPED)
def test_a_step_is_that_of_keras(kind):
    layer = STEPPED[kind]()
    layer.build((None, STEPS, FEATURES))
    rng = np.random.default_rng(5)
    layer.set_weights([rng.normal(size=w.shape) for w in layer.get_weights()])
    step, math = RecurrentStep(layer), FloatMath(layer.cell)
    states = [rng.normal(size=(6, 4)).astype("float32") for _ in step.states]
    _, expected = layer.cell(X[:6, 0], states)
    for found, one in zip(step(math, X[:6, 0], states), expected, strict=True):
        np.testing.assert_allclose(found, one, rtol=0, atol=1e-5)


def test_training_moves_weights_and_ranges_and_is_saved(tmp_path):
    layer = layers.LSTM(4, dropout=0.2, recurrent_dropout=0.1, name="memory")
    trainable = tfnas.quantize_aware(network(layer))
    assert not all(each.observed for each in fake_quants(trainable))
    trainable.compile("adam", "mse", run_eagerly=True)
    before = [np.array(w) for w in step_layers(trainable)[0].layer.get_weights()]
    trainable.fit(X, X[:, -1, :2], epochs=1, verbose=0)
    assert all(each.observed for each in fake_quants(trainable))
    after = step_layers(trainable)[0].layer.get_weights()
    assert all((one != other).any() for one, other in zip(before, after, strict=True))
    trainable.save(tmp_path / "model.keras")
    loaded = tfnas.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded.predict(X, verbose=0), trainable.predict(X, verbose=0))


def test_the_way_back_and_zeros():
    model = network(layers.GRU(6, name="memory"))
    pruned = tfnas.prune(model, 0.5)[0]
    trainable = tfnas.quantize_aware(pruned, data=X)
    trainable.compile("adam", "mse", run_eagerly=True)
    trainable.fit(X, X[:, -1, :2], epochs=1, verbose=0)
    back = tfnas.strip_quantization(trainable)
    assert [type(layer).__name__ for layer in back.layers[1:]] == ["GRU", "Dense"]
    kernel = np.asarray(back.get_layer("memory").cell.kernel)
    assert (kernel == 0).mean() >= 0.45


def test_ranges_that_functions_prescribe_need_no_data():
    layer = layers.LSTM(4)
    known = {name for name, fixed in RecurrentStep(layer).ranges(16).items() if fixed is not None}
    assert known == {"keep", "new", "enter", "shown", "show", "hidden"}
    relu = RecurrentStep(layers.LSTM(4, activation="relu")).ranges(8)
    assert relu["hidden"] is None
    assert relu["keep"] == (0.0, 255 / 256)


@pytest.mark.slow  # tests/quantization/test_quantize_aware.py has learned ranges
def test_learned_ranges_learn():
    spec = tfnas.QuantSpec(ranges="learned", state_bits=8)  # of 16 bits little is left to learn
    trainable = tfnas.quantize_aware(network(layers.GRU(4)), spec, data=X)
    trainable.compile(keras.optimizers.SGD(10.0), "mse", jit_compile=False)
    inside = [each for each in step_layers(trainable)[0].fake_quants if each.fixed is None]
    before = np.array([float(each.high) for each in inside])
    trainable.fit(X, X[:, -1, :2], epochs=1, verbose=0)
    after = np.array([float(each.high) for each in inside])
    assert np.abs(after / before - 1).max() > 1e-4


def test_steps_have_16_bits_unless_8_are_asked_for():
    model = network(layers.GRU(4))
    bits = {
        spec.mode: step_layers(tfnas.quantize_aware(model, spec))[0].state_bits
        for spec in (tfnas.QuantSpec(), tfnas.QuantSpec("int8", "int16", state_bits=8))
    }
    assert bits == {"int8": 16, "int16x8": 16}
    fast = tfnas.quantize_aware(model, tfnas.QuantSpec(state_bits=8))
    assert step_layers(fast)[0].state_bits == 8
    with pytest.raises(ValueError, match="state_bits must be 8 or 16, got 12"):
        tfnas.QuantSpec(state_bits=12)


def test_a_layer_may_stay_float():
    spec = tfnas.QuantSpec(layers={"memory": "float32"})
    (skipped,) = tfnas.unquantized_layers(
        tfnas.quantize_aware(network(layers.LSTM(4, name="memory")), spec)
    )
    assert (skipped.name, skipped.reason) == ("memory", "left float by the specification")
