"""A layer that is called twice has a bias in the steps of each call."""

import keras
import numpy as np
import pytest
from keras import layers

import tfnas
from tfnas.tflite.shared_biases import BIASED, with_own_biases


def called_twice(kind, *arguments, shape):
    """A layer with large biases on its input, and on its own output four times as large."""
    keras.utils.set_random_seed(0)
    bias = keras.initializers.RandomNormal(0, 2.0, seed=1)
    more = {"padding": "same"} if kind == "Conv2D" else {}
    layer = getattr(layers, kind)(*arguments, activation="relu", bias_initializer=bias, **more)
    inputs = keras.Input(shape)
    return keras.Model(inputs, layer(layer(inputs) * 4.0))


def steps_of_biases(file):
    """Yields the steps of each bias, as a part of those that its operator adds."""
    for op in file.graph.operators:
        x, bias = BIASED.get(op.name, (0, len(op.inputs)))
        if bias < len(op.inputs):
            product = np.array(op.inputs[x].scales) * op.inputs[1].scales
            yield np.array(op.inputs[bias].scales) / product


@pytest.fixture(scope="module")
def dense():
    x = np.random.default_rng(0).normal(size=(64, 6)).astype("float32")
    model = called_twice("Dense", 6, shape=(6,))
    return model, x, tfnas.to_tflite(model, "int16x8", x)


def test_a_bias_of_16_bits_is_that_of_each_call(dense):
    model, x, file = dense
    assert len(list(steps_of_biases(file))) == 2
    np.testing.assert_allclose(list(steps_of_biases(file)), 1, rtol=1e-3)
    expected = model.predict(x, verbose=0)
    error = np.abs(file.predict(x) - expected).max() / np.abs(expected).max()
    assert error < 0.02  # 0.5 with one bias for both calls
    assert tfnas.verify(model, file, x).passed


def test_a_bias_of_a_convolution_is_that_of_each_call():
    x = np.random.default_rng(0).normal(size=(32, 6, 6, 4)).astype("float32")
    file = tfnas.to_tflite(called_twice("Conv2D", 4, 3, shape=(6, 6, 4)), "int16x8", x)
    found = [steps for steps in steps_of_biases(file) if len(steps)]
    np.testing.assert_allclose(found, 1, rtol=1e-3)


def test_files_with_nothing_to_mend_stay_as_they_are(dense):
    _, _, file = dense
    assert with_own_biases(file.content) is file.content
    assert with_own_biases(b"not even a file") == b"not even a file"
