"""Poolings of one tensor that are joined do not narrow its range."""

import keras
import numpy as np
import pytest
from keras import layers

import tfnas
from tfnas.tflite.narrowed_ranges import has_narrowed_range

X = np.random.default_rng(0).normal(size=(48, 8, 8, 3)).astype("float32")


def network(activation, join):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(8, 3, activation=activation)(inputs)
    return keras.Model(inputs, layers.Dense(4)(layers.Concatenate()(join(x))))


def average_and_largest(x):
    return [layers.GlobalAveragePooling2D()(x), layers.GlobalMaxPooling2D()(x)]


def pyramid(x):
    return [layers.Flatten()(layers.AveragePooling2D(3)(x)), layers.GlobalAveragePooling2D()(x)]


def with_the_tensor(x):
    return [layers.Flatten()(x), layers.GlobalAveragePooling2D()(x)]


@pytest.mark.parametrize(
    ("activation", "join"), [("tanh", average_and_largest), ("relu", pyramid), (None, pyramid)]
)
def test_poolings_that_are_joined(activation, join):
    """The converter clipped the convolution; outputs were off by 0.1 to 0.3."""
    model = network(activation, join)
    file = tfnas.to_tflite(model, "int8", X)
    assert not has_narrowed_range(file.graph)
    expected = model.predict(X, verbose=0)
    error = np.sqrt(np.square(file.predict(X) - expected).mean() / np.square(expected).mean())
    assert error < 0.05


@pytest.mark.parametrize(
    ("activation", "join"), [("relu", average_and_largest), (None, with_the_tensor)]
)
def test_a_range_that_holds_all_that_is_joined_stays(activation, join, monkeypatch):
    def fail(conversion):
        raise AssertionError("converted twice")

    monkeypatch.setattr("tfnas.tflite.passes.convert_model.with_ranges", fail)
    assert tfnas.to_tflite(network(activation, join), "int8", X).mode == "int8"
