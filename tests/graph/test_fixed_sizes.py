"""A model behind inputs of other sizes: blocks, models inside and their names stay."""

import keras
import numpy as np
from keras import layers

import tfnas
from tfnas.graph.fixed_sizes import with_sizes
from tfnas.graph.functional import walk


class Block(layers.Layer):
    """A layer of the user's own that holds a layer, whose name other blocks have too."""

    def __init__(self, **options):
        super().__init__(**options)
        self.dense = layers.Dense(4, name="dense")

    def call(self, x):
        return x + self.dense(x)


def test_blocks_and_models_with_layers_of_one_name():
    x = keras.Input((None, 4), name="series")
    inner = keras.Input((None, 4))
    nested = keras.Model(inner, Block(name="block")(layers.Conv1D(4, 3, name="conv")(inner)))
    y = nested(Block(name="second")(Block(name="first")(x)))
    model = keras.Model(x, layers.GlobalAveragePooling1D(name="mean")(nested(y)), name="net")
    fixed = tfnas.as_functional(model, input_shape=(9, 4))
    data = np.random.default_rng(0).normal(size=(2, 9, 4)).astype("float32")
    np.testing.assert_allclose(fixed(data), model(data), atol=1e-6)
    assert {id(weight) for weight in fixed.weights} == {id(weight) for weight in model.weights}
    convolved = [call.outputs[0].shape for call in walk(fixed).calls if call.kind == "Conv1D"]
    assert convolved == [(None, 7, 4), (None, 5, 4)]  # called twice, with series of two lengths
    assert tfnas.profile(fixed).macs == 16 * (9 + 9) + 48 * (7 + 5) + 16 * (7 + 5)


def test_structures_and_names_of_inputs_stay():
    inputs = {name: keras.Input((None, 2), name=name) for name in ("b", "a")}
    total = layers.Add(name="sum")([inputs["a"], inputs["b"]])
    model = keras.Model(inputs, {"total": total}, name="net")
    fixed = with_sizes(model, [(None, 3, 2) for _ in model.inputs])
    assert fixed.output["total"].shape == (None, 3, 2)
    assert {name: tensor.shape for name, tensor in fixed.input.items()} == {
        "a": (None, 3, 2),
        "b": (None, 3, 2),
    }
