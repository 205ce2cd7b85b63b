"""Recurrent layers in integer files, from the converter's placeholder to the file's answers."""

import functools

import keras
import numpy as np
import pytest
from keras import layers

import tfnas
from tfnas.tflite.flatbuffer import read_graphs

STEPS, FEATURES = 6, 3
X = np.random.default_rng(0).normal(size=(24, STEPS, FEATURES)).astype("float32")


def network():
    """Both directions, a stack, shared steps, and a state that is used twice."""
    keras.utils.set_random_seed(4)
    inputs = keras.Input((STEPS, FEATURES), name="given")
    x = layers.Bidirectional(layers.LSTM(5, return_sequences=True), name="both")(inputs)
    x = layers.TimeDistributed(layers.Dense(6, activation="relu"), name="each")(x)
    x = layers.GRU(7, return_sequences=True, name="gru")(x)
    last = layers.SimpleRNN(5, go_backwards=True, name="simple")(x)
    return keras.Model(inputs, [layers.Dense(4, name="end")(last), layers.Dense(3)(x)], name="net")


@functools.cache
def case(mode):
    model = network()
    trainable = tfnas.quantize_aware(model, mode, X)
    return model, trainable, tfnas.to_tflite(trainable, mode)


def steps_apart(trainable, file):
    pairs = zip(file.predict(X, reference=True), trainable.predict(X, verbose=0), strict=True)
    return [
        np.abs(found - expected) / output.scale
        for (found, expected), output in zip(pairs, file.outputs, strict=True)
    ]


@pytest.mark.parametrize(
    ("mode", "median"), [("int8", 0.0), pytest.param("int16x8", 8.0, marks=pytest.mark.slow)]
)
def test_the_file_is_the_trained_model(mode, median):
    _, trainable, file = case(mode)
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


def test_there_is_one_loop_for_each_layer_and_direction():
    file = case("int8")[2]
    assert [op.name for op in file.graph.operators].count("WHILE") == 4
    assert file.origin["recurrent_layers"] == "loops over the time steps, without a state"


def test_a_layer_with_a_mask_stays_float_and_is_named():
    inputs = keras.Input((STEPS, FEATURES))
    model = keras.Model(inputs, layers.GRU(4, name="memory")(layers.Masking()(inputs)))
    found = {
        each.name: each.reason for each in tfnas.unquantized_layers(tfnas.quantize_aware(model))
    }
    assert found["memory"] == "no integer form of GRU with a mask"


def test_an_integer_file_of_a_large_layer_is_small():
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((STEPS, 24)), layers.LSTM(96), layers.Dense(4)])
    x = np.random.default_rng(1).normal(size=(8, STEPS, 24))
    assert tfnas.to_tflite(model, "int8", x).size <= 0.30 * tfnas.to_tflite(model).size
