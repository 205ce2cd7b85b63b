"""The layers behind the operators of a file, of Keras 3 and of Keras 2."""

import pytest

import tfnas
from tfnas.tflite.file_weights import read_kernels
from tfnas.tflite.flatbuffer import layer_name, names_are_counted


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
