"""Products that subtract means are exact, and take 8-bit integers as they are."""

import keras
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from keras import layers

import tfnas
from tfnas.tflite.flatbuffer import pack
from tfnas.tflite.graph_writer import GraphWriter, NumberFormat
from tfnas.tflite.integer_means import cast_before_zero_sums, write_means

STEPS = NumberFormat("int8", 0.1, zero=-40)
FINER, KERNEL = NumberFormat("int16", 0.1 / 128), NumberFormat("int8", 0.25)
CENTERING = 4 * np.eye(4) - 1
X = np.random.default_rng(0).integers(-128, 128, (5, 4)).astype(np.int8)


def product(kernel, outputs=("product",)):
    """The objects of a file that multiplies 8-bit numbers by a kernel, with 16 bits."""
    model = schema.ModelT()
    model.version, model.subgraphs, model.operatorCodes = 3, [], []
    model.buffers = [schema.BufferT()]
    writer = GraphWriter(model)
    x = writer.tensor((5, 4), STEPS, "x")
    found = {"finer": writer.tensor((5, 1, 4), FINER, "finer")}
    found["flat"] = writer.tensor((5, 4), FINER, "flat")
    found["product"] = writer.tensor((5, 4), NumberFormat("int16", 0.001), "product")
    row = writer.tensor((5, 1, 4), STEPS, "row")
    writer.operator("RESHAPE", [x, writer.numbers([5, 1, 4], "row_shape")], [row])
    writer.operator("QUANTIZE", [row], [found["finer"]])
    writer.operator("RESHAPE", [found["finer"], writer.numbers([5, 4], "shape")], [found["flat"]])
    weights = writer.constant(kernel, KERNEL, "kernel")
    writer.operator("FULLY_CONNECTED", [found["flat"], weights, -1], [found["product"]])
    writer.finish([x], [found[name] for name in outputs])
    return model


def outputs_of(model):
    interpreter = tfnas.Artifact(pack(model), "int8").interpreter(reference=True)
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], X)
    interpreter.invoke()
    return interpreter.get_tensor(interpreter.get_output_details()[0]["index"])


def test_a_product_that_ignores_offsets_takes_the_integers_as_they_are():
    model, before = product(CENTERING), outputs_of(product(CENTERING))
    assert cast_before_zero_sums(model)
    names = [op.name for op in tfnas.Artifact(pack(model), "int8").graph.operators]
    assert names == ["RESHAPE", "CAST", "RESHAPE", "FULLY_CONNECTED"]
    np.testing.assert_array_equal(outputs_of(model), before)
    assert not cast_before_zero_sums(model)


@pytest.mark.parametrize(
    ("kernel", "outputs"),
    [(np.eye(4), ("product",)), (CENTERING, ("product", "flat"))],
    ids=["offset counts", "other readers"],
)
def test_other_files_stay(kernel, outputs):
    assert not cast_before_zero_sums(product(kernel, outputs))


@pytest.mark.parametrize("width", [4, 9, 128])
def test_a_rounded_kernel_is_written_again(width):
    wanted = width * np.eye(width) - 1
    step = (1 - 1 / width) / 127  # as the converter finds it
    model = product(np.zeros((4, 4)))
    (kernel,) = [t for t in model.subgraphs[0].tensors if t.name == b"kernel"]
    kernel.shape, kernel.quantization.scale = [width, width], np.array([step])
    rounded = np.round(wanted / width / step).astype(np.int8)
    model.buffers[kernel.buffer].data = rounded.reshape(-1).view(np.uint8)
    assert write_means(model) == (width != 128)  # which has the steps already
    found = np.asarray(model.buffers[kernel.buffer].data, np.uint8).view(np.int8)
    np.testing.assert_array_equal(found.reshape(width, width), wanted)
    np.testing.assert_allclose(kernel.quantization.scale, 1 / width, rtol=1e-5)
    assert not write_means(model)


def test_a_normalization_has_one_copy_of_its_matrix():
    keras.utils.set_random_seed(1)
    inputs = keras.Input((6, 16))
    x = layers.LayerNormalization()(layers.Dense(16)(layers.LayerNormalization()(inputs)))
    model = keras.Model(inputs, layers.Dense(2)(x))
    file = tfnas.to_tflite(model, "int8", np.random.default_rng(0).normal(size=(20, 6, 16)))
    centering = (16 * np.eye(16) - 1).astype(np.int8).tobytes()
    assert file.content.count(centering) == 1
    assert sum(op.name == "CAST" for op in file.graph.operators) == 2


def test_sums_of_many_numbers_have_64_bits():
    """Of 131,072 numbers of 16 bits; 32 bits made a mean of 0.9 one of -0.1."""
    inputs = keras.Input((64, 64, 32))
    model = keras.Model(inputs, layers.GroupNormalization(1)(inputs))
    x = np.random.default_rng(0).uniform(0.8, 1.0, (4, 64, 64, 32)).astype(np.float32)
    file, wanted = tfnas.to_tflite(model, "int16x8", x), model.predict(x, verbose=0)
    found = file.predict(x)
    assert np.abs(found - wanted).max() < 0.05 * np.abs(wanted).max()
