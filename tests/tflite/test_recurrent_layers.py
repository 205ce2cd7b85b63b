"""Recurrent layers as files: their outputs are those of Keras, in each form and mode."""

import keras
import numpy as np
import pytest
from keras import layers
from slow_cases import slow_but

import tfnas
from tfnas.tflite.file_weights import read_kernels
from tfnas.tflite.flatbuffer import read_graphs

STEPS, FEATURES, UNITS = 6, 3, 4
FUSED = "UNIDIRECTIONAL_SEQUENCE_LSTM"
RNG = np.random.default_rng(0)
X = RNG.normal(size=(7, STEPS, FEATURES)).astype("float32")
X[0, 4:] = 0  # masked at the end
X[1, :2] = 0  # and at the start


def with_values(model):
    """Gives all weights of a model other values, biases too."""
    rng = np.random.default_rng(3)
    model.set_weights([0.5 * rng.normal(size=w.shape) for w in model.get_weights()])
    return model


def network(*parts, batch=None, steps=STEPS):
    inputs = keras.Input(batch_shape=(batch, steps, FEATURES))
    return with_values(keras.Sequential([inputs, *parts]))


def both_states():
    inputs = keras.Input((STEPS, FEATURES))
    outputs, *states = layers.LSTM(UNITS, return_sequences=True, return_state=True)(inputs)
    decoded = layers.LSTM(UNITS, go_backwards=True)(outputs, initial_state=states)
    return with_values(keras.Model(inputs, [decoded, *states]))


def of_many_kinds():
    """A model with an output for each kind of layer and option."""
    inputs = keras.Input((STEPS, FEATURES))
    kinds = [
        layers.LSTM(UNITS, unroll=True),
        layers.GRU(UNITS, go_backwards=True, return_sequences=True),
        layers.GRU(UNITS, reset_after=False),
        layers.RNN([layers.LSTMCell(UNITS), layers.GRUCell(3)]),
    ]
    each = layers.TimeDistributed(layers.Dense(5))(inputs)
    ends = [kind(inputs) for kind in kinds] + [layers.SimpleRNN(2, return_sequences=True)(each)]
    return with_values(keras.Model(inputs, ends))


MODELS = {
    "kinds": of_many_kinds,
    "masked": lambda: network(
        layers.Masking(),
        layers.Bidirectional(layers.GRU(UNITS, return_sequences=True)),
        layers.LSTM(UNITS),
    ),
    "states": both_states,
}


def operators(file):
    return {op.name for graph in read_graphs(file.content) for op in graph.operators}


def assert_equal(file, model, x=X, atol=1e-5, **options):
    expected, found = model.predict(x, verbose=0), file.predict(x, **options)
    for one, other in zip(keras.tree.flatten(expected), keras.tree.flatten(found), strict=True):
        np.testing.assert_allclose(other, one, rtol=0, atol=atol)


@pytest.mark.parametrize("kind", MODELS)
def test_a_file_of_any_batch_size_computes_what_keras_computes(kind):
    model = MODELS[kind]()
    file = tfnas.to_tflite(model)
    assert file.origin["recurrent_layers"] == "loops over the time steps, without a state"
    for batch_size in (1, 3, 64):
        assert_equal(file, model, batch_size=batch_size)
    assert_equal(file, model, X[:1])


def test_steps_of_another_number_fit_a_file_of_open_steps():
    model = network(layers.LSTM(UNITS, return_sequences=True), steps=None)
    file = tfnas.to_tflite(model)
    for steps in (STEPS, 2):
        assert_equal(file, model, X[:, :steps])


def test_a_recurrent_layer_of_images():
    images = RNG.normal(size=(3, 4, 5, 5, 2)).astype("float32")
    inputs = keras.Input(images.shape[1:])
    model = with_values(keras.Model(inputs, layers.ConvLSTM2D(3, 3, padding="same")(inputs)))
    assert_equal(tfnas.to_tflite(model), model, images)


@pytest.fixture(scope="module")
def wide():
    """An LSTM with weights that the converter stores in 8 bits: it keeps small ones."""
    return network(layers.LSTM(32), layers.Dense(2))


@pytest.fixture(scope="module")
def wide_size(wide):
    return tfnas.to_tflite(wide).size


@pytest.mark.parametrize(
    ("mode", "error", "share"), [("float16", 0.01, 0.85), ("dynamic", 0.05, 0.65)]
)
def test_weights_are_stored_in_fewer_bits(wide, wide_size, mode, error, share):
    file = tfnas.to_tflite(wide, mode)
    assert file.size < share * wide_size
    assert_equal(file, wide, atol=error)


def float_layers(file):
    return list(file.origin["unquantized_layers"])


@pytest.mark.parametrize("batch", slow_but([None, 1], None))
def test_an_integer_file_names_layers_that_stay_float(batch, caplog):
    memory = layers.GRU(UNITS, activation="elu", name="memory")
    model = network(memory, layers.Dense(2), batch=batch)
    file = tfnas.to_tflite(model, "int8", X)
    assert file.inputs[0].dtype == file.outputs[0].dtype == "int8"
    assert float_layers(file) == ["memory"]
    assert "memory stays float" in caplog.text
    kernels = [op.inputs[1].dtype for op in file.graph.operators if op.name == "FULLY_CONNECTED"]
    assert "int8" in kernels
    assert_equal(file, model, atol=4 * file.outputs[0].scale)


# --- the fused operator


@pytest.fixture(scope="module")
def fixed():
    """An LSTM in both directions, and one of one direction, of a fixed batch of 1."""
    both = layers.Bidirectional(layers.LSTM(UNITS, return_sequences=True))
    return network(both, layers.LSTM(UNITS, use_bias=False), layers.Dense(2), batch=1)


@pytest.fixture(scope="module")
def fused(fixed):
    return tfnas.to_tflite(fixed)


def test_an_lstm_of_fixed_batch_becomes_the_fused_operator(fused, fixed):
    assert operators(fused) >= {FUSED}
    assert "WHILE" not in operators(fused)
    assert "must be reset before each sequence" in fused.origin["recurrent_layers"]
    interpreter = fused.interpreter()
    for row, expected in zip(X, fixed.predict(X, batch_size=1, verbose=0), strict=True):
        interpreter.reset_all_variables()
        interpreter.set_tensor(fused.inputs[0].index, row[None])
        interpreter.invoke()
        found = interpreter.get_tensor(fused.outputs[0].index)[0]
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("recipe", ["static_wi8_ai8", "dynamic_wi8_afp32"])
def test_recipes_name_the_fused_operators_that_stay_float(fused, recipe, caplog):
    quantized = tfnas.apply_recipe(fused, recipe, X)
    left = quantized.origin["unquantized_layers"]
    reason = "ai-edge-quantizer has no form of UNIDIRECTIONAL_SEQUENCE_LSTM"
    assert set(left.values()) == {reason}
    assert reason in caplog.text
    floats = {k.layer for k in read_kernels(quantized) if k.tensor.dtype == "float32"}
    assert floats == set(left)
    assert len(floats) == 3


def test_what_the_fused_operator_does_not_compute_is_a_loop():
    inputs = keras.Input(batch_shape=(1, STEPS, FEATURES))
    of_relu = layers.LSTM(UNITS, activation="relu")(inputs)
    masked = layers.LSTM(UNITS)(layers.Masking()(inputs))
    states = layers.LSTM(UNITS, return_state=True)(inputs)
    model = with_values(keras.Model(inputs, [of_relu, masked, *states]))
    file = tfnas.to_tflite(model)
    assert FUSED not in operators(file)
    expected = model.predict(X, batch_size=1, verbose=0)
    for found, one in zip(file.predict(X), expected, strict=True):
        np.testing.assert_allclose(found, one, rtol=0, atol=1e-5)


def test_keras_own_functions_return_after_a_conversion(fixed):
    from keras.src import backend

    tfnas.to_tflite(network(layers.SimpleRNN(2)))
    _, outputs, _ = backend.rnn(lambda x, s: (x, s), X, (np.zeros((7, 3), "float32"),))
    np.testing.assert_array_equal(outputs, X)


def test_a_stateful_file_begins_at_rest_whatever_the_model_has_seen():
    keras.utils.set_random_seed(0)
    inputs = keras.Input(batch_shape=(2, 4, 3))
    model = keras.Model(inputs, layers.GRU(5, stateful=True, name="memory")(inputs))
    x = np.random.default_rng(0).normal(size=(2, 4, 3)).astype("float32")
    first = np.array(model(x))
    state = np.array(model.get_layer("memory").states[0])
    file = tfnas.to_tflite(model)
    np.testing.assert_array_equal(model.get_layer("memory").states[0], state)
    np.testing.assert_allclose(file.predict(x), first, atol=1e-5)
    np.testing.assert_allclose(file.predict(x, stateful=True), first, atol=1e-5)
