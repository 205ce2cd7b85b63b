"""A constant array that is added or multiplied has a range of its own in an integer file."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import tfnas
from tfnas.quantization.normal_form import normal_form

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
    "a first step of zeros": lambda x: ops.concatenate(
        [ops.zeros_like(x[:, :1]), x[:, :-1]], axis=1
    ),
    "a first step of ones": lambda x: ops.concatenate([ops.ones_like(x[:, :1]), x], axis=1),
    "product with one number": lambda x: x * ops.full_like(x, 0.7),
    "rows of places": lambda x: x + layers.Embedding(6, 8)(places(x)),
}


def places(x):
    """The numbers of the steps, for each example, as tensors of integers."""
    return ops.cumsum(ops.ones_like(x[:, :, 0], dtype="int32"), axis=1) - 1


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
    with pytest.raises(ValueError, match="no 16-bit form of a constant"):
        tfnas.quantize_aware(model, "int16x8", data=X)


def test_a_mask_that_is_added_to_scores_is_no_constant_with_a_range():
    inputs = keras.Input((6, 4))
    mask = np.triu(np.full((6, 6), -1e9, np.float32), 1)
    scores = ops.matmul(inputs, ops.transpose(inputs, (0, 2, 1))) + mask
    model = keras.Model(inputs, ops.matmul(layers.Softmax()(scores), inputs))
    with pytest.raises(ValueError, match="Add with a constant"):
        tfnas.quantize_aware(model, data=X[:, :, :4])


def test_a_sum_keeps_its_type():
    inputs = keras.Input((6, 8))
    half = layers.Dense(8, dtype="mixed_float16")(inputs)
    model = keras.Model(inputs, half + 1e3 * TABLE)
    opened, _ = normal_form(model)
    assert opened.outputs[0].dtype == model.outputs[0].dtype
    np.testing.assert_array_equal(opened(X), model(X))


def test_a_table_of_positions_beside_words_with_a_mask():
    ids = rng.integers(0, 9, (20, 6))
    inputs = keras.Input((6,), dtype="int32")
    words = layers.Embedding(9, 8, mask_zero=True)(inputs)
    model = keras.Model(inputs, layers.LSTM(3)(words + TABLE))
    opened, _ = normal_form(model)
    np.testing.assert_allclose(opened(ids), model(ids), rtol=0, atol=1e-6)
