"""Recurrent layers in integer files, from the converter's placeholder to the file's answers."""

import functools

import keras
import numpy as np
import pytest
from keras import layers, ops
from slow_cases import slow_but

import tfnas
from tfnas.quantization.normal_form import normal_form
from tfnas.quantization.quantize_aware import quantize_aware_partly
from tfnas.tflite.flatbuffer import read_graphs

STEPS, FEATURES = 6, 3
X = np.random.default_rng(0).normal(size=(24, STEPS, FEATURES)).astype("float32")


def first_layers():
    """The input, and what both directions and a layer of each step make of it."""
    keras.utils.set_random_seed(4)
    inputs = keras.Input((STEPS, FEATURES), name="given")
    x = layers.Bidirectional(layers.LSTM(5, return_sequences=True), name="both")(inputs)
    return inputs, layers.TimeDistributed(layers.Dense(6, activation="relu"), name="each")(x)


def short_network():
    """Both directions, a stack, shared steps, and a reversal."""
    inputs, x = first_layers()
    last = layers.SimpleRNN(5, go_backwards=True, name="simple")(x)
    outputs = layers.Dense(4, name="end")(last), x + ops.flip(x, axis=1)
    return keras.Model(inputs, outputs, name="net")


def network():
    """The same with a state that is used twice, and with both directions of another layer."""
    inputs, x = first_layers()
    x = layers.GRU(7, return_sequences=True, name="gru")(x)
    last = layers.SimpleRNN(5, go_backwards=True, name="simple")(x)
    mean = layers.Bidirectional(layers.GRU(2, return_sequences=True), merge_mode="ave")(inputs)
    outputs = layers.Dense(4, name="end")(last), layers.Dense(3)(x), mean + ops.flip(mean, axis=1)
    return keras.Model(inputs, outputs, name="net")


@functools.cache
def case(mode, build):
    model = build()
    trainable = tfnas.quantize_aware(model, mode, X)
    return model, trainable, tfnas.to_tflite(trainable, mode)


def steps_apart(trainable, file, x=X):
    found, expected = file.predict(x, reference=True), trainable.predict(x, verbose=0)
    pairs = zip(keras.tree.flatten(found), keras.tree.flatten(expected), strict=True)
    return [
        np.abs(one - two) / output.scale
        for (one, two), output in zip(pairs, file.outputs, strict=True)
    ]


@pytest.mark.parametrize(
    ("mode", "build", "median"),
    slow_but(
        [
            ("int8", short_network, 0.0),
            *((mode, network, median) for mode, median in (("int8", 0.0), ("int16x8", 8.0))),
        ],
        ("int8", short_network, 0.0),
    ),
)
def test_the_file_is_the_trained_model(mode, build, median):
    _, trainable, file = case(mode, build)
    assert tfnas.unquantized_layers(trainable) == []
    for apart in steps_apart(trainable, file):
        assert np.median(apart) <= median + 0.001
    floats = {
        op.name
        for graph in read_graphs(file.content)
        for op in graph.operators
        for tensor in (*op.inputs, *op.outputs)
        if tensor.dtype == "float32"
    }
    assert floats == set()


@pytest.mark.parametrize(
    ("build", "loops"), slow_but([(short_network, 3), (network, 6)], (short_network, 3))
)
def test_there_is_one_loop_for_each_layer_and_direction(build, loops):
    file = case("int8", build)[2]
    assert [op.name for op in file.graph.operators].count("WHILE") == loops
    assert file.origin["recurrent_layers"] == "loops over the time steps, without a state"


def test_masked_steps_leave_the_state():
    keras.utils.set_random_seed(6)
    inputs = keras.Input((STEPS,), dtype="int32")
    x = layers.Embedding(9, 5, mask_zero=True)(inputs)
    x = layers.GRU(4, return_sequences=True, name="memory")(x)
    model = keras.Model(inputs, layers.LSTM(4, name="last")(x))
    ids = np.random.default_rng(0).integers(1, 9, (12, STEPS)).astype("int32")
    ids[:6, 4:] = 0
    ids[3:5, :2] = 0
    trainable = tfnas.quantize_aware(model, "int8", ids)
    assert not {"memory", "last"} & {each.name for each in tfnas.unquantized_layers(trainable)}
    file = tfnas.to_tflite(trainable, "int8")
    expected = trainable.predict(ids, verbose=0)
    apart = np.abs(file.predict(ids, reference=True) - expected) / file.outputs[0].scale
    assert np.median(apart) == 0.0
    assert apart.max() <= 2.001
    np.testing.assert_allclose(expected, model.predict(ids, verbose=0), rtol=0, atol=0.05)


def masked_network():
    """Both directions with a mask, steps of 0, and the ids of words that it takes."""
    keras.utils.set_random_seed(1)
    inputs = keras.Input((STEPS,), dtype="int32")
    # Outputs of a size at which a step of the states is few steps of the outputs.
    words = layers.Embedding(20, 4, mask_zero=True, embeddings_initializer="normal")
    x = layers.Rescaling(20.0)(words(inputs))
    both = layers.Bidirectional(layers.GRU(3, return_sequences=True), name="first")(x)
    both = layers.Bidirectional(layers.LSTM(3), merge_mode="sum", name="second")(both)
    back = layers.GRU(3, return_sequences=True, go_backwards=True, zero_output_for_mask=True)(x)
    ids = np.random.default_rng(0).integers(1, 20, (40, STEPS)).astype("int32")
    ids[:20, 4:] = 0
    ids[20:30, :2] = 0
    ids[30] = 0
    return keras.Model(inputs, [layers.Dense(2)(both), layers.Dense(2)(back)]), ids


def test_masks_of_both_directions():
    model, ids = masked_network()
    opened, _ = normal_form(model)
    for one, two in zip(opened(ids), model(ids), strict=True):
        np.testing.assert_allclose(one, two, rtol=0, atol=1e-6)
    assert tfnas.unquantized_layers(tfnas.quantize_aware(model)) == []


@pytest.mark.slow
def test_files_with_masks_of_both_directions():
    model, ids = masked_network()
    trainable = tfnas.quantize_aware(model, data=ids)
    for apart in steps_apart(trainable, tfnas.to_tflite(trainable, "int8"), ids):
        assert np.median(apart) <= 0.001


@pytest.mark.slow  # tests/quantization/test_joint_ranges.py joins outputs of loops
def test_outputs_that_are_moved_before_they_are_joined():
    keras.utils.set_random_seed(1)
    inputs = keras.Input((STEPS, FEATURES))
    last = layers.Dropout(0.1)(layers.LSTM(3, name="one")(inputs))
    sliced = layers.GRU(3, return_sequences=True, name="two")(inputs)[:, -1]
    joined = layers.Concatenate()([last, layers.Dense(4)(last), layers.Reshape((3,))(sliced)])
    model = keras.Model(inputs, layers.Dense(2)(joined))
    trainable = tfnas.quantize_aware(model, data=X)
    assert tfnas.unquantized_layers(trainable) == []
    for apart in steps_apart(trainable, tfnas.to_tflite(trainable, "int8")):
        assert np.median(apart) <= 1.001


def test_an_initial_state_that_tanh_would_cut_off_stays_float_and_is_named():
    inputs = keras.Input((STEPS, FEATURES))
    start = layers.Dense(4)(inputs[:, 0])
    model = keras.Model(inputs, layers.SimpleRNN(4, name="memory")(inputs, initial_state=start))
    skipped = tfnas.unquantized_layers(quantize_aware_partly(model))
    found = {each.name: each.reason for each in skipped}
    assert found["memory"] == "no integer form of SimpleRNN of tanh with an initial state"


def test_an_integer_file_of_a_large_layer_is_small():
    keras.utils.set_random_seed(0)
    # Names of its own: those that Keras counts up are longer the later the test runs.
    inputs = keras.Input((STEPS, 24), name="given")
    outputs = layers.Dense(4, name="end")(layers.LSTM(128, name="memory")(inputs))
    model = keras.Model(inputs, outputs, name="net")
    x = np.random.default_rng(1).normal(size=(8, STEPS, 24))
    assert tfnas.to_tflite(model, "int8", x).size <= 0.30 * tfnas.to_tflite(model).size
