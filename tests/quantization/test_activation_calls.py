"""Own activation functions, tables of places and reversible tables in files of integers alone."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import tfnas
from tfnas.graph.functional import walk
from tfnas.quantization.normal_form import normal_form

WORDS, STEPS, WIDTH = 12, 6, 8
X = np.random.default_rng(0).integers(0, WORDS, (48, STEPS)).astype("int32")


def gelu_by_tanh(x):
    return keras.activations.gelu(x, approximate=True)


def quick_gelu(x):
    return x * ops.sigmoid(1.702 * x)


def gelu(x):
    """Not what the function of Keras of this name computes."""
    return ops.tanh(x)


class Places(layers.Layer):
    """Rows of a table by their places."""

    def build(self, input_shape):
        self.table = self.add_weight(shape=(STEPS, input_shape[-1]), name="table")

    def call(self, x):
        return ops.broadcast_to(self.table, ops.shape(x))


@pytest.fixture(scope="module")
def network():
    keras.utils.set_random_seed(0)
    ids = keras.Input((STEPS,), dtype="int32", name="ids")
    words = layers.ReversibleEmbedding(WORDS, WIDTH, name="words")(ids)
    x = layers.Add(name="sum")([words, Places(name="places")(words)])
    for function in (gelu_by_tanh, quick_gelu, gelu):
        x = layers.Dense(WIDTH, activation=function, name=function.__name__)(x)
    x = layers.Activation(quick_gelu, name="last")(x)
    return keras.Model(ids, layers.Dense(3, name="head")(x), name="net")


def test_functions_become_the_operations_that_they_call(network):
    kinds = [call.kind for call in walk(normal_form(network)[0]).calls]
    assert "Activation" not in kinds
    assert (kinds.count("Gelu"), kinds.count("Tanh"), kinds.count("Sigmoid")) == (1, 1, 2)
    flat = normal_form(network)[0]
    np.testing.assert_allclose(flat(X), network(X), atol=1e-6)


def test_a_function_that_is_no_graph_stays_an_activation():
    x = keras.Input((4,))
    own = layers.Lambda(lambda y: y, name="own")
    model = keras.Model(x, layers.Dense(2, activation=None, name="dense")(own(x)))
    assert [call.kind for call in walk(normal_form(model)[0]).calls] == ["Lambda", "Dense"]


def test_the_file_is_of_integers_alone_and_agrees(network):
    trainable = tfnas.quantize_aware(network, data=X)
    assert tfnas.unquantized_layers(trainable) == []
    file = tfnas.to_tflite(trainable, "int8")
    floats = [t.name for t in file.graph.tensors if t.dtype.startswith("float")]
    assert floats == []
    expected = trainable.predict(X, verbose=0)
    steps = np.abs(file.predict(X, reference=True) - expected) / file.outputs[0].scale
    assert np.median(steps) <= 1.001
    assert steps.max() <= 4.001
