"""Integer files of words and masks, and of layers that stay float by name."""

import keras
import numpy as np
import pytest
from coverage_checks.technique_checks import steps_apart
from keras import layers, ops

import tfnas
from tfnas.quantization.quantize_aware import quantize_aware_partly


def test_a_mean_over_the_steps_that_a_mask_leaves():
    words = np.random.default_rng(0).integers(1, 50, (40, 6)).astype("int32")
    words[::2, 3:] = 0  # masked
    inputs = keras.Input((6,), dtype="int32")
    x = layers.Embedding(50, 8, mask_zero=True, name="table")(inputs)
    x = layers.GlobalAveragePooling1D(name="mean")(x)
    model = keras.Model(inputs, layers.Dense(3)(x))
    trainable = tfnas.quantize_aware(model, data=words)
    expected = model.predict(words, verbose=0)
    span = np.ptp(expected)
    np.testing.assert_allclose(trainable.predict(words, verbose=0), expected, atol=0.03 * span)
    file = tfnas.to_tflite(model, "int8", words)
    assert "unquantized_layers" not in file.origin
    np.testing.assert_allclose(file.predict(words), expected, atol=0.05 * span)


def test_words_with_activations_of_16_bits():
    words = np.random.default_rng(0).integers(1, 50, (40, 6)).astype("int32")
    inputs = keras.Input((6,), dtype="int32")
    x = layers.GlobalAveragePooling1D()(layers.Embedding(50, 8, name="table")(inputs))
    model = keras.Model(inputs, layers.Dense(3)(x))
    file = tfnas.to_tflite(model, "int16x8", words)
    assert "unquantized_layers" not in file.origin
    expected = model.predict(words, verbose=0)
    np.testing.assert_allclose(file.predict(words), expected, atol=0.02 * np.ptp(expected))


def test_a_stack_of_two_ranges_has_one_scale():
    """The converter alone gives the stack the range of its first tensor, and clips the other."""
    inputs = keras.Input((4,))
    small, large = layers.Dense(4, "sigmoid")(inputs), layers.Dense(4)(inputs)
    stacked = ops.stack([small, 20 * large], axis=1)
    model = keras.Model(inputs, layers.Dense(3)(stacked))
    x = np.random.default_rng(0).normal(size=(60, 4)).astype("float32")
    trainable = tfnas.quantize_aware(model, data=x)
    assert tfnas.unquantized_layers(trainable) == []
    file = tfnas.to_tflite(trainable, "int8")
    expected = np.asarray(trainable(x))
    np.testing.assert_allclose(file.predict(x), expected, atol=2.01 * file.outputs[0].scale)
    wide = tfnas.quantize_aware(model, "int16x8", data=x)
    found = tfnas.to_tflite(wide, "int16x8").predict(x)
    np.testing.assert_allclose(found, np.asarray(model(x)), atol=0.01 * np.ptp(expected))


@keras.saving.register_keras_serializable("test_partly_float_files")
class Heads(layers.GroupQueryAttention):
    """A class of the user, which is not opened."""


def test_integers_that_are_moved_into_a_float_layer():
    """The converter else gives the products of an attention the integers of a Permute."""
    inputs = keras.Input((2, 5))
    x = layers.Permute((2, 1))(layers.Dense(5)(layers.Dense(5, "relu")(inputs)))
    x = Heads(3, 4, 2, name="heads")(x, x)
    model = keras.Model(inputs, layers.Dense(3)(x))
    data = np.random.default_rng(0).normal(size=(60, 2, 5)).astype("float32")
    trainable = quantize_aware_partly(model, data=data)
    file = tfnas.to_tflite(trainable, "int8")
    assert list(file.origin["unquantized_layers"]) == ["heads"]
    expected = np.asarray(trainable(data))
    np.testing.assert_allclose(file.predict(data), expected, atol=2.01 * file.outputs[0].scale)


def test_dense_layers_before_an_attention(tmp_path):
    """The converter else gives the attention's float products the integers of the Dense layers."""
    inputs = keras.Input((5, 4))
    query, value = layers.Dense(6)(inputs), layers.Dense(6)(inputs)
    x = Heads(3, 4, 2, name="heads")(query, value)
    model = keras.Model(inputs, layers.Dense(3)(x))
    data = np.random.default_rng(0).normal(size=(60, 5, 4)).astype("float32")
    trainable = quantize_aware_partly(model, data=data)
    assert [each.name for each in tfnas.unquantized_layers(trainable)] == ["heads"]
    file = tfnas.to_tflite(trainable, "int8")
    expected = np.asarray(trainable(data))
    np.testing.assert_allclose(file.predict(data), expected, atol=2.01 * file.outputs[0].scale)
    trainable.save(tmp_path / "model.keras")
    again = tfnas.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(again(data), expected, atol=1e-6)
    plain = tfnas.strip_quantization(trainable)
    np.testing.assert_allclose(plain(data), model(data), atol=1e-6)


def test_a_sum_of_a_tensor_with_itself():
    inputs = keras.Input((5, 4))
    x = layers.Dense(6)(inputs)
    model = keras.Model(inputs, layers.Dense(3)(x + x))
    data = np.random.default_rng(0).normal(size=(60, 5, 4)).astype("float32")
    trainable = tfnas.quantize_aware(model, data=data)
    file = tfnas.to_tflite(trainable, "int8")
    median, most, depth = steps_apart(trainable, file, data)
    assert median <= 1.001
    assert most <= depth


@pytest.mark.parametrize("mode", ["int8", "int16x8"])
def test_integers_that_are_joined_with_numbers(mode):
    numbers, codes = keras.Input((3,), name="numbers"), keras.Input((2,), dtype="int32")
    joined = layers.Concatenate()([numbers, ops.cast(codes, "int32")])
    model = keras.Model([numbers, codes], layers.Dense(4)(joined))
    rng = np.random.default_rng(0)
    data = [rng.normal(size=(60, 3)).astype("float32"), rng.integers(0, 4000, (60, 2), "int32")]
    trainable = tfnas.quantize_aware(model, mode, data=data)
    expected = np.asarray(model(data))
    np.testing.assert_allclose(trainable(data), expected, atol=0.02 * np.ptp(expected))


def test_a_model_that_returns_its_input_has_no_integer_file():
    inputs = keras.Input((4,))
    model = keras.Model(inputs, layers.Dropout(0.1)(inputs), name="nothing")
    with pytest.raises(tfnas.ConversionError, match="'nothing' must compute its outputs"):
        tfnas.to_tflite(model, "int8", np.ones((10, 4), "float32"))


def test_a_spectrogram_before_integer_layers():
    sound = np.random.default_rng(0).normal(size=(10, 256, 1)).astype("float32")
    inputs = keras.Input((256, 1))
    x = layers.STFTSpectrogram("log", 64, 32, 64, name="spectrum")(inputs)
    x = layers.GlobalAveragePooling1D()(layers.Conv1D(4, 3, activation="relu")(x))
    model = keras.Model(inputs, layers.Dense(2)(x))
    file = tfnas.to_tflite(model, "int8", sound)
    assert list(file.origin["unquantized_layers"]) == ["spectrum"]
    kernels = [op.inputs[1].dtype for op in file.graph.operators if op.name == "FULLY_CONNECTED"]
    assert kernels == ["int8"]
    expected = model.predict(sound, verbose=0)
    np.testing.assert_allclose(file.predict(sound), expected, atol=0.1 * np.ptp(expected))
