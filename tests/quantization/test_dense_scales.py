"""Dense layers of integer files with a scale for each channel of their kernels."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers as L

import tfnas
from tfnas.quantization.aware_models import has_channel_scales
from tfnas.quantization.quantized_kernel import QuantizedKernel

CHANNELS = tfnas.QuantSpec("int8", dense_scales="per_channel")
X = np.random.default_rng(0).normal(size=(64, 6, 16)).astype("float32")


def uneven(kernel):
    """Gives the channels of a kernel sizes that differ by orders of magnitude."""
    sizes = np.exp(np.random.default_rng(1).normal(0.0, 1.5, kernel.shape[-1]))
    kernel.assign(kernel * sizes)


@pytest.fixture(scope="module")
def case():
    """A model of all layers that become products with a kernel, as integers, and its file."""
    keras.utils.set_random_seed(0)
    rows, shared = keras.Input((6, 16), name="rows"), L.Dense(16, name="shared")
    outputs = [
        L.Dense(32, "relu", name="rows_3d")(rows),
        shared(L.Reshape((3, 2, 16), name="four")(rows)),
        shared(L.GlobalAveragePooling1D(name="mean")(rows)),
        L.EinsumDense("abc,cde->abde", (6, 2, 8), bias_axes="de", name="heads")(rows),
        L.Dense(8, name="of_5d")(L.Reshape((3, 2, 2, 8), name="five")(rows)),
        L.MultiHeadAttention(2, 8, name="attention")(rows, rows),
    ]
    model = keras.Model(rows, outputs, name="all")
    for name in ("rows_3d", "shared", "of_5d"):
        uneven(model.get_layer(name).kernel)
    aware = tfnas.quantize_aware(model, CHANNELS, data=X)
    return model, aware, tfnas.to_tflite(aware, CHANNELS, batch_size=1)


def steps_apart(found, expected, file):
    """Differences of each output, in its steps."""
    pairs = zip(found, expected, file.outputs, strict=True)
    return [np.abs(a - np.asarray(b)) / output.scale for a, b, output in pairs]


def error(found, expected):
    return np.square(np.asarray(found) - expected).mean() / expected.var()


def test_every_product_with_a_kernel_is_a_convolution_with_a_scale_a_channel(case):
    _, aware, file = case
    names = [op.name for op in file.graph.operators]
    assert "FULLY_CONNECTED" not in names
    kernels = [op.inputs[1] for op in file.graph.operators if op.name == "CONV_2D"]
    assert len(kernels) == 9  # four of them in the attention layer, and "shared" twice
    assert all(len(each.scales) == each.shape[0] for each in kernels)
    assert {each.dtype for op in file.graph.operators for each in op.outputs} <= {"int8", "int32"}
    assert all(each.as_convolution for each in aware.layers if isinstance(each, QuantizedKernel))


def test_the_file_is_what_keras_computes(case):
    _, aware, file = case
    *single, attention = steps_apart(file.predict(X, reference=True), aware(X), file)
    assert max(steps.max() for steps in single) <= 1.01
    assert attention.max() <= 3.01  # a step of an early product counts several times at the end
    assert all((steps > 0.5).mean() < 0.05 for steps in single)


def test_tflite_micro_computes_the_same(case):
    *_, file = case
    expected = file.predict(X[:4], reference=True)
    for steps in steps_apart(tfnas.run_micro(file, X[:4]), expected, file):
        assert steps.max() <= 1.01


def test_channels_of_unequal_size_lose_less(case):
    model, aware, _ = case
    expected = [np.asarray(each) for each in model(X)]
    plain = tfnas.quantize_aware(model, "int8", data=X)
    assert not has_channel_scales(plain)
    for index in (0, 1, 2, 4):
        assert error(aware(X)[index], expected[index]) < error(plain(X)[index], expected[index])


def test_stripped_of_quantization_it_is_the_float_model(case):
    model, aware, _ = case
    found = tfnas.strip_quantization(aware)(X)
    for each, expected in zip(found, model(X), strict=True):
        np.testing.assert_allclose(each, expected, atol=1e-4)


def test_kernels_and_biases_are_trained(case):
    _, aware, _ = case
    with tf.GradientTape() as tape:
        loss = sum(tf.reduce_mean(tf.square(each)) for each in aware(X[:8], training=True))
    gradients = tape.gradient(loss, [v.value for v in aware.trainable_variables])
    assert all(each is not None for each in gradients)


def test_after_training_second_order_rounding_chooses_the_scales():
    model = keras.Sequential([keras.Input((16,)), L.Dense(8, name="head")], name="one")
    uneven(model.get_layer("head").kernel)
    spec = tfnas.QuantSpec("int8", dense_scales="per_channel", rounding="second_order")
    file = tfnas.to_tflite(model, spec, X[:, 0])
    (kernel,) = [op.inputs[1] for op in file.graph.operators if op.name == "CONV_2D"]
    assert len(set(kernel.scales)) == 8
    assert error(file.predict(X[:, 0], reference=True), model.predict(X[:, 0], verbose=0)) < 1e-3


def test_clustered_kernels_keep_one_scale():
    model = keras.Sequential([keras.Input((16,)), L.Dense(8, name="a"), L.Dense(8, name="b")])
    values = np.linspace(-1.0, 1.0, 8)
    kernel = model.get_layer("a").kernel
    kernel.assign(values[np.random.default_rng(0).integers(0, 8, kernel.shape)])
    aware = tfnas.quantize_aware(model, CHANNELS)
    found = [each.as_convolution for each in aware.layers if isinstance(each, QuantizedKernel)]
    assert found == [False, True]


def test_what_has_no_dense_layer_is_refused():
    model = keras.Sequential([keras.Input((6, 16)), L.Conv1D(3, 1, name="c")], name="convolved")
    message = "must be 'per_tensor' for 'convolved', got 'per_channel': it has no Dense"
    with pytest.raises(ValueError, match=message):
        tfnas.to_tflite(model, CHANNELS, X)
    with pytest.raises(ValueError, match="residual_bits must be 8 for 'convolved', got 16"):
        tfnas.to_tflite(model, tfnas.QuantSpec(residual_bits=16), X)
    aware = tfnas.quantize_aware(model, "int8", data=X)
    with pytest.raises(ValueError, match="must be 'per_tensor' as model 'convolved' was trained"):
        tfnas.to_tflite(aware, CHANNELS)


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"dense_scales": "channel"}, "dense_scales must be one of per_tensor, per_channel, got"),
        (
            {"dense_scales": "per_channel", "activations": "float32"},
            "dense_scales 'per_channel' goes with integer activations, got 'float32'",
        ),
    ],
)
def test_scales_that_are_refused(settings, match):
    with pytest.raises(ValueError, match=match):
        tfnas.QuantSpec("int8", **settings)
