"""Blocks, layers of the user's own that hold layers, are opened where their graph says all."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import tfnas
from tfnas.graph.functional import walk


class Residual(layers.Layer):
    """A convolution with normalization beside the identity; it can be created again."""

    def __init__(self, filters, **options):
        super().__init__(**options)
        self.filters = filters
        self.first = layers.Conv2D(2 * filters, 3, padding="same", use_bias=False)
        self.norm = layers.BatchNormalization()
        self.second = layers.Conv2D(filters, 1)
        self.drop = layers.Dropout(0.2)

    def call(self, x, training=None):
        y = ops.relu(self.norm(self.first(x), training=training))
        return ops.relu(x + self.drop(self.second(y), training=training))

    def get_config(self):
        return {**super().get_config(), "filters": self.filters}


class Twice(layers.Layer):
    """Blocks in a block, without a `get_config`."""

    def __init__(self, filters):
        super().__init__()
        self.parts = [Residual(filters), Residual(filters)]

    def call(self, x):
        for part in self.parts:
            x = part(x)
        return x


def network(block, name="net"):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((6, 6, 3))
    x = layers.Conv2D(4, 3, padding="same", activation="relu", name="stem")(inputs)
    x = layers.GlobalAveragePooling2D()(block(x))
    return keras.Model(inputs, layers.Dense(3, name="head")(x), name=name)


def kinds(model):
    return [call.kind for call in walk(model).calls]


X = np.random.default_rng(0).normal(size=(32, 6, 6, 3)).astype("float32")


def test_a_block_of_blocks_is_its_layers():
    model = network(Twice(4))
    assert kinds(model).count("Conv2D") == 5
    assert not {"Residual", "Twice"} & set(kinds(model))
    # The stem, both convolutions of two blocks at 36 places, and the head.
    inner = 2 * 36 * (9 * 4 * 8 + 8 * 4)
    assert tfnas.profile(model).macs == 36 * 9 * 3 * 4 + inner + 4 * 3


def test_channels_inside_a_block_go():
    model = network(Residual(4, name="block"))
    smaller, report = tfnas.prune_channels(model, target_macs=0.6)
    assert tfnas.profile(smaller).macs <= 0.6 * tfnas.profile(model).macs
    assert any(group.name.startswith("block/") for group in report.groups)
    same = tfnas.factorize(model, energy=1.0)[0]
    np.testing.assert_allclose(same(X), model(X), atol=1e-5)


def test_a_block_has_an_integer_file():
    model = network(Residual(4, name="block"))
    model.compile("sgd", "mse", run_eagerly=True)
    model.fit(X, np.zeros((32, 3)), epochs=1, verbose=0)
    trainable = tfnas.quantize_aware(model, data=X)
    assert tfnas.unquantized_layers(trainable) == []
    file = tfnas.to_tflite(trainable, "int8")
    expected = trainable.predict(X, verbose=0)
    assert np.abs(file.predict(X, reference=True) - expected).max() <= 3.001 * file.outputs[0].scale


def test_a_pruned_block_stays_a_block():
    pruned, report = tfnas.prune(network(Residual(4, name="block")), 0.5)
    assert isinstance(pruned.get_layer("block"), Residual)
    assert report.zeros == sum(
        int((np.array(v) == 0).sum()) for v in pruned.weights if v.name == "kernel"
    )


class Own(Residual):
    """With a weight of its own."""

    def build(self, input_shape):
        self.gain = self.add_weight(name="gain", shape=())

    def call(self, x, training=None):
        return self.gain * super().call(x, training)


class Losing(Residual):
    """Adds a loss."""

    def call(self, x, training=None):
        if training:
            self.add_loss(ops.mean(x))
        return super().call(x, training)


class Training(Residual):
    """Computes something else in training."""

    def call(self, x, training=None):
        return ops.tanh(super().call(x, training)) if training else super().call(x, training)


class Halved(Residual):
    """Computes the same operations in training, with another number."""

    def call(self, x, training=None):
        return (0.5 if training else 1.0) * super().call(x, training)


class Frozen(Residual):
    """Keeps the statistics of its normalization in training."""

    def call(self, x):
        return super().call(x, training=False)


class Dropping(Residual):
    """Its dropout is never off."""

    def call(self, x):
        return self.drop(super().call(x), training=True)


class Eager(Residual):
    """Computes with numbers outside of the graph."""

    def call(self, x, training=None):
        steps = 1.0 if isinstance(x, keras.KerasTensor) else 2.0
        return steps * super().call(x, training)


@pytest.mark.parametrize("block", [Own, Losing, Training, Halved, Frozen, Dropping, Eager])
def test_what_a_graph_does_not_say_stays_one_layer(block):
    model = network(block(4, name="block"))
    assert block.__name__ in kinds(model)
    assert all(isinstance(loss, float) for loss in model.losses)


def test_a_mask_keeps_a_block_whole():
    class Steps(layers.Layer):
        def __init__(self):
            super().__init__()
            self.dense, self.supports_masking = layers.Dense(4), True

        def call(self, x):
            return self.dense(x)

    inputs = keras.Input((5,), dtype="int32")
    x = Steps()(layers.Embedding(9, 4, mask_zero=True)(inputs))
    assert "Steps" in kinds(keras.Model(inputs, layers.LSTM(3)(x)))
    plain = Steps()(layers.Embedding(9, 4)(inputs))
    assert "Steps" not in kinds(keras.Model(inputs, layers.LSTM(3)(plain)))


class Attention(layers.MultiHeadAttention):
    """With a call of its own, whose mask is repeated for an open batch."""

    def call(self, x):
        mask = ops.broadcast_to(np.tril(np.ones((1, 6, 6), bool)), (ops.shape(x)[0], 6, 6))
        query, key, value = (
            project(x) for project in (self.query_dense, self.key_dense, self.value_dense)
        )
        found, _ = self._compute_attention(query, key, value, attention_mask=mask)
        return self.output_dense(found)

    def compute_output_spec(self, x):
        return keras.KerasTensor(x.shape, x.dtype)


def test_a_changed_layer_of_keras_is_opened_where_its_graph_says_all():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((6, 8))
    attention = Attention(2, 4, name="own")
    attention.build(inputs.shape, inputs.shape)
    model = keras.Model(inputs, layers.Dense(2, name="head")(attention(inputs)), name="net")
    assert kinds(model).count("EinsumDense") == 4
    # Four projections, scores, their use and the head.
    assert tfnas.profile(model).macs == 4 * 6 * 64 + 2 * 6 * 6 * 8 + 6 * 8 * 2


class Shifted(layers.Layer):
    """Without weights, and without a `get_config` for its argument; with a layer inside."""

    def __init__(self, by, **options):
        super().__init__(**options)
        self.shift, self.dense = Shift(by, name="shift"), layers.Dense(4, name="inside")

    def call(self, x):
        return self.shift(self.dense(x))


class Shift(layers.Layer):
    """Adds what its argument says; it can't be created again."""

    def __init__(self, by, **options):
        super().__init__(**options)
        self.by = by

    def call(self, x):
        return x + self.by[0]


def test_of_blocks_that_can_not_be_copied_the_layers_inside_are_pruned():
    model = network(Shifted(np.array([0.5]), name="block"))
    for changed, zeros in ((tfnas.prune(model, 0.5)[0], 0.45), (tfnas.cluster(model, 8)[0], 0.0)):
        assert "Shifted" not in {type(layer).__name__ for layer in changed.layers}
        assert sum(int((np.array(v) == 0).sum()) for v in changed.weights) >= zeros * 136
        assert changed(X).shape == (32, 3)
    same, _ = tfnas.factorize(model, energy=1.0)
    np.testing.assert_allclose(same(X), model(X), atol=1e-5)
