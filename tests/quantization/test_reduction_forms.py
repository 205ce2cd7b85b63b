"""Sums, maxima and minima over axes are those of the file."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import tfnas
from tfnas.graph.functional import walk
from tfnas.quantization.normal_form import normal_form

X = np.random.default_rng(0).normal(size=(64, 6, 5)).astype("float32")


def reduced():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((6, 5))
    wide, plain = layers.Dense(8, activation="relu")(inputs), layers.Dense(4)(inputs)
    outputs = [
        layers.Dense(3)(ops.max(wide, axis=1)),
        ops.min(plain, axis=-1),
        ops.sum(plain, axis=1),
        layers.Dense(2)(ops.sum(wide, axis=-1, keepdims=True)),
    ]
    return keras.Model(inputs, outputs)


@pytest.mark.parametrize("mode", ["int8", pytest.param("int16x8", marks=pytest.mark.slow)])
def test_reductions_of_the_file_are_those_of_the_model(mode):
    model = reduced()
    trainable = tfnas.quantize_aware(model, mode, X)
    file = tfnas.to_tflite(trainable, mode)
    operators = [op.name for op in file.graph.operators]
    assert "SUM" not in operators
    assert {"REDUCE_MAX", "REDUCE_MIN", "MEAN"} < set(operators)
    expected, floats = trainable.predict(X, verbose=0), model.predict(X, verbose=0)
    found = file.predict(X, reference=True)
    for a, b, c, tensor in zip(found, expected, floats, file.outputs, strict=True):
        assert np.abs(a - b).max() <= 2.001 * tensor.scale
        assert np.abs(a - c).max() <= 0.05 * np.ptp(c)


def test_a_file_of_8_bits_without_training_is_right_on_all_kernels():
    inputs = keras.Input((6, 5))
    model = keras.Model(inputs, ops.sum(layers.Dense(8, activation="relu")(inputs), axis=1))
    file = tfnas.to_tflite(model, "int8", X)
    expected = model.predict(X, verbose=0)
    for reference in (False, True):  # without XNNPACK its SUM was off by half of the range
        found = file.predict(X, reference=reference)
        assert np.abs(found - expected).max() <= 0.05 * np.ptp(expected)


@pytest.mark.slow
def test_a_file_of_16_bits_without_training_has_no_sum():
    model = reduced()
    file = tfnas.to_tflite(model, "int16x8", X)  # the converter's SUM was off by 0.6 of the range
    assert "SUM" not in [op.name for op in file.graph.operators]
    for a, b in zip(file.predict(X), model.predict(X, verbose=0), strict=True):
        assert np.abs(a - b).max() <= 0.02 * np.ptp(b)


@pytest.mark.parametrize(
    ("axis", "keepdims"), [(1, False), (-1, True), ((1, 2), False), ((-2, 2), True)]
)
def test_a_sum_is_a_mean_of_as_many(axis, keepdims):
    inputs = keras.Input((6, 5))
    model = keras.Model(inputs, ops.sum(inputs, axis=axis, keepdims=keepdims))
    flat, _ = normal_form(model)
    assert "Sum" not in [call.kind for call in walk(flat).calls]
    assert flat.output_shape == model.output_shape
    np.testing.assert_allclose(flat(X), model(X), atol=1e-5)


@pytest.mark.parametrize("axis", [None, 0, (0, 1)])
def test_a_sum_over_the_batch_stays_float(axis):
    inputs = keras.Input((6, 5))
    model = keras.Model(inputs, ops.sum(inputs, axis=axis, keepdims=True))
    flat, _ = normal_form(model)
    assert [call.kind for call in walk(flat).calls] == ["Sum"]
