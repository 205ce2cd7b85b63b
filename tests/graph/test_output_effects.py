"""Effects of changed kernels by one backward pass, beside running the changed model."""

import keras
import numpy as np
import pytest

from tfnas.graph.divergence import divergence, outputs_of
from tfnas.graph.output_effects import KernelChange, effects_on_outputs


@pytest.fixture(scope="module")
def batches():
    x = np.random.default_rng(0).normal(size=(128, 6, 6, 3)).astype("float32")
    return [x[:64], x[64:]]


@pytest.fixture(scope="module")
def body():
    keras.utils.set_random_seed(0)
    layers = keras.layers
    inputs = keras.Input((6, 6, 3))
    x = layers.Conv2D(6, 3, activation="tanh", name="first")(inputs)
    x = layers.ReLU()(layers.BatchNormalization()(layers.DepthwiseConv2D(3, name="each")(x)))
    return inputs, layers.Flatten()(x)


def changed(model, names):
    rng = np.random.default_rng(1)
    layers = [model.get_layer(name) for name in names]
    return [
        KernelChange(layer, 0.01 * rng.normal(size=layer.kernel.shape), np.zeros(1))
        for layer in layers
    ]


@pytest.mark.parametrize("head", ["logits", "probabilities", "numbers"])
def test_effects_are_the_divergence_of_the_changed_model(body, batches, head):
    inputs, x = body
    units, activation = (2, None) if head == "numbers" else (5, None)
    if head == "probabilities":
        activation = "softmax"
    outputs = keras.layers.Dense(units, activation, name="last")(x)
    if head == "numbers":
        outputs = keras.layers.Reshape((2, 1))(outputs)
    model = keras.Model(inputs, outputs)
    changes = changed(model, ("first", "each", "last"))
    found = np.mean([effects_on_outputs(model, changes, batches, seed) for seed in range(3)], 0)
    before = outputs_of(model, batches)
    expected = []
    for change in changes:
        kernel = np.array(change.layer.kernel)
        change.layer.kernel.assign(kernel + change.kernel)
        expected.append(divergence(before, outputs_of(model, batches)))
        change.layer.kernel.assign(kernel)
    np.testing.assert_allclose(found, expected, rtol=0.3)  # of 384 squares of random numbers


def test_a_shift_that_a_bias_corrects_is_taken_off():
    layer = keras.layers.Dense(1, name="only")
    model = keras.Sequential([keras.Input((4,)), layer])
    x = np.repeat(np.float32([1.0, 3.0]), 64)[:, None] * np.ones((1, 4), "float32")
    effects = [
        effects_on_outputs(model, [KernelChange(layer, np.full((4, 1), 0.25), shift)], [x])[0]
        for shift in (np.array([2.0]), np.zeros(1))
    ]  # the output moves by 1 or 3; by -1 or 1 without the mean
    assert 0.15 < effects[0] / effects[1] < 0.27


def test_the_model_is_not_changed(body, batches):
    inputs, x = body
    model = keras.Model(inputs, keras.layers.Dense(3, name="last")(x))
    before = [np.array(weight) for weight in model.get_weights()]
    effects_on_outputs(model, changed(model, ("first", "last")), batches[:1])
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    assert "call" not in vars(model.get_layer("first"))
    assert model.get_layer("first").activation is keras.activations.tanh
