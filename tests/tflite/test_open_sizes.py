"""Files of models that leave sizes open beside the batch."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import tfnas
from tfnas.tflite.forms_for_conversion import repeat


def normal(*shape):
    return np.random.default_rng(0).normal(size=shape).astype("float32")


def valid_series():
    inputs = keras.Input((None, 5))
    x = layers.Conv1D(4, 3, dilation_rate=2)(layers.Conv1D(8, 3, activation="relu")(inputs))
    return keras.Model(inputs, layers.GlobalAveragePooling1D()(x)), normal(16, 11, 5)


def picture_to_picture():
    inputs = keras.Input((None, None, 3))
    x = layers.UpSampling2D()(layers.Conv2D(4, 3, strides=2, padding="same")(inputs))
    return keras.Model(inputs, layers.Conv2D(2, 3, padding="same")(x)), normal(8, 8, 12, 3)


@pytest.mark.parametrize("build", [valid_series, picture_to_picture])
def test_they_convert_and_run_at_any_size(build, tmp_path):
    """LiteRT refused a window wider than the 1 that a file stores for an open size."""
    keras.utils.set_random_seed(0)
    model, x = build()
    found = tfnas.verify(model, tfnas.to_tflite(model), x)
    assert found.passed
    assert any(check.case.startswith("inputs of") for check in found.checks)
    file = tfnas.to_tflite(model, "int8", x)
    file.save(tmp_path / "model.tflite")
    again = tfnas.Artifact.load(tmp_path / "model.tflite")
    expected = model.predict(x, verbose=0)
    assert np.abs(again.predict(x) - expected).max() < 0.1 * np.abs(expected).max()


def test_repeated_places_are_those_of_keras():
    x = normal(2, 3, 4)
    for repeats, axis in ((2, 1), (3, -1), (2, 0), (2, None), ([1, 0, 2], 1)):
        np.testing.assert_array_equal(repeat(x, repeats, axis), ops.repeat(x, repeats, axis))


def test_a_model_that_needs_sizes_is_told_how_to_give_them():
    inputs = keras.Input((None, None, 3), name="picture")
    x = layers.UpSampling2D(interpolation="bilinear")(inputs)
    model = keras.Model(inputs, layers.Conv2D(2, 3)(x))
    match = r"input 'picture' leaves sizes open, \(None, None, None, 3\): input_shape= gives them"
    with pytest.raises(tfnas.ConversionError, match=match):
        tfnas.to_tflite(model)
    assert tfnas.to_tflite(model, input_shape=(8, 8, 3)).inputs[0].shape == (-1, 8, 8, 3)


def test_a_sequence_too_short_for_a_window_is_named():
    inputs = keras.Input((None, 5))
    x = layers.GlobalAveragePooling1D()(layers.Conv1D(4, 5)(inputs))
    predict = tfnas.to_tflite(keras.Model(inputs, x)).predictor()
    with pytest.raises(RuntimeError, match=r"must get sizes .* got \(1, 3, 5\); .* more places"):
        predict(np.ones((4, 3, 5), "float32"))
    assert predict(np.ones((4, 9, 5), "float32")).shape == (4, 4)
