"""Functions of 16-bit numbers by arithmetic, since there is no table of 65,536."""

from __future__ import annotations

import keras
import numpy as np

import tfnas


def test_magnitudes_squares_and_gates_have_16_bits() -> None:
    inputs = keras.Input((6,), name="x")
    hidden = keras.layers.Dense(8, name="hidden")(inputs)
    gate = keras.layers.Activation("hard_sigmoid")(hidden)
    outputs = [keras.ops.abs(hidden), keras.ops.square(hidden), gate, keras.ops.absolute(hidden)]
    model = keras.Model(inputs, keras.ops.concatenate(outputs, axis=-1))
    x = np.random.default_rng(0).normal(size=(60, 6)).astype("float32")
    file = tfnas.to_tflite(model, "int16x8", x)
    assert {tensor.dtype for tensor in file.graph.tensors} <= {"int8", "int16", "int32", "int64"}
    expected = model.predict(x, verbose=0)
    # Weights of 8 bits are the larger part of it.
    assert np.abs(file.predict(x, reference=True) - expected).max() < 0.02 * np.abs(expected).max()
