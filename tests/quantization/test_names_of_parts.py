"""Parts of a layer in normal form never have the name of another layer of the model."""

import keras
import numpy as np
import pytest

import tfnas
from tfnas.quantization.quantized_kernel import QuantizedKernel

X = np.random.default_rng(0).normal(size=(20, 6, 4)).astype("float32")


def attention_before(name: str) -> keras.Model:
    inputs = keras.Input((6, 4))
    attended = keras.layers.MultiHeadAttention(2, 2, name="look")(inputs, inputs)
    return keras.Model(inputs, keras.layers.Dense(4, name=name)(attended))


def bits(model: keras.Model) -> dict[str, int]:
    return {e.layer.name: e.bits for e in model.layers if isinstance(e, QuantizedKernel)}


@pytest.mark.parametrize("name", ["look_key", "look_key_1"])
def test_a_pattern_finds_the_layer_of_the_user(name: str) -> None:
    spec = tfnas.QuantSpec("int8", layers={name: "int4"})
    found = bits(tfnas.quantize_aware(attention_before(name), spec, data=X))
    assert found.pop(name) == 4
    assert set(found.values()) == {8}
    assert len(found) == 4


def test_halves_of_a_separable_convolution() -> None:
    layers = [
        keras.Input((6, 4)),
        keras.layers.SeparableConv1D(3, 2, name="mix"),
        keras.layers.Conv1D(3, 2, name="mix_pointwise"),
    ]
    spec = tfnas.QuantSpec("int8", layers={"mix_pointwise": "int4"})
    found = bits(tfnas.quantize_aware(keras.Sequential(layers), spec, data=X))
    assert found == {"mix_depthwise": 8, "mix_pointwise_1": 8, "mix_pointwise": 4}


def test_a_misspelt_name_of_a_layer_that_is_opened_has_a_near_one() -> None:
    spec = tfnas.QuantSpec("int8", layers={"lok": "float32"})
    with pytest.raises(ValueError, match=r"matches none of .*; did you mean 'look'"):
        tfnas.quantize_aware(attention_before("d"), spec)
