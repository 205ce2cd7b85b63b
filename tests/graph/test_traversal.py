"""Runs of data through a model, layer by layer."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfnas.graph.tensor_columns import ColumnMemory, examples_of
from tfnas.graph.traversal import flat_outputs, visit


@pytest.fixture(scope="module")
def data():
    return np.random.default_rng(0).normal(size=(10, 8, 8, 3)).astype("float32")


@pytest.fixture(scope="module")
def model():
    """A shortcut, a layer that is used twice, a nested model and two outputs."""
    keras.utils.set_random_seed(0)
    layers = keras.layers
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(4, 3, padding="same", name="first")(inputs)
    y = layers.BatchNormalization(name="norm")(layers.Conv2D(4, 1, name="added")(x))
    x = layers.Add()([x, y])
    twice = layers.Conv2D(4, 1, activation="relu", name="twice")
    x = twice(twice(x))
    x = keras.Sequential([keras.Input((8, 8, 4)), layers.Conv2D(2, 3, name="inside")])(x)
    flat = layers.Dense(3, name="last")(layers.GlobalAveragePooling2D()(x))
    return keras.Model(inputs, [flat, x])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int32", "bool"])
def test_values_come_back_from_a_file_to_the_bit(dtype):
    values = [tf.cast(np.arange(6).reshape(3, 2) + i, dtype) for i in range(3)]
    column = ColumnMemory(limit=0).column()
    for value in values:
        column.append(value)
    assert column.examples == 9
    assert len(column) == 3
    for found, value in zip(column, values, strict=True):
        assert found is not value
        assert found.dtype == value.dtype
        np.testing.assert_array_equal(found.numpy(), value.numpy())
    np.testing.assert_array_equal(column[1:][0].numpy(), values[1].numpy())
    assert examples_of(column[::2]) == 6


def test_memory_is_used_up_to_the_limit_and_given_back():
    memory = ColumnMemory(limit=8)
    first, second = np.zeros((1, 1), np.float32), np.zeros((1, 2), np.float32)
    column = memory.column()
    column.append(first)
    column.append(second)
    assert column[0] is first
    assert column[1] is not second
    del column
    again = memory.column()
    again.append(second)
    assert again[0] is second


def test_values_that_are_no_numbers_stay_in_memory():
    words = tf.constant([["a"], ["b"]])
    column = ColumnMemory(limit=0).column()
    column.append(words)
    assert column[0] is words


def test_inputs_do_not_depend_on_the_memory(model, data):
    batches = [data[:4], data[4:8], data[8:]]
    names = ["first", "added", "norm", "twice", "last"]
    layers = [model.get_layer(name) for name in names]
    layers.append(next(x for x in model._flatten_layers() if x.name == "inside"))
    for held, stored in zip(
        visit(model, batches, layers), visit(model, batches, layers, memory=0), strict=True
    ):
        assert held.layer is stored.layer
        assert held.successor is stored.successor
        for ours, theirs in ((held.inputs, stored.inputs), (held.beside, stored.beside)):
            assert len(ours) == len(theirs)
            for one, other in zip(ours, theirs, strict=True):
                np.testing.assert_array_equal(np.asarray(one), np.asarray(other))
        assert len(held.inputs) == (6 if held.layer.name == "twice" else 3)
        assert len(held.beside) == (3 if held.layer.name in ("added", "norm") else 0)


def test_a_stop_keeps_its_inputs_when_the_run_goes_on(model, data):
    stops = list(visit(model, [data], [model.get_layer("added"), model.get_layer("last")]))
    expected = model.get_layer("first")(data)
    np.testing.assert_array_equal(np.asarray(stops[0].inputs[0]), np.asarray(expected))


def test_outputs(model, data):
    found, expected = flat_outputs(model, data), model(data, training=False)
    assert len(found) == 2
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(np.asarray(one), np.asarray(other))


def test_a_resizing_inside_does_not_turn_training_on():
    inner = keras.Input((4, 4, 3))
    resized = keras.layers.Resizing(6, 6, name="larger")(inner)
    norm = keras.layers.BatchNormalization(name="norm")
    nested = keras.Model(inner, norm(resized), name="nested")
    model = keras.Sequential([keras.Input((4, 4, 3)), nested])
    images = np.random.default_rng(0).normal(3.0, 2.0, (8, 4, 4, 3)).astype("float32")
    [found] = flat_outputs(model, images)
    np.testing.assert_allclose(found, model(images, training=False), atol=1e-6)
    assert np.mean(found) > 2.0  # by the statistics that it was built with
