"""Ids are not rounded, also where the model's input is of floats."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import tfnas
from tfnas.quantization.integer_inputs import with_integer_inputs

IDS = np.arange(600, dtype="float32")[:, None]


def embedding():
    keras.utils.set_random_seed(0)
    own = [layers.Embedding(600, 4, name="rows"), layers.Flatten(), layers.Dense(3)]
    return keras.Sequential([keras.Input((1,), name="ids"), *own])


def one_hot():
    keras.utils.set_random_seed(0)
    own = [layers.CategoryEncoding(600, output_mode="one_hot"), layers.Dense(3)]
    return keras.Sequential([keras.Input((1,), name="ids"), *own])


@pytest.mark.parametrize("build", [embedding, one_hot])
def test_the_file_looks_up_the_ids_themselves(build, caplog):
    model = build()
    file = tfnas.to_tflite(model, "int8", IDS)
    assert file.inputs[0].dtype == "int32"
    assert "ids is int32 in the file" in caplog.text
    found = file.predict(IDS, reference=True)
    np.testing.assert_allclose(found, model.predict(IDS, verbose=0), atol=0.005)


def test_a_quantization_aware_model_looks_up_the_ids_themselves():
    model = embedding()
    trainable = tfnas.quantize_aware(model, data=IDS)
    assert trainable.inputs[0].dtype == "int32"
    expected = model.predict(IDS, verbose=0)
    np.testing.assert_allclose(trainable.predict(IDS, verbose=0), expected, atol=0.005)


def test_ids_may_be_moved_and_masked_first():
    inputs = keras.Input((2, 3), name="ids")
    rows = layers.Embedding(9, 4, mask_zero=True)(layers.Reshape((6,))(inputs))
    model = keras.Model(inputs, layers.GlobalAveragePooling1D()(rows))
    assert with_integer_inputs(model).inputs[0].dtype == "int32"


def test_inputs_of_numbers_stay_as_they_are():
    model = keras.Sequential([keras.Input((4,)), layers.Dense(2)])
    assert with_integer_inputs(model) is model


def test_ids_beside_numbers_are_refused_by_name():
    inputs = keras.Input((3,), name="columns")
    rows = layers.Flatten()(layers.Embedding(9, 4, name="rows")(inputs[:, :1]))
    both = layers.Concatenate()([rows, layers.Dense(4, name="numbers")(inputs[:, 1:])])
    model = keras.Model(inputs, layers.Dense(1)(both))
    x = np.ones((8, 3), "float32")
    with pytest.raises(ValueError, match=r"'columns' must hold ids alone .* 'rows' .* 'numbers'"):
        tfnas.to_tflite(model, "int8", x)
    with pytest.raises(ValueError, match="'columns' must hold ids alone"):
        tfnas.quantize_aware(model)


PIXELS = np.random.default_rng(0).integers(0, 256, (16, 6, 6, 3)).astype("uint8")
PIXELS[0, 0, 0, :2] = 0, 255


def pictures(*before):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((6, 6, 3), dtype="uint8", name="picture")
    x = inputs
    for layer in before:
        x = layer(x)
    return keras.Model(inputs, layers.Dense(3)(layers.Flatten()(x)))


@pytest.mark.parametrize("mode", ["int8", "int8x4"])
def test_integers_that_are_numbers_have_the_integers_of_the_file(mode, caplog):
    """The converter kept a cast of floats, and the file was refused for it."""
    model = pictures(layers.Rescaling(1 / 127.5, -1))
    file = tfnas.to_tflite(model, mode, PIXELS)
    assert "picture has the type of an input of floats in the file" in caplog.text
    (tensor,) = file.inputs
    assert (tensor.name, tensor.dtype) == ("picture", "int8")
    assert (tensor.scale, tensor.zero_point) == (1.0, -128)  # each pixel as it is
    expected = model.predict(PIXELS, verbose=0)
    bound = 0.05 if mode == "int8" else 0.5
    assert np.abs(file.predict(PIXELS) - expected).max() < bound * np.abs(expected).max()


@pytest.mark.parametrize("divided", [lambda x: ops.cast(x, "float32") / 255.0, lambda x: x / 255.0])
def test_integers_that_are_cast_to_floats_are_numbers(divided):
    model = pictures(divided)
    expected = model.predict(PIXELS, verbose=0)
    file = tfnas.to_tflite(model, "int8", PIXELS)
    assert (file.inputs[0].dtype, file.inputs[0].scale) == ("int8", 1.0)
    assert np.abs(file.predict(PIXELS) - expected).max() < 0.05 * np.abs(expected).max()
    trainable = tfnas.quantize_aware(model)
    trainable.compile("adam", "mse")
    trainable.fit(PIXELS, np.zeros((16, 3)), verbose=0)
    aware = tfnas.to_tflite(trainable)
    steps = np.abs(aware.predict(PIXELS, reference=True) - trainable.predict(PIXELS, verbose=0))
    assert steps.max() <= 2.01 * aware.outputs[0].scale


def test_ids_that_are_cast_to_floats_stay_integers():
    inputs = keras.Input((4,), dtype="int32")
    x = layers.Embedding(5, 2)(ops.cast(inputs, "float32"))
    assert with_integer_inputs(keras.Model(inputs, x)).inputs[0].dtype == "int32"


def test_a_quantization_aware_model_takes_the_numbers_of_pixels():
    normalization = layers.Normalization(mean=[100.0, 90.0, 80.0], variance=[900.0, 800.0, 700.0])
    trainable = tfnas.quantize_aware(pictures(layers.Permute((2, 1, 3)), normalization))
    trainable.compile("adam", "mse")
    trainable.fit(PIXELS, np.zeros((16, 3)), verbose=0)
    assert tfnas.unquantized_layers(trainable) == []
    file = tfnas.to_tflite(trainable)
    steps = np.abs(file.predict(PIXELS, reference=True) - trainable.predict(PIXELS, verbose=0))
    assert steps.max() <= 2.01 * file.outputs[0].scale


def test_integers_that_are_read_as_integers_stay():
    inputs = keras.Input((4,), dtype="int32")
    x = layers.Flatten()(layers.Embedding(5, 2)(inputs))
    scaled = layers.Rescaling(0.5)(inputs)  # of the ids
    model = keras.Model(inputs, layers.Dense(2)(layers.Concatenate()([x, scaled])))
    assert with_integer_inputs(model) is model
