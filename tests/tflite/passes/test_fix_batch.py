"""LSTM layers as fused operators, from the model to the file, which has a batch of 1."""

import functools

import keras
import numpy as np
import pytest
from keras import layers

import tfnas
from tfnas.quantization.fused_lstm import fused_layers

STEPS, FEATURES = 6, 3
X = np.random.default_rng(0).normal(size=(24, STEPS, FEATURES)).astype("float32")
FUSED = tfnas.QuantSpec(recurrent="fused")


@functools.cache
def case():
    """Both directions, a stack, a reversal, and a layer that is no LSTM."""
    keras.utils.set_random_seed(4)
    inputs = keras.Input((STEPS, FEATURES), name="given")
    x = layers.Bidirectional(layers.LSTM(5, return_sequences=True), name="both")(inputs)
    last = layers.LSTM(4, go_backwards=True, name="last")(x)
    other = layers.SimpleRNN(3, name="other")(inputs)
    joined = layers.Concatenate(name="joined")([last, other])
    model = keras.Model(inputs, layers.Dense(4, name="end")(joined), name="net")
    trainable = tfnas.quantize_aware(model, FUSED, X)
    return trainable, tfnas.to_tflite(trainable, "int8")


def test_each_lstm_is_an_operator_and_the_others_are_loops():
    trainable, file = case()
    names = [op.name for op in file.graph.operators]
    assert names.count("UNIDIRECTIONAL_SEQUENCE_LSTM") == 3
    assert names.count("WHILE") == 1
    assert "fused operators" in file.origin["recurrent_layers"]
    assert "loops" in file.origin["recurrent_layers"]
    assert tfnas.unquantized_layers(trainable) == []
    ends = [t.dtype for op in file.graph.operators for t in (*op.inputs, *op.outputs)]
    assert "float32" not in ends


def test_the_file_has_a_batch_of_1_and_is_the_model_for_any_number_of_examples():
    trainable, file = case()
    assert trainable.inputs[0].shape[0] is None
    assert file.inputs[0].shape == (1, STEPS, FEATURES)
    expected, found = trainable.predict(X, verbose=0), file.predict(X, reference=True)
    assert np.median(np.abs(found - expected)) <= 1.001 * file.outputs[0].scale
    # The state is reset before each: another order gives the same answers.
    np.testing.assert_array_equal(file.predict(X[::-1], reference=True), found[::-1])


def lstm():
    keras.utils.set_random_seed(4)
    memory = layers.LSTM(4, name="memory")
    return keras.Sequential([keras.Input((STEPS, FEATURES)), memory], name="memories")


def test_training_sets_the_range_of_the_cell_and_is_saved(tmp_path):
    trainable = tfnas.quantize_aware(lstm(), FUSED)
    (fused,) = fused_layers(trainable)
    assert not fused.range_of("cell").observed
    trainable.compile("adam", "mse", run_eagerly=True)
    trainable.fit(X, np.zeros((len(X), 4)), epochs=1, verbose=0)
    assert fused.range_of("cell").observed
    trainable.save(tmp_path / "model.keras")
    loaded = tfnas.load_model(tmp_path / "model.keras")
    assert len(fused_layers(loaded)) == 1
    np.testing.assert_array_equal(loaded.predict(X, verbose=0), trainable.predict(X, verbose=0))


def test_what_has_no_fused_form_is_refused():
    keras.utils.set_random_seed(4)
    gru = keras.Sequential([keras.Input((STEPS, FEATURES)), layers.GRU(4)], name="net")
    with pytest.raises(ValueError, match="recurrent must be 'loop' for 'net', got 'fused'"):
        tfnas.quantize_aware(gru, FUSED)
    with pytest.raises(ValueError, match="recurrent must be one of loop, fused, got 'unrolled'"):
        tfnas.QuantSpec(recurrent="unrolled")
    with pytest.raises(ValueError, match="goes with int8 activations, got 'int16'"):
        tfnas.QuantSpec("int8", "int16", recurrent="fused")
    with pytest.raises(ValueError, match="ranges of a fused operator"):
        tfnas.to_tflite(lstm(), FUSED, X, streaming=True)
    with pytest.raises(ValueError, match="'loop' as model 'memories' was trained for, got 'fused'"):
        tfnas.to_tflite(tfnas.quantize_aware(lstm(), "int8", X), FUSED)
    dense = keras.Sequential([keras.Input((FEATURES,)), layers.Dense(2)], name="dense")
    with pytest.raises(ValueError, match="recurrent must be 'loop' for 'dense', got 'fused'"):
        tfnas.to_tflite(dense, FUSED, X[:, 0])


def test_the_batch_is_fixed_where_that_is_asked_for():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((5, 3), name="given")
    model = keras.Model(inputs, layers.Dense(2, name="end")(layers.GRU(3, name="memory")(inputs)))
    x = np.random.default_rng(0).normal(size=(20, 5, 3)).astype("float32")
    trainable = tfnas.quantize_aware(model, "int8", data=x)
    file = tfnas.to_tflite(trainable, batch_size=1, mode="int8")
    assert file.inputs[0].shape == (1, 5, 3)
    tfnas.check_micro(file)
    whole = tfnas.to_tflite(trainable, "int8")
    np.testing.assert_array_equal(
        file.predict(x[:3], reference=True), whole.predict(x[:3], reference=True)
    )
    with pytest.raises(ValueError, match=r"batch_size=1 of to_tflite fixes the batch"):
        tfnas.check_micro(whole)


@pytest.mark.parametrize(
    ("size", "message"),
    [(0, "at least 1, got 0"), (True, "got True"), (2, "batch_size must be the model's own, 1")],
)
def test_sizes_that_no_batch_has_are_refused(size, message):
    model = keras.Sequential([keras.Input(batch_shape=(1, 4)), layers.Dense(2)])
    with pytest.raises(ValueError, match=message):
        tfnas.to_tflite(model, batch_size=size)
