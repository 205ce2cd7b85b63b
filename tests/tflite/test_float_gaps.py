"""Files in which 8-bit tensors go on with 16 bits, and functions that are tables."""

import keras
import numpy as np
import pytest
from keras import layers

import tfnas
from tfnas.tflite.activation_tables import write_tables
from tfnas.tflite.flatbuffer import pack, unpack
from tfnas.tflite.float_gaps import close_float_gaps
from tfnas.tflite.unused_parts import remove_unused

X = np.random.default_rng(0).normal(size=(40, 8)).astype("float32")


@pytest.fixture(scope="module")
def file():
    keras.utils.set_random_seed(1)
    inputs = keras.Input((8,))
    x = layers.LayerNormalization()(layers.Dense(8, "softplus")(inputs))
    x = layers.Permute((2, 1))(layers.Reshape((2, 4))(x))  # the converter quantizes behind these
    model = keras.Model(inputs, layers.Dense(3)(layers.Flatten()(x)))
    return tfnas.to_tflite(tfnas.quantize_aware(model, data=X), "int8")


def test_one_operator_changes_the_type(file):
    changes = [op for op in file.graph.operators if op.name in ("CAST", "QUANTIZE")]
    types = [(op.inputs[0].dtype, op.outputs[0].dtype) for op in changes]
    assert [pair for pair in types if "int16" in pair] == [("int8", "int16"), ("int16", "int8")]


def test_a_table_holds_a_function_of_each_integer(file):
    (gather,) = [op for op in file.graph.operators if op.name == "GATHER"]
    table, output = gather.inputs[0], gather.outputs[0]
    assert (table.dtype, table.shape) == ("int8", (256,))
    assert (table.scales, table.zero_points) == (output.scales, output.zero_points)


def test_nothing_that_is_not_read_is_in_the_file(file):
    read = {t.index for op in file.graph.operators for t in (*op.inputs, *op.outputs)}
    assert {tensor.index for tensor in file.graph.tensors} <= read
    assert not [t for t in file.graph.tensors if t.dtype.startswith("float")]


def test_a_repaired_file_is_left_alone(file):
    model = unpack(file.content)
    assert not close_float_gaps(model)
    assert not write_tables(model)
    remove_unused(model)
    again = tfnas.Artifact(pack(model), "int8")
    np.testing.assert_array_equal(again.predict(X), file.predict(X))
