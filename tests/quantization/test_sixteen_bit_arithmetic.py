"""Functions of 16-bit numbers by arithmetic, since there is no table of 65,536."""

from __future__ import annotations

import keras
import numpy as np
import pytest

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


def activated(function: str) -> keras.Model:
    inputs = keras.Input((6,), name="x")
    hidden = keras.layers.Dense(8, name="hidden")(inputs)
    chosen = keras.layers.Activation(function, name="chosen")(hidden)
    return keras.Model(inputs, keras.layers.Rescaling(2.0, name="twice")(chosen))


@pytest.mark.parametrize("function", ["gelu", "hard_silu", "hard_sigmoid"])
def test_the_users_names_of_a_function_of_several_layers_leave_it_float(function: str) -> None:
    model = activated(function)
    for name in ("chosen", "Activation", function):
        spec = tfnas.QuantSpec("int8", "int16", layers={name: "float32"})
        aware = tfnas.quantize_aware(model, spec)
        assert [layer.name for layer in tfnas.unquantized_layers(aware)] == ["chosen"], name
    with pytest.raises(ValueError, match="matches none of hidden, chosen, Activation"):
        tfnas.quantize_aware(model, tfnas.QuantSpec("int8", "int16", layers={"?": "float32"}))


def test_classes_of_the_inner_layers_do_not_stand_for_a_function() -> None:
    spec = tfnas.QuantSpec("int8", "int16", layers={"Rescaling": "float32"})
    aware = tfnas.quantize_aware(activated("hard_sigmoid"), spec)
    assert [layer.name for layer in tfnas.unquantized_layers(aware)] == ["twice"]
