"""Recipes for files that TensorFlow's converter of today does not write."""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import tfnas
from tfnas.tflite.flatbuffer import pack, read_graphs, unpack
from tfnas.tflite.recipe_input import for_quantizer

RNG = np.random.default_rng(0)
X = RNG.normal(size=(10, 16)).astype("float32")
STATIC = "static_wi8_ai8"


@pytest.fixture(scope="module")
def model():
    inputs = keras.Input((16,))
    hidden = layers.Dense(64, "relu")(inputs)
    return keras.Model(inputs, layers.Dense(8)(hidden))


@pytest.fixture(scope="module")
def file(model):
    return tfnas.to_tflite(model)


def changed(file, change):
    content = unpack(file.content)
    change(content)
    return dataclasses.replace(file, content=pack(content))


def without_signature(content):
    content.signatureDefs = None


def with_old_codes(content):
    for code in content.operatorCodes:
        code.deprecatedBuiltinCode, code.builtinCode = code.builtinCode, 0
        code.version = 1


def of_fixed_batch(content):
    graph = content.subgraphs[0]
    for tensor in graph.tensors:
        if tensor.shapeSignature is not None:
            tensor.shapeSignature = None
            tensor.shape = np.array([4, *tensor.shape[1:]], np.int32)


CHANGES = {
    "no signature": without_signature,
    "old codes": with_old_codes,
    "a batch of 4": of_fixed_batch,
}


def assert_quantized(found, file):
    expected = file.predict(X)
    assert "int8" in {t.dtype for op in found.graph.operators for t in op.inputs}
    error = np.abs(found.predict(X, reference=True) - expected)
    assert error.max() < 0.05 * np.abs(expected).max()


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("recipe", [STATIC, "dynamic_wi8_afp32"])
def test_a_recipe_takes_what_litert_runs(file, change, recipe):
    found = tfnas.apply_recipe(changed(file, CHANGES[change]), recipe, X)
    assert_quantized(found, file)


@pytest.mark.parametrize("recipe", [STATIC, "dynamic_wi8_afp32"])
def test_weights_of_16_bits_are_quantized(model, file, recipe):
    half = tfnas.to_tflite(model, "float16")
    found = tfnas.apply_recipe(half, recipe, X)
    assert_quantized(found, file)
    assert found.size < half.size
    assert not any(t.dtype == "float16" for t in found.graph.tensors)


def test_a_file_of_today_is_read_as_it_is(file):
    content, key = for_quantizer(file.content, name_inputs=True)
    assert content is file.content
    assert key == "serving_default"


def test_the_body_of_a_loop_is_quantized():
    kernel = tf.constant(0.25 * RNG.normal(size=(16, 16)).astype("float32"))

    @tf.function(input_signature=[tf.TensorSpec((1, 16), tf.float32)])
    def repeated(x):
        loop = tf.while_loop(
            lambda i, _: i < 3, lambda i, y: (i + 1, tf.tanh(tf.matmul(y, kernel))), (0, x)
        )
        return {"y": loop[1]}

    module = tf.Module()
    functions = [repeated.get_concrete_function()]
    converter = tf.lite.TFLiteConverter.from_concrete_functions(functions, module)
    converted = tfnas.Artifact(converter.convert())
    found = tfnas.apply_recipe(converted, "dynamic_wi8_afp32")
    kernels = [op.inputs[1].dtype for op in read_graphs(found.content)[-1].operators[:2]]
    assert "int8" in kernels
    np.testing.assert_allclose(found.predict(X), converted.predict(X), atol=0.05)
