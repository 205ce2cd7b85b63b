"""Conversion through a frozen SavedModel writes the same file as TensorFlow's own way."""

import gc

import keras
import numpy as np
import pytest
from keras import layers

import tfnas
from tfnas.tflite import frozen_saved_model
from tfnas.tflite.frozen_saved_model import can_be_frozen, without_old_garbage


def two_ends():
    """Two inputs, not in alphabetical order, and outputs by name; nested, with batch statistics."""
    wide, narrow = keras.Input((8, 8, 3), name="wide"), keras.Input((5,), name="narrow")
    inner = keras.Sequential([keras.Input((8, 8, 3)), layers.Conv2D(8, 3), layers.ReLU()])
    x = layers.BatchNormalization()(layers.DepthwiseConv2D(3)(inner(wide)))
    x = layers.Concatenate()([layers.Flatten()(x), layers.Dense(4, activation="relu")(narrow)])
    named = {"scores": layers.Dense(3)(x), "area": layers.Dense(1, activation="sigmoid")(x)}
    return keras.Model([wide, narrow], named)


def chain():
    """A Sequential model with dropout, and with the custom gradient of silu."""
    return keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            layers.Conv2D(8, 3, activation="relu"),
            layers.Dropout(0.5),
            layers.Flatten(),
            layers.Dense(4, activation="silu"),
            layers.Dense(4, activation="softmax"),
        ]
    )


def contents(artifact):
    """Operators with their options, weights, types, shapes and scales, without names and order."""

    def described(tensor):
        numbers = tensor.constant and hash(tensor.constant)
        return tensor.dtype, tensor.shape, tensor.scales, tensor.zero_points, numbers

    return sorted(
        str((op.name, vars(op.options) if op.options else {}, *map(described, ends)))
        for op in artifact.graph.operators
        for ends in [(*op.inputs, *op.outputs)]
    )


@pytest.mark.parametrize("make", [two_ends, chain])
@pytest.mark.parametrize("mode", ["float32", "float16", "dynamic", "int8", "int16x8"])
def test_the_file_is_that_of_from_keras_model(make, mode, monkeypatch):
    keras.utils.set_random_seed(0)
    model = make()
    rng = np.random.default_rng(0)
    data = [rng.normal(size=(20, *tensor.shape[1:])).astype("float32") for tensor in model.inputs]
    data = data if len(data) > 1 else data[0]
    calibration = data if mode in ("int8", "int16x8") else None
    fast = tfnas.to_tflite(model, mode, calibration)
    monkeypatch.setattr("tfnas.tflite.convert.can_be_frozen", lambda model: False)
    plain = tfnas.to_tflite(model, mode, calibration)
    assert contents(fast) == contents(plain)
    for ends in ("inputs", "outputs"):
        assert [t.name for t in getattr(fast, ends)] == [t.name for t in getattr(plain, ends)]
    for one, other in zip(fast.predict(data), plain.predict(data), strict=True):
        np.testing.assert_array_equal(one, other)


def test_trained_ranges_become_the_same_file(monkeypatch):
    keras.utils.set_random_seed(0)
    data = np.random.default_rng(0).normal(size=(20, 8, 8, 3)).astype("float32")
    trainable = tfnas.quantize_aware(chain(), "int8", data=data)
    fast = tfnas.to_tflite(trainable, "int8")
    monkeypatch.setattr("tfnas.tflite.convert.can_be_frozen", lambda model: False)
    assert contents(fast) == contents(tfnas.to_tflite(trainable, "int8"))


def test_models_without_constants_are_not_frozen(monkeypatch):
    assert can_be_frozen(chain())
    monkeypatch.setattr(frozen_saved_model, "_MOST_BYTES", 100)
    assert not can_be_frozen(chain())


def test_the_collector_is_left_as_it_was():
    with without_old_garbage():
        assert gc.get_freeze_count()
    assert not gc.get_freeze_count()
    gc.freeze()
    try:
        with without_old_garbage():
            pass
        assert gc.get_freeze_count()
    finally:
        gc.unfreeze()
