"""Known defects of transformers, embeddings and recurrent networks as integers."""

import keras
import numpy as np
import pytest
from keras import layers
from slow_cases import slow_but

import tfnas


def float_operators(file):
    """Names of a file's operators with float inputs or outputs."""
    return [
        op.name
        for op in file.graph.operators
        if any(tensor.dtype.startswith("float") for tensor in (*op.inputs, *op.outputs))
    ]


@pytest.fixture(scope="module")
def words():
    """Rows of eight word indices."""
    return np.random.default_rng(0).integers(0, 800, (40, 8)).astype("int32")


@pytest.fixture(scope="module")
def text_model():
    """A text classifier with nearly all its weights in an embedding."""
    return keras.Sequential(
        [
            keras.Input((8,), dtype="int32"),
            layers.Embedding(800, 32),
            layers.GlobalAveragePooling1D(),
            layers.Dense(32, "relu"),
            layers.Dense(4, "softmax"),
        ]
    )


@pytest.fixture(scope="module")
def text_float_size(text_model):
    return tfnas.to_tflite(text_model).size


@pytest.mark.parametrize("mode", ["int4", "weights8", "int8x4"])
def test_an_embedding_shrinks_with_the_other_weights(text_model, text_float_size, words, mode):
    file = tfnas.to_tflite(text_model, mode, words if mode == "int8x4" else None)
    assert file.size < 0.5 * text_float_size


def test_an_embedding_shrinks_after_training_for_integers(text_model, text_float_size, words):
    trainable = tfnas.quantize_aware(text_model, "int8", data=words)
    assert tfnas.to_tflite(trainable, "int8").size < 0.5 * text_float_size


def test_mixed_precision_reaches_what_dynamic_reaches(text_model, text_float_size, words):
    file, _ = tfnas.mixed_precision(text_model, 0.5, words)
    assert file.size <= 0.5 * text_float_size


def test_an_embedding_is_pruned(text_model):
    pruned, _ = tfnas.prune(text_model, 0.5)
    table = pruned.layers[0].get_weights()[0]
    assert np.mean(table == 0) >= 0.45


@pytest.fixture(scope="module")
def vectors():
    return np.random.default_rng(0).normal(size=(30, 8, 16)).astype("float32")


@pytest.fixture(scope="module")
def feed_forward_model():
    """The feed-forward half of a transformer's block, and a classifier."""
    inputs = keras.Input((8, 16))
    inner = layers.Dense(16)(layers.Dense(64, activation="gelu")(inputs))
    normalized = layers.LayerNormalization()(layers.Add()([inputs, inner]))
    outputs = layers.Dense(4)(layers.GlobalAveragePooling1D()(normalized))
    return keras.Model(inputs, outputs)


@pytest.mark.parametrize("mode", slow_but(["int8", "int16x8"], "int16x8"))
def test_normalization_and_gelu_convert_to_integers(feed_forward_model, vectors, mode):
    assert float_operators(tfnas.to_tflite(feed_forward_model, mode, vectors)) == []


def test_a_4_bit_file_holds_integers_alone(feed_forward_model, vectors):
    assert float_operators(tfnas.to_tflite(feed_forward_model, "int8x4", vectors)) == []


def test_a_file_trained_for_integers_holds_integers_alone(feed_forward_model, vectors):
    trainable = tfnas.quantize_aware(feed_forward_model, "int8", data=vectors)
    assert float_operators(tfnas.to_tflite(trainable, "int8")) == []


def test_a_layer_without_a_kernel_can_be_left_float_by_name(feed_forward_model, vectors):
    spec = tfnas.QuantSpec("int8", layers={"LayerNormalization": "float32"})
    file = tfnas.to_tflite(feed_forward_model, spec, vectors)
    assert float_operators(file)
    assert "FULLY_CONNECTED" not in float_operators(file)
