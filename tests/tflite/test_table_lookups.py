"""Tables of files of float activations: 8 and 4 bits, and what mixed_precision makes of them."""

import keras
import numpy as np
import pytest
from keras import layers

import tfnas
from tfnas.tflite.quantizer_recipes import layers_of_file
from tfnas.tflite.table_lookups import read_tables

WORDS, WIDTH, LENGTH = 600, 32, 6


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)
    ids = keras.Input((LENGTH,), dtype="int32")
    x = layers.GlobalAveragePooling1D()(layers.Embedding(WORDS, WIDTH, name="words")(ids))
    built = keras.Model(ids, layers.Dense(4, "softmax", name="head")(layers.Dense(48)(x)))
    rng = np.random.default_rng(1)
    rows = rng.normal(size=(WORDS, WIDTH)) * rng.uniform(0.05, 1.0, (WORDS, 1))
    built.get_layer("words").set_weights([rows])
    return built


@pytest.fixture(scope="module")
def float_file(model):
    return tfnas.to_tflite(model)


@pytest.fixture(scope="module")
def ids():
    return np.random.default_rng(2).integers(0, WORDS, (30, LENGTH)).astype("int32")


def test_tables_are_layers_of_a_file(model, float_file):
    (table,) = read_tables(float_file)
    assert (table.layer, table.values.shape) == ("words", (WORDS, WIDTH))
    np.testing.assert_array_equal(table.values, np.asarray(model.get_layer("words").embeddings))
    assert layers_of_file(model, float_file)["words"][0] == "Embedding"


@pytest.mark.parametrize(
    ("mode", "bits", "error"),
    [("weights8", 8, 0.01), ("weights4", 4, 0.1), ("int4", 4, 0.1)],
)
def test_tables_have_the_bits_of_the_mode(model, float_file, ids, mode, bits, error):
    file = tfnas.to_tflite(model, mode)
    saved = float_file.size - file.size
    assert saved > WORDS * WIDTH * (4 - bits / 8) - 3 * WORDS * (bits == 4) * 2
    expected = model.predict(ids, verbose=0)
    for xnnpack in (True, False):
        found = file.predict(ids) if xnnpack else _without_xnnpack(file, ids)
        assert np.abs(found - expected).max() < error


def _without_xnnpack(file, ids):
    interpreter = file.interpreter(xnnpack=False)
    outputs = []
    for row in ids:
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], row[None])
        interpreter.invoke()
        outputs.append(interpreter.get_tensor(interpreter.get_output_details()[0]["index"])[0])
    return np.stack(outputs)


def test_one_layer_alone(model, float_file):
    spec = tfnas.QuantSpec("int8", "float32", layers={"head": "int8", "*": "float32"})
    assert float_file.size - tfnas.to_tflite(model, spec).size < 4 * 48 * 4
    spec = tfnas.QuantSpec("int8", "float32", layers={"words": "int8", "*": "float32"})
    assert float_file.size - tfnas.to_tflite(model, spec).size > 2.9 * WORDS * WIDTH


def test_mixed_precision_counts_tables(model, float_file, ids):
    file, result = tfnas.mixed_precision(model, 0.3, ids)
    assert file.size <= 0.3 * float_file.size
    chosen = {layer.name: layer.chosen for layer in result.layers}
    assert chosen["words"] == "int8"
    smaller, result = tfnas.mixed_precision(model, 0.2, ids)
    assert {layer.name: layer.chosen for layer in result.layers}["words"] == "int4"
    assert smaller.size <= 0.2 * float_file.size


def test_a_table_without_kernels_is_enough():
    ids = keras.Input((4,), dtype="int32")
    model = keras.Model(ids, layers.Embedding(200, 32)(ids))
    file = tfnas.to_tflite(model, "int4")
    assert file.size < 0.3 * tfnas.to_tflite(model).size
