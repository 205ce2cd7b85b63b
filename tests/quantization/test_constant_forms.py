"""A constant array that is added or multiplied has a range of its own in an integer file."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import tfnas

rng = np.random.default_rng(0)
X = rng.normal(size=(60, 6, 8)).astype(np.float32)
TABLE = rng.normal(size=(6, 8)).astype(np.float32)
FACTORS = rng.uniform(0.5, 2.0, 8).astype(np.float32)
CASES = {
    "sum": lambda x: x + TABLE,
    "sum, by name": lambda x: ops.add(x1=x, x2=2 * TABLE[None]),
    "difference": lambda x: ops.subtract(ops.convert_to_tensor(TABLE), x),
    "product": lambda x: x * FACTORS,
    "quotient": lambda x: x / FACTORS,
    "maximum": lambda x: ops.maximum(x, TABLE),
    "before relu": lambda x: ops.relu(x + 3 * TABLE),
}


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(1)
    inputs = keras.Input((6, 8))
    x = layers.Dense(8, name="dense")(inputs)
    return keras.Model(inputs, [case(x) for case in CASES.values()])


@pytest.fixture(scope="module")
def trainable(model):
    return tfnas.quantize_aware(model, data=X)


def test_outputs_are_near_those_of_the_float_model(model, trainable):
    for name, found, expected in zip(CASES, trainable(X), model(X), strict=True):
        step = np.ptp(np.asarray(expected)) / 255
        assert np.abs(found - expected).max() <= 4 * step, name


def test_the_file_equals_its_model_and_has_integers_alone(trainable):
    file = tfnas.to_tflite(trainable, "int8")
    assert all("int" in str(tensor.dtype) for tensor in file.outputs)
    found = file.predict(X, reference=True)
    for name, one, two, output in zip(CASES, found, trainable(X), file.outputs, strict=True):
        steps = np.abs(one - np.asarray(two)) / output.scale
        assert np.median(steps) <= 0.001, name
        assert steps.max() <= 1.001, name


def test_the_trained_model_is_saved_and_loaded(trainable, tmp_path):
    trainable.save(tmp_path / "model.keras")
    loaded = tfnas.load_model(tmp_path / "model.keras")
    for one, two in zip(loaded(X), trainable(X), strict=True):
        np.testing.assert_array_equal(one, two)


def test_16_bits_refuse_a_constant(model):
    with pytest.raises(ValueError, match="no integer form of a constant"):
        tfnas.quantize_aware(model, "int16x8", data=X)
