"""The choice of layers that keep 8 bits, by what 4 bits do to the outputs."""

import dataclasses
import itertools
import math

import keras
import numpy as np
import pytest

import tfnas
from tfnas.quantization.eight_bit_layers import most_valuable, with_eight_bit_layers

FOUR_BITS = tfnas.QuantSpec("int4", "int8", rounding="second_order")


@pytest.fixture(scope="module")
def data():
    return np.random.default_rng(0).normal(size=(48, 8, 8, 3)).astype("float32")


@pytest.fixture(scope="module")
def model(data):
    """Two branches of equal layers, of which one hardly counts; EinsumDense can't be fitted."""
    keras.utils.set_random_seed(0)
    layers = keras.layers
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(8, 3, activation="relu", name="first")(inputs)
    x = layers.ReLU()(layers.BatchNormalization()(layers.DepthwiseConv2D(3, name="each")(x)))
    quiet = layers.Conv2D(8, 1, name="quiet")(x)
    loud = layers.Conv2D(8, 1, name="loud")(x)
    x = layers.Add()([layers.Rescaling(0.01)(quiet), loud])
    x = layers.GlobalAveragePooling2D()(layers.ReLU()(x))
    outputs = layers.EinsumDense("ab,bc->ac", (5,), name="last")(x)
    return keras.Model(inputs, outputs)


def chosen(model, share, data, **options):
    spec = dataclasses.replace(FOUR_BITS, eight_bit_share=share, **options)
    return [
        name for name, bits in with_eight_bit_layers(model, spec, data).layers if bits == "int8"
    ]


def test_layers_that_change_the_outputs_most_keep_8_bits(model, data):
    found = chosen(model, 0.9, data)
    assert "loud" in found
    assert "quiet" not in found
    assert "last" in found  # rounded to nearest, with one scale


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 1.0])
def test_they_have_at_most_a_share_of_the_weights(model, data, share):
    sizes = {x.name: math.prod(x.kernel.shape) for x in model.layers if hasattr(x, "kernel")}
    found = chosen(model, share, data)
    assert len(set(found)) == len(found)
    assert sum(sizes[name] for name in found) <= share * sum(sizes.values())
    assert (len(found) == 0, len(found) == len(sizes)) == (share == 0, share == 1)


def test_layers_that_are_named_stay_as_they_are(model, data):
    spec = dataclasses.replace(FOUR_BITS, eight_bit_share=1.0, layers={"loud": "int4"})
    assert with_eight_bit_layers(model, spec, data).weight_bits("loud", "Conv2D") == 4
    assert with_eight_bit_layers(model, tfnas.QuantSpec("int8"), data).layers == ()


@pytest.mark.parametrize("seed", range(5))
def test_the_items_are_the_most_valuable_of_all_choices(seed):
    rng = np.random.default_rng(seed)
    sizes, values = rng.integers(100, 900, size=8), rng.random(8)
    fitting = [
        list(each)
        for count in range(9)
        for each in itertools.combinations(range(8), count)
        if sizes[list(each)].sum() <= 800
    ]
    best = max(fitting, key=lambda each: values[each].sum())
    assert most_valuable(sizes.tolist(), values.tolist(), 800) == best
