"""Integer files of models whose first layers have no integer form: they stay float, by name."""

import keras
import numpy as np
from keras import layers

import tfnas


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
    assert {"table", "mean"} <= set(file.origin["unquantized_layers"])
    assert "with a mask" in file.origin["unquantized_layers"]["mean"]
    np.testing.assert_allclose(file.predict(words), expected, atol=0.05 * span)


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
