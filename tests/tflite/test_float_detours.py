"""Casts that only the converter needs go; those of the user's own layers stay."""

from __future__ import annotations

import keras
import numpy as np
import pytest

import tfnas

X = np.random.default_rng(0).normal(size=(40, 6)).astype("float32")


@tfnas.register_layer(macs=0)
@keras.saving.register_keras_serializable("tests")
class HalfPrecision(keras.layers.Layer):
    """Rounds numbers to float16."""

    def call(self, x):
        return keras.ops.cast(keras.ops.cast(x, "float16"), "float32")


@pytest.mark.parametrize("name", ["half", "float_half", "half_range"])
def test_casts_of_the_users_own_stay(name: str) -> None:
    inputs = keras.Input((6,), name="x")
    x = HalfPrecision(name=name)(keras.layers.Dense(4, name="before")(inputs))
    model = keras.Model(inputs, keras.layers.Dense(3, name="behind")(x), name="net")
    spec = tfnas.QuantSpec("int8", layers={"HalfPrecision": "float32"})
    operators = [op.name for op in tfnas.to_tflite(model, spec, X).graph.operators]
    assert operators.count("CAST") == 2, operators


def test_casts_for_the_converter_go() -> None:
    keras.utils.set_random_seed(0)
    inputs = keras.Input((6,), name="x")
    x = keras.layers.LayerNormalization(name="norm")(keras.layers.Dense(4, name="up")(inputs))
    model = keras.Model(inputs, keras.layers.Dense(3, name="down")(x), name="net")
    spec = tfnas.QuantSpec("int8", layers={"LayerNormalization": "float32"})
    file = tfnas.to_tflite(model, spec, X)
    operators = [op.name for op in file.graph.operators]
    assert "DEQUANTIZE" in operators
    assert "CAST" not in operators
    assert np.abs(file.predict(X) - model(X).numpy()).max() < 0.1
