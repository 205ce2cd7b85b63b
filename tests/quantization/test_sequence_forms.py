"""Sequence layers and reversals in normal form compute what the original computes."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from tfnas.graph.functional import walk
from tfnas.quantization.normal_form import normal_form

X = np.random.default_rng(0).normal(size=(3, 4, 3)).astype("float32")


def normal(outputs, inputs):
    model = keras.Model(inputs, outputs)
    flat, _ = normal_form(model)
    return model(X), flat(X), [call.kind for call in walk(flat).calls]


@pytest.mark.parametrize("mode", ["ave", "concat", "mul", "sum"])
def test_both_directions_are_two_layers_and_a_slice(mode):
    inputs = keras.Input((4, 3))
    wrapper = layers.Bidirectional(layers.GRU(2, return_sequences=True), merge_mode=mode)
    expected, found, kinds = normal(wrapper(inputs), inputs)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert {"Bidirectional", "Flip"}.isdisjoint(kinds)
    assert kinds.count("GRU") == 2


@pytest.mark.parametrize("axis", [1, -1, (1, 2), (-2,)])
def test_a_reversal_is_a_slice(axis):
    inputs = keras.Input((4, 3))
    expected, found, kinds = normal(ops.flip(inputs, axis=axis), inputs)
    np.testing.assert_array_equal(found, expected)
    assert kinds == ["GetItem"]


@pytest.mark.parametrize("axis", [None, 0, (0, 1)])
def test_a_reversed_batch_stays(axis):
    inputs = keras.Input((4, 3))
    expected, found, kinds = normal(ops.flip(inputs, axis=axis), inputs)
    np.testing.assert_array_equal(found, expected)
    assert kinds == ["Flip"]
