"""The layers behind the operators of a file, of Keras 3 and of Keras 2."""

import keras
import numpy as np
import pytest
from keras import layers

import tfnas
from tfnas.measure.quantization_debugger.layer_names import LayerNames
from tfnas.tflite.file_weights import read_kernels
from tfnas.tflite.flatbuffer import (
    FileGraph,
    OperatorInfo,
    TensorInfo,
    layer_name,
    names_are_counted,
)
from tfnas.tflite.operator_layers import layer_of


def network(keras_of_file):
    layers = keras_of_file.layers
    inputs = layers.Input((12, 12, 3))
    x = layers.Conv2D(8, 3, use_bias=False, name="conv1")(inputs)
    x = layers.BatchNormalization(name="bn_conv1")(x)
    x = layers.ReLU(6.0, name="relu")(x)
    x = layers.DepthwiseConv2D(3, name="depthwise_2")(x)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    x = layers.Dense(4, activation="relu", name="dense_1")(x)
    heads = [layers.Dense(3, name="kind")(x), layers.Dense(1, name="age_10")(x)]
    return keras_of_file.Model(inputs, heads)


@pytest.fixture(scope="module", params=["keras", "tf_keras"])
def file(request):
    """A file as TensorFlow's converter writes it, with the names of Keras 3 or 2."""
    return tfnas.to_tflite(network(pytest.importorskip(request.param)))


def test_operators_and_kernels_have_their_layers(file):
    loaded = tfnas.Artifact(file.content)
    layers = [op.layer for op in loaded.graph.operators]
    assert layers[:4] == ["relu", "depthwise_2", "pool", "dense_1"]
    assert sorted(layers[4:]) == ["age_10", "kind"]
    assert [layer_of(loaded.graph, op) for op in loaded.graph.operators] == layers
    kernels = ["conv1", "depthwise_2", "dense_1"]
    found = [kernel.layer for kernel in read_kernels(loaded)]
    assert found[:3] == kernels
    assert sorted(found[3:]) == ["age_10", "kind"]


@pytest.mark.parametrize(
    ("names", "counted"),
    [
        ([], True),
        (["serving_default_x:0", "PartitionedCall:0"], True),
        (["functional_1/dense_1/MatMul", "functional_1/dense_1_1/MatMul;x_1/y_1/BiasAdd"], True),
        (["functional_1/dense_1/Tensordot/MatMul", "functional_1/Gelu/mul"], True),
        (["model/conv1/Relu;model/bn/FusedBatchNormV3;model/conv1/Conv2D"], False),
        (["model_1/conv2d_1/Conv2D", "model_1/conv2d_2/Conv2D1"], False),
        (["model_1/dense_2/MatMul", "model_1/dense_3/MatMul"], False),
        (["model/dense/MatMul", "model/dense_1/MatMul"], False),
    ],
)
def test_counters_of_keras_3(names, counted):
    assert names_are_counted(names) == counted


def test_a_name_without_counters():
    name = "model/block_1/Relu6;model/block_1_bn/FusedBatchNormV3;model/block_1/Conv2D"
    assert layer_name(name, counted=False) == "block_1"
    assert layer_name("Identity_1", counted=False) == "Identity_1"


def chain(*steps):
    """A graph of operators one after the other; each step is (output, constant, its bytes)."""
    tensors, operators = [TensorInfo(0, "serving_default_x:0", "float32", (1, 4), None)], []
    for name, constant, content in steps:
        stored = TensorInfo(len(tensors), constant, "float32", (1,), content)
        out = TensorInfo(len(tensors) + 1, name, "float32", (1, 4), None)
        operators.append(OperatorInfo("ADD", (tensors[-1], stored), (out,), None))
        tensors += [stored, out]
    return FileGraph(tuple(operators), tuple(tensors), (tensors[0],), (tensors[-1],))


@pytest.mark.parametrize(
    ("steps", "layers"),
    [
        ([("m_1/up_1/Tensordot/MatMul", "arith.constant", b"1")], ["up"]),
        ([("m_1/norm_1/moments/mean", "arith.constant", b"1")], ["norm"]),
        ([("m_1/attention_1/key_1/MatMul", "arith.constant", b"1")], ["attention/key"]),
        ([("m_1/attention_1/einsum_1/Einsum", "arith.constant", b"1")], ["attention"]),
        ([("m_1/einsum_1/Einsum", "arith.constant", b"1")], ["einsum"]),  # a layer of this name
        ([("PartitionedCall:0", "m_1/head_1/MatMul", b"1")], ["head"]),
        (
            [("m_1/up_1/MatMul", "arith.constant", b"1"), ("Identity", "arith.constant1", b"1")],
            ["up", "up"],
        ),
        ([("tfl.custom", "arith.constant", b"1")], ["tfl.custom"]),  # no name has a layer
        (
            [
                ("m_1/quantized_up_1/MatMul", "arith.constant", b"1"),
                ("m_1/float_norm_input_1/Cast", "arith.constant", b"1"),
                ("m_1/norm_range_1/Cast", "arith.constant", b"1"),
            ],
            ["up", "norm", "norm"],
        ),
        ([("m_1/far_range_1/Cast", "arith.constant", b"1")], ["far_range"]),  # the user's own name
    ],
)
def test_layers_have_the_users_names(steps, layers):
    graph = chain(*steps)
    assert [layer_of(graph, op) for op in graph.operators] == layers


def test_parts_of_attention_and_fused_operators_have_the_users_layer():
    """In an int8 file, where other layers and operators compute them."""
    inputs = keras.Input((6, 4))
    x = layers.MultiHeadAttention(2, 2, name="look")(inputs, inputs, use_causal_mask=True)
    x = layers.Attention(name="plain")([x, x])
    model = keras.Model(inputs, layers.LSTM(3, return_sequences=True, name="memory")(x))
    data = np.random.default_rng(0).normal(size=(8, 6, 4)).astype("float32")
    file = tfnas.to_tflite(model, tfnas.QuantSpec("int8", recurrent="fused"), data)
    names = LayerNames(model)
    found = {}
    for op in file.graph.operators:
        layer = names.mentioned(op.outputs[0].name)
        found.setdefault(op.name, set()).add(layer[0] if layer else "?")
    assert found["UNIDIRECTIONAL_SEQUENCE_LSTM"] == {"memory"}
    assert found["FULLY_CONNECTED"] == found["SELECT_V2"] == {"look"}
    assert found["BATCH_MATMUL"] == found["SOFTMAX"] == {"look", "plain"}
    assert not any("?" in each for each in found.values())
