"""Operations without a TFLite kernel that other ones compute exactly."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops

import tfnas
from tfnas.tflite.forms_for_conversion import add, largest_place, pooled, roll, smallest_place


@pytest.mark.parametrize(
    ("shift", "axis"),
    [(1, 1), (-2, 2), (7, 0), (0, 1), ((1, -1), (1, 2)), (2, (1, 1)), (5, None), (-1, -1)],
)
def test_a_roll_by_slices_is_that_of_tensorflow(shift, axis):
    x = np.arange(24).reshape(2, 3, 4)
    expected = np.roll(x, shift, axis)
    np.testing.assert_array_equal(roll(x, shift, axis), expected)


def test_a_roll_of_open_sizes():
    x = tf.constant(np.arange(12).reshape(3, 4))
    rolled = tf.function(lambda t: roll(t, 1, 0), input_signature=[tf.TensorSpec((None, 4))])
    np.testing.assert_array_equal(rolled(tf.cast(x, tf.float32)), np.roll(x, 1, 0))


def test_a_model_with_rolls_converts():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((4, 6, 3))
    x = ops.roll(layers.Conv2D(4, 1)(inputs), (1, -2), axis=(1, 2))
    model = keras.Model(inputs, layers.Dense(2)(ops.roll(x, 1)))
    data = np.random.default_rng(0).normal(size=(1, 4, 6, 3)).astype("float32")
    file = tfnas.to_tflite(model)
    np.testing.assert_allclose(file.predict(data), model(data), atol=1e-5)


@pytest.mark.parametrize(
    ("x", "y"),
    [
        *[((2, 3, 4), y) for y in ((3, 1), (1, 3, 1), (3,), (4,), (1, 4), (3, 4), (2, 3, 4), ())],
        *[((2, 3, 3), y) for y in ((3, 1), (3,))],  # Keras adds both along the last axis
        *[((1, 3, 1), (3, 1)), ((1, 3, 4, 5), (3, 1, 1)), ((2, 3, 2, 2, 2), (3, 1, 1, 1))],
        *[((4,), (3, 1)), ((3, 1), (2, 3, 4)), ((), (3, 1)), ((2, 3), (3,))],
    ],
)
def test_sums_are_those_of_keras(x, y):
    rng = np.random.default_rng(0)
    one, other = (rng.normal(size=shape).astype("float32") for shape in (x, y))
    np.testing.assert_array_equal(add(one, other), ops.add(one, other))


def test_sums_along_the_second_axis_convert():
    """The converter refused a bias of channels in any model that is not one of images."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((5, 4))
    x = layers.EinsumDense("abc,cd->adb", (6, None), bias_axes="d")(inputs)
    model = keras.Model(
        inputs, layers.Permute((2, 1))(x + np.float32([[1], [2], [3], [4], [5], [6]]))
    )
    model.layers[1].bias.assign(np.arange(6.0)[:, None])
    data = np.random.default_rng(0).normal(size=(20, 5, 4)).astype("float32")
    expected = np.asarray(model(data))
    np.testing.assert_allclose(tfnas.to_tflite(model).predict(data), expected, atol=1e-5)
    int8 = tfnas.to_tflite(model, "int8", data)
    np.testing.assert_allclose(int8.predict(data), expected, atol=0.02 * np.ptp(expected))


@pytest.mark.parametrize("pool", [ops.max_pool, ops.average_pool])
@pytest.mark.parametrize(
    ("window", "strides", "padding"),
    [(2, None, "valid"), ((2, 3, 2), 1, "same"), ((3, 2, 1), (2, 3, 1), "same"), (3, 2, "valid")],
)
def test_pooling_in_three_dimensions_is_that_of_keras(pool, window, strides, padding):
    x = np.random.default_rng(0).normal(size=(2, 5, 6, 7, 3)).astype("float32")
    expected = pool(x, window, strides, padding)
    np.testing.assert_allclose(pooled(pool, x, window, strides, padding), expected, atol=1e-6)


def test_a_network_of_videos_converts():
    """TFLite has no pooling in three dimensions: each format was refused."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((4, 8, 8, 2))
    x = layers.Conv3D(4, 3, padding="same", activation="relu")(inputs)
    x = layers.MaxPooling3D((1, 2, 2))(x) + layers.AveragePooling3D(2, (1, 2, 2), "same")(x)
    model = keras.Model(inputs, layers.Dense(2)(layers.GlobalAveragePooling3D()(x)))
    videos = np.random.default_rng(0).normal(size=(20, 4, 8, 8, 2)).astype("float32")
    assert tfnas.verify(model, tfnas.to_tflite(model), videos).passed


@pytest.mark.parametrize(
    ("axis", "keepdims"), [(1, False), (-1, True), (None, False), (None, True)]
)
def test_places_are_those_of_numpy(axis, keepdims):
    x = np.random.default_rng(0).integers(-3, 3, (3, 4, 2))
    for place, expected in ((largest_place, np.argmax), (smallest_place, np.argmin)):
        for values in (x, x.astype("float32"), x.astype("uint8")):
            found = place(values, axis, keepdims)
            np.testing.assert_array_equal(found, expected(values, axis=axis, keepdims=keepdims))


def test_a_model_that_gives_classes_converts():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((6,))
    x = layers.Dense(5)(inputs)
    model = keras.Model(inputs, [ops.argmax(x, axis=-1), ops.argmin(x, axis=1, keepdims=True)])
    data = np.random.default_rng(0).normal(size=(20, 6)).astype("float32")
    for one, other in zip(tfnas.to_tflite(model).predict(data), model(data), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_name_that_tensorflow_refuses_is_in_the_error():
    model = keras.Sequential([keras.Input((4,)), layers.Dense(2, name="own head")])
    with pytest.raises(tfnas.ConversionError, match="'own head' is not a valid"):
        tfnas.to_tflite(model)
    assert keras.Variable(0.0, name="next").path == "next"  # Keras would leave the scope open


def test_an_input_that_nothing_reads_may_stay_float():
    used, unused = keras.Input((3,), name="used"), keras.Input((2,), name="unused")
    model = keras.Model([unused, used], layers.Dense(2)(used))
    data = [np.ones((8, 2), "float32"), np.random.default_rng(0).random((8, 3), np.float32)]
    file = tfnas.to_tflite(tfnas.quantize_aware(model, data=data), "int8")
    assert {t.name: t.dtype for t in file.inputs} == {"unused": "float32", "used": "int8"}
    expected = np.asarray(model(data))
    np.testing.assert_allclose(file.predict(data), expected, atol=0.03 * np.ptp(expected))


def test_layers_too_small_for_dynamic_weights_are_named(caplog):
    model = keras.Sequential(
        [keras.Input((32,)), layers.Dense(64, name="large"), layers.Dense(2, name="small")]
    )
    file = tfnas.to_tflite(model, "dynamic")
    assert list(file.origin["unquantized_layers"]) == ["small"]
    assert "1,024" in file.origin["unquantized_layers"]["small"]
    assert "stays float" not in caplog.text
    tiny = keras.Sequential([keras.Input((4,)), layers.Dense(2, name="small")])
    tfnas.to_tflite(tiny, "dynamic")
    assert "small stays float" in caplog.text
    x = np.zeros((4, 4), "float32")
    with pytest.raises(ValueError, match="all float32, also in small"):
        tfnas.quantization_error(tiny, tfnas.to_tflite(tiny, "dynamic"), x)
