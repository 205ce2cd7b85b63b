"""Models of any form as functional ones."""

import logging

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import tfnas
from tfnas.graph.functional import walk


def images(count=8, seed=0):
    return np.random.default_rng(seed).random((count, 8, 8, 1), np.float32)


class Block(keras.Model):
    """A residual block, as a model."""

    def __init__(self, **options):
        super().__init__(**options)
        self.first, self.norm = layers.Conv2D(8, 3, padding="same"), layers.BatchNormalization()
        self.drop = layers.Dropout(0.5)

    def call(self, x, training=None):
        y = self.drop(keras.ops.relu(self.norm(self.first(x), training=training)))
        return x + y


class Network(keras.Model):
    """A subclassed model of subclassed models; without a get_config of its own."""

    def __init__(self, units=8):
        super().__init__()
        self.stem = layers.Conv2D(8, 3, padding="same")
        self.blocks = [Block(), Block()]
        self.pool, self.head = layers.GlobalAveragePooling2D(), layers.Dense(units)

    def call(self, x):
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        return {"mean": self.pool(x), "classes": self.head(self.pool(x))}


class Pair(keras.Model):
    """Takes a dictionary."""

    def __init__(self):
        super().__init__()
        self.embedding, self.dense = layers.Embedding(20, 4), layers.Dense(3)

    def call(self, inputs):
        return self.dense(keras.ops.mean(self.embedding(inputs["ids"]), axis=1) + inputs["bias"])


class TensorFlowCode(keras.Model):
    """Computes with TensorFlow's functions, which symbolic tensors of Keras can't pass."""

    def __init__(self, **options):
        super().__init__(**options)
        self.dense = layers.Dense(16)

    def call(self, x):
        return tf.nn.relu(self.dense(x))


class Branching(keras.Model):
    """Branches on values, which symbolic tensors do not have."""

    def __init__(self):
        super().__init__()
        self.dense = layers.Dense(4)

    def call(self, x):
        return self.dense(x if tf.reduce_sum(x) > 0 else -x)


class Tied(keras.Model):
    def __init__(self):
        super().__init__()
        self.dense = layers.Dense(4)

    def call(self, x):
        return keras.ops.matmul(self.dense(x), keras.ops.transpose(self.dense.kernel))


class FirstPosition(keras.Model):
    def __init__(self):
        super().__init__()
        self.dense, self.positions = layers.Dense(4), layers.Embedding(8, 4, name="positions")

    def call(self, x):
        return self.dense(x) + self.positions(keras.ops.arange(8))[0]


class SumOfWeights(FirstPosition):
    def __init__(self):
        super().__init__()
        self.positions.build(())

    def call(self, x):
        return self.dense(x) + keras.ops.sum(2 * self.positions.embeddings)


class Encoder(keras.Model):
    """Without a `get_config`, as most blocks of users are."""

    def __init__(self, width):
        super().__init__()
        self.attention, self.norm = layers.MultiHeadAttention(2, 4), layers.LayerNormalization()
        self.widen, self.narrow = layers.Dense(12, activation="gelu"), layers.Dense(width)

    def call(self, x):
        x = self.norm(x + self.attention(x, x))
        return x + self.narrow(self.widen(x))


class PositionedTokens(keras.Model):
    def __init__(self):
        super().__init__()
        self.tokens, self.positions = layers.Embedding(20, 8), layers.Embedding(6, 8)
        self.rescale, self.encoder, self.head = layers.Dense(8), Encoder(8), layers.Dense(3)

    def call(self, x):
        places = keras.ops.expand_dims(keras.ops.arange(6), 0)
        x = self.tokens(x) + self.rescale(self.positions(places))
        return self.head(keras.ops.mean(self.encoder(x), axis=1))


class OwnWeight(keras.Model):
    def __init__(self):
        super().__init__()
        self.dense, self.scale = layers.Dense(4), self.add_weight(name="scale", shape=())

    def call(self, x):
        return self.scale * self.dense(x)


class OwnTraining(TensorFlowCode):
    def train_step(self, data):
        return {"loss": 0.0}

    def call(self, x):
        return self.dense(x)


def called(model, *shape):
    model(np.zeros((2, *shape), np.float32))
    return model


def test_a_functional_model_is_returned_itself():
    model = keras.Sequential([keras.Input((4,)), layers.Dense(2)])
    assert tfnas.as_functional(model) is model


def test_an_opened_model_computes_and_learns_with_the_layers_of_the_original():
    model, x = called(Network(), 8, 8, 1), images()
    model.compile("sgd", {"mean": "mse", "classes": "mse"}, metrics={"classes": ["mae"]})
    opened = tfnas.as_functional(model)
    expected = model(x)
    for name, values in opened(x).items():
        np.testing.assert_allclose(values, expected[name], atol=1e-6)
    assert opened.input_shape == (None, 8, 8, 1)
    kinds = [call.kind for call in walk(opened).calls]
    assert kinds.count("Conv2D") == 3
    assert not {"Block", "Network"} & set(kinds)
    assert {id(v) for v in opened.weights} == {id(v) for v in model.weights}
    opened.fit(x, {"mean": np.ones((8, 8)), "classes": np.ones((8, 8))}, verbose=0)
    np.testing.assert_allclose(opened(x)["classes"], model(x)["classes"], atol=1e-6)


def test_opening_twice_records_once():
    model = called(Network(), 8, 8, 1)
    assert tfnas.as_functional(model) is tfnas.as_functional(model)
    inputs = keras.Input((8, 8, 1))
    around = keras.Model(inputs, model(inputs)["classes"])
    first, second = walk(around), walk(around)
    assert [a.node for a in first.calls] == [b.node for b in second.calls]


def test_words_stay_integers_when_a_model_is_opened_again():
    class Words(keras.Model):
        def __init__(self):
            super().__init__()
            self.embedding, self.dense = layers.Embedding(20, 4), layers.Dense(3)

        def call(self, x):
            return self.dense(keras.ops.mean(self.embedding(x), axis=1))

    model = Words()
    model(np.ones((2, 5), np.int32))
    first, *later = (tfnas.as_functional(model) for _ in range(3))
    assert [tensor.dtype for tensor in first.inputs] == ["int32"]
    assert [each is first for each in later] == [True, True]


def test_dropout_and_normalization_of_an_opened_model_train():
    opened, x = tfnas.as_functional(called(Network(), 8, 8, 1)), images()
    once, again = (opened(x, training=True)["mean"] for _ in range(2))
    assert np.abs(once - again).max() > 0


def test_a_subclassed_model_of_dictionaries_takes_its_inputs_by_name():
    model = Pair()
    x = {"ids": np.ones((2, 5), np.int32), "bias": np.ones((2, 4), np.float32)}
    expected = model(x)
    opened = tfnas.as_functional(model)
    assert {t.name: t.dtype for t in opened.inputs} == {"ids": "int32", "bias": "float32"}
    np.testing.assert_allclose(opened(x), expected, atol=1e-6)
    file = tfnas.to_tflite(model)
    assert {each.name for each in file.inputs} == {"ids", "bias"}
    np.testing.assert_allclose(file.predict(x), expected, atol=1e-5)


def test_a_model_without_shapes_is_built_by_data_or_input_shape():
    def unbuilt():
        return keras.Sequential([layers.Flatten(), layers.Dense(3)], name="unbuilt")

    with pytest.raises(ValueError, match=r"model must be built, got 'unbuilt'.*input_shape="):
        tfnas.as_functional(unbuilt())
    assert tfnas.as_functional(unbuilt(), images()).input_shape == (None, 8, 8, 1)
    dataset = tf.data.Dataset.from_tensor_slices((images(), np.zeros(8))).batch(4)
    assert tfnas.as_functional(unbuilt(), dataset).input_shape == (None, 8, 8, 1)
    assert tfnas.as_functional(unbuilt(), input_shape=(8, 8)).input_shape == (None, 8, 8)
    assert tfnas.profile(unbuilt(), images()).macs == 64 * 3
    aware = tfnas.quantize_aware(unbuilt(), data=images())
    assert aware.input_shape == (None, 8, 8, 1)
    file = tfnas.to_tflite(unbuilt(), "int8", images(100))
    assert file.inputs[0].shape[1:] == (8, 8, 1)


def test_the_first_batch_does_not_fix_the_batch_of_a_sequential_model():
    model = keras.Sequential([layers.Dense(4, "relu"), layers.Dense(3)])
    model(np.zeros((64, 8), np.float32))
    assert model.input_shape[0] == 64
    assert tfnas.as_functional(model).input_shape == (None, 8)
    fixed = keras.Sequential([keras.Input(batch_shape=(2, 8)), layers.Dense(3)])
    assert tfnas.as_functional(fixed).input_shape == (2, 8)


def test_input_shape_fixes_what_a_model_leaves_open():
    inputs = keras.Input((None, 3), name="series")
    pooled = layers.GlobalAveragePooling1D()(layers.Conv1D(4, 3)(inputs))
    model = keras.Model(inputs, layers.Dense(2)(pooled))
    fixed = tfnas.as_functional(model, input_shape=(12, 3))
    assert fixed.input_shape == (None, 12, 3)
    assert fixed.layers[1] is model.layers[1]
    assert tfnas.to_tflite(model, input_shape=(12, 3)).inputs[0].shape[1:] == (12, 3)
    with pytest.raises(ValueError, match=r"input_shape must fit .* of input 'series', got"):
        tfnas.as_functional(model, input_shape=(12, 4))
    with pytest.raises(ValueError, match="input_shape must hold 1 shapes"):
        tfnas.as_functional(model, input_shape=[(12, 3), (12, 3)])
    with pytest.raises(ValueError, match="input_shape must name the inputs"):
        tfnas.as_functional(model, input_shape={"other": (12, 3)})
    for wrong in ("12", 12, (0, 3)):
        with pytest.raises(ValueError, match="input_shape must"):
            tfnas.as_functional(model, input_shape=wrong)


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        (TensorFlowCode, "."),
        (Tied, "uses the weight of a layer without calling the layer"),
        (SumOfWeights, "positions/embeddings' is used by a call that takes none of the model's"),
        (OwnWeight, "weights outside of its layers, 'scale'"),
    ],
)
def test_a_model_that_can_not_be_opened_is_refused_by_what_needs_its_graph(kind, reason):
    model = called(kind(), 4)
    for technique in (
        lambda: tfnas.prune_channels(model, 0.5),
        lambda: tfnas.factorize(model, rank=1),
        lambda: tfnas.quantize_aware(model),
    ):
        with pytest.raises(
            ValueError, match=f"{model.name}.* of class {kind.__name__}: .*{reason}"
        ):
            technique()


@pytest.fixture(scope="module")
def positioned():
    model, x = PositionedTokens(), np.random.default_rng(0).integers(0, 20, (16, 6))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", loss, run_eagerly=True)
    model.fit(x, x[:, 0] % 3, epochs=1, verbose=0)
    return model, x


def test_layers_called_on_constants_keep_their_weights_when_a_model_is_opened(positioned, tmp_path):
    model, x = positioned
    opened = tfnas.as_functional(model)
    assert {id(v) for v in opened.weights} == {id(v) for v in model.weights}
    np.testing.assert_allclose(opened(x), model(x), atol=1e-6)
    model.positions.set_weights([model.positions.get_weights()[0] + 1])
    np.testing.assert_allclose(opened(x), model(x), atol=1e-6)
    flat = tfnas.prune(model, 0.01)[0]
    flat.save(tmp_path / "model.keras")
    again = tfnas.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(again(x), flat(x), atol=1e-6)


def test_a_first_position_is_a_call_too():
    model = called(FirstPosition(), 4)
    assert len(tfnas.as_functional(model).weights) == len(model.weights) == 3


def test_techniques_take_a_model_with_embedded_positions(positioned):
    model, x = positioned
    pruned, report = tfnas.prune(model, 0.5)
    assert np.mean(pruned.get_layer(model.positions.name).get_weights()[0] == 0) == 0.5
    assert model.positions.name in str(report)
    smaller, report = tfnas.prune_channels(model, 0.5)
    assert smaller.count_params() < model.count_params()
    assert smaller(x).shape == (16, 3)
    np.testing.assert_allclose(tfnas.to_tflite(model).predict(x), model(x), atol=1e-5)


def test_a_call_that_fails_on_symbolic_tensors_is_the_cause_of_a_refusal():
    with pytest.raises(ValueError, match="of class Branching: OperatorNotAllowedInGraphError: "):
        tfnas.as_functional(Branching(), input_shape=(6,))
    message = r"it calls a function of TensorFlow, keras.ops has the same \(.*\.py, line \d+\)\."
    with pytest.raises(ValueError, match=message):
        tfnas.as_functional(TensorFlowCode(), input_shape=(4,))


def test_what_needs_no_graph_takes_a_model_that_can_not_be_opened():
    model, x = called(TensorFlowCode(), 4), images()[:, 0, :4, 0]
    pruned, report = tfnas.prune(model, 0.5)
    assert isinstance(pruned, TensorFlowCode)
    assert report.zeros == 32
    clustered, _ = tfnas.cluster(model, 4)
    assert len(np.unique(clustered.dense.kernel)) == 4
    expected = model(x)
    np.testing.assert_allclose(tfnas.to_tflite(model).predict(x), expected, atol=1e-5)
    assert tfnas.to_tflite(model, "int8", x).inputs[0].dtype == "int8"
    assert tfnas.profile(model).uncounted == (model.name,)
    assert tfnas.verify(model, tfnas.to_tflite(model), x).passed


def test_a_model_of_constants_is_refused_with_both_ways_out():
    class Uncopyable(SumOfWeights):
        def __init__(self, needed):
            super().__init__()

    model = called(Uncopyable(1), 4)
    with pytest.raises(
        ValueError, match=r"needs? a get_config.*; nor can it be opened: .*layer of"
    ):
        tfnas.prune(model, 0.5)


def test_a_subclassed_model_without_a_configuration_is_pruned_as_a_functional_one():
    model = called(Network(), 8, 8, 1)
    pruned, report = tfnas.prune(model, 0.5)
    assert report.sparsity == pytest.approx(0.5, abs=0.02)
    assert sum(int((v.numpy() == 0).sum()) for v in pruned.weights if v.name == "kernel") > 300
    assert all(np.count_nonzero(v) == v.numpy().size for v in model.weights if v.name == "kernel")


def test_a_subclassed_model_with_its_own_training_is_not_trained_in_another_way():
    model = called(OwnTraining(), 4)
    with pytest.raises(ValueError, match=r"train_step.*class OwnTraining, whose call"):
        tfnas.prune_channels(model, 0.5)
    assert tfnas.profile(model).macs == 4 * 16
    assert isinstance(tfnas.prune(model, 0.5)[0], OwnTraining)


def test_a_trace_that_computes_something_else_is_refused():
    class Unstable(TensorFlowCode):
        def call(self, x):
            return self.dense(x) * (1.0 if isinstance(x, keras.KerasTensor) else 2.0)

    with pytest.raises(ValueError, match="its trace differs from it by"):
        tfnas.as_functional(called(Unstable(), 4))


def test_a_model_that_computes_other_layers_in_training_says_so(caplog):
    class Augmented(TensorFlowCode):
        def call(self, x, training=None):
            return self.dense(keras.ops.relu(x) if training else x)

    with caplog.at_level(logging.WARNING, "tfnas"):
        tfnas.as_functional(called(Augmented(), 4))
    assert "computes other layers in training" in caplog.text
