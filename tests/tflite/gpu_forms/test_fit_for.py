"""`to_tflite(fit_for="gpu")`: Keras models whose files the GPU delegate takes whole."""

import logging

import keras
import numpy as np
import pytest
from keras import layers

import tfnas


@pytest.fixture(scope="module")
def model():
    """A network with an open batch that normalizes, shuffles channels, and excites them."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(12, 3, strides=2, padding="same", activation="relu", name="stem")(inputs)
    x = layers.Permute((1, 2, 4, 3), name="turn")(layers.Reshape((4, 4, 3, 4))(x))
    x = layers.Reshape((4, 4, 12), name="shuffled")(x)
    gate = layers.Reshape((1, 1, 12))(layers.GlobalAveragePooling2D()(x))
    x = layers.Multiply()([x, layers.Conv2D(12, 1, activation="sigmoid")(gate)])
    x = layers.UpSampling2D(2)(x)
    return keras.Model(inputs, layers.Dense(4, name="head")(layers.Flatten()(x)))


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).normal(size=(16, 8, 8, 3)).astype("float32")


@pytest.fixture(scope="module")
def fitted(model):
    return tfnas.to_tflite(model, fit_for="gpu")


def test_a_network_is_taken_whole_and_verified(model, images, fitted):
    verdict = tfnas.readiness(fitted, ["gpu"]).of("gpu")
    assert verdict.complete
    assert verdict.partitions == 1
    record = fitted.origin["fit_for"]
    assert (record["runtime"], record["fallbacks_after"], record["share_after"]) == ("gpu", 0, 1.0)
    assert record["fallbacks_before"] > 10
    assert record["rewritten"]["TRANSPOSE"] == 1
    assert record["difference"] <= 1e-5
    assert tfnas.verify(model, fitted, images).passed


def test_integer_files_have_equal_outputs(model, images, caplog):
    with caplog.at_level(logging.INFO, "tfnas"):
        file = tfnas.to_tflite(model, "int8", images, fit_for="gpu")
    assert tfnas.readiness(file, ["gpu"]).complete
    assert file.origin["fit_for"]["difference"] == 0.0
    assert "operators left; now 100.0% of the MACs in 1 part, 0 operators left" in caplog.text


def test_wrong_arguments_are_named(model):
    with pytest.raises(ValueError, match="fit_for must be one of gpu, got 'gpus'"):
        tfnas.to_tflite(model, fit_for="gpus")
    with pytest.raises(ValueError, match="fit_for must be None for sparse and for streaming"):
        tfnas.to_tflite(model, sparse=True, fit_for="gpu")
