"""Runs of files with a state, or with a batch of fixed size."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import tfnas
from tfnas.measure.latency import reference_artifact
from tfnas.tflite.file_runs import fixed_batch
from tfnas.tflite.tensor_details import TensorDetails

X = np.random.default_rng(0).normal(size=(5, 6, 3)).astype("float32")


def recurrent(batch, **options):
    """A network whose recurrent layer has weights large enough to carry its state far."""
    inputs = keras.Input(batch_shape=(batch, 6, 3))
    model = keras.Model(inputs, layers.Dense(2)(layers.LSTM(4, **options)(inputs)))
    rng = np.random.default_rng(3)
    model.set_weights([rng.normal(size=w.shape) for w in model.get_weights()])
    return model


@pytest.fixture(scope="module")
def model():
    return recurrent(1)


@pytest.fixture(scope="module")
def fused(model):
    return tfnas.to_tflite(model)


@pytest.fixture(scope="module")
def stream():
    return tfnas.to_tflite(recurrent(1, stateful=True))


def one_by_one(model, x):
    return np.concatenate([np.asarray(model(row[None])) for row in x])


def test_each_example_starts_from_the_first_state(fused, model):
    assert fused.state == "tensors"
    expected = one_by_one(model, X)
    for order in (np.arange(5), np.array([3, 1, 4, 0, 2])):
        found = fused.predict(X[order])
        np.testing.assert_allclose(found, expected[order], rtol=0, atol=1e-5)


def test_a_stream_goes_on_from_the_state_before(fused):
    joined = X.reshape(1, 30, 3)  # one long sequence
    inputs = keras.Input(batch_shape=(1, 30, 3))
    long = keras.Model(inputs, layers.Dense(2)(layers.LSTM(4, return_sequences=True)(inputs)))
    long.set_weights(recurrent(1).get_weights())
    expected = np.asarray(long(joined))[0, 5::6]  # after each sixth step
    np.testing.assert_allclose(fused.predict(X, stateful=True), expected, rtol=0, atol=1e-5)
    assert np.abs(fused.predict(X) - expected).max() > 0.01


def test_variables_are_reset_too(stream, model):
    assert stream.state == "variables"
    expected = one_by_one(model, X)
    np.testing.assert_allclose(stream.predict(X), expected, rtol=0, atol=1e-5)
    kept = stream.predict(X, stateful=True)
    np.testing.assert_allclose(kept[0], expected[0], rtol=0, atol=1e-5)
    assert np.abs(kept[1:] - expected[1:]).max() > 0.01


def test_a_metric_does_not_depend_on_the_order_of_examples(fused):
    labels = np.argmax(fused.predict(X), -1)
    order = np.array([3, 1, 4, 0, 2])
    for places in (np.arange(5), order):
        assert tfnas.evaluate(fused, X[places], labels[places]).value == 1.0


def test_a_metric_of_a_stream_keeps_the_state_over_all_batches(fused):
    expected = np.argmax(fused.predict(X, stateful=True), -1)
    data = tf.data.Dataset.from_tensor_slices((X, expected)).batch(2)
    assert tfnas.evaluate(fused, data, stateful=True).value == 1.0


def test_tflite_micro_resets_the_state(fused, model):
    pytest.importorskip("tflite_micro")
    expected = one_by_one(model, X)
    np.testing.assert_allclose(tfnas.run_micro(fused, X), expected, rtol=0, atol=1e-4)
    kept = tfnas.run_micro(fused, X, stateful=True)
    np.testing.assert_allclose(kept, fused.predict(X, stateful=True), rtol=0, atol=1e-4)


def test_a_file_with_a_state_is_timed(fused):
    [latency] = tfnas.benchmark(fused, rounds=6, sample_ms=0.1)
    assert np.isfinite(latency.ratio)


# --- files of a fixed batch


class Mixed(tf.Module):
    """Sums over the rows of a constant shape: resized to 4, the file would mix examples."""

    def __init__(self, batch):
        super().__init__()
        signature = [tf.TensorSpec((batch, 6), tf.float32)]
        self.infer = tf.function(self.halves, input_signature=signature)
        self.batch = batch

    def halves(self, x):
        return tf.reshape(tf.reduce_sum(tf.reshape(x, (2 * self.batch, -1)), -1), (self.batch, -1))


def mixing(batch):
    module = Mixed(batch)
    functions = [module.infer.get_concrete_function()]
    converter = tf.lite.TFLiteConverter.from_concrete_functions(functions, module)
    return tfnas.Artifact(converter.convert())


@pytest.mark.parametrize("batch", [1, 4])
def test_a_file_of_fixed_batch_is_fed_as_it_is(batch):
    file, x = mixing(batch), np.random.default_rng(0).normal(size=(6, 6)).astype("float32")
    assert fixed_batch(file.inputs) == batch
    expected = x.reshape(6, 2, 3).sum(-1)
    for size in (1, 2, 64):
        np.testing.assert_allclose(file.predict(x, batch_size=size), expected, rtol=1e-5)
    records = tfnas.throughput(file, x, [1, 4], [1], rounds=6, sample_ms=0.1)
    assert [found.per_second is not None for found in records] == [batch == 1, batch == 4]


def tensor(*shape):
    return TensorDetails("x", 0, shape, "float32", 0.0, 0)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (
            [tensor(1, 2), tensor(3, 2)],
            "must fix one batch size for all inputs",
        ),
        ([tensor()], "must have inputs of shape \\(examples, ...\\), got the scalar 'x'"),
    ],
)
def test_inputs_of_no_common_batch_are_refused(inputs, message):
    with pytest.raises(ValueError, match=message):
        fixed_batch(inputs)


def test_an_open_batch_is_not_fixed():
    assert fixed_batch([tensor(-1, 2), tensor(-1)]) is None
    assert fixed_batch([tensor(-1, 2), tensor(4)]) == 4
    assert reference_artifact().state == "none"


def test_a_stream_does_not_go_on_from_rows_that_were_filled_up():
    file = tfnas.to_tflite(recurrent(2, stateful=True))
    run = file.predictor(stateful=True)
    whole = file.predict(X[:4], stateful=True)
    np.testing.assert_allclose([*run(X[:2]), *run(X[2:3])], whole[:3], rtol=0, atol=1e-6)
    with pytest.raises(ValueError, match="x must hold a multiple of 2 examples, the batch that"):
        run(X[3:4])
