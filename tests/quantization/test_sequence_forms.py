"""Sequence layers and reversals in normal form compute what the original computes."""

import keras
import numpy as np
import pytest
from keras import layers, ops
from slow_cases import slow_but

from tfnas.graph.functional import walk
from tfnas.quantization.normal_form import normal_form

X = np.random.default_rng(0).normal(size=(3, 4, 3)).astype("float32")


def normal(outputs, inputs):
    model = keras.Model(inputs, outputs)
    flat, _ = normal_form(model)
    return model(X), flat(X), [call.kind for call in walk(flat).calls]


@pytest.mark.parametrize("mode", slow_but(["ave", "concat", "mul", "sum"], "concat", "ave"))
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


def test_each_masked_call_of_a_layer_zeroes_its_outputs():
    shared = layers.GRU(3, return_sequences=True, zero_output_for_mask=True)
    x, mask = keras.Input((5, 2)), keras.Input((5,), dtype="bool")
    state = keras.Input((3,))
    outputs = [shared(x, mask=mask), shared(x, mask=mask, initial_state=state)]
    model = keras.Model([x, mask, state], outputs)
    rng = np.random.default_rng(0)
    data = [rng.normal(size=(4, 5, 2)), rng.random((4, 5)) < 0.5, rng.normal(size=(4, 3))]
    opened, _ = normal_form(model)
    for one, two in zip(opened(data), model(data), strict=True):
        np.testing.assert_allclose(one, two, rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "SimpleRNN"])
def test_the_activation_of_a_recurrent_layer_stays_inside_of_its_steps(kind):
    """Also in a TimeDistributed, whose dense layers are split from theirs."""
    inputs = keras.Input((4, 3))
    parts = keras.ops.reshape(inputs, (-1, 2, 2, 3))
    expected, found, kinds = normal(layers.TimeDistributed(getattr(layers, kind)(2))(parts), inputs)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert kinds.count(kind) == 1
    assert "Activation" not in kinds
