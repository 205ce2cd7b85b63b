"""Known defects with Keras models of other kinds than convolutional networks."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from slow_cases import slow_but

import tfnas
from tfnas.quantization.quantize_aware import quantize_aware_partly
from tfnas.runtime.helper_process import HelperDied

STEPS, FEATURES, UNITS, CLASSES = 12, 3, 8, 3


def normal(*shape, seed=0, scale=1.0):
    return (scale * np.random.default_rng(seed).normal(size=shape)).astype("float32")


def recurrent_network(kind, batch_size=None):
    inputs = keras.Input(batch_shape=(batch_size, STEPS, FEATURES))
    return keras.Model(inputs, layers.Dense(CLASSES)(getattr(layers, kind)(UNITS)(inputs)))


@pytest.mark.parametrize(
    ("kind", "mode"), [("LSTM", "float32"), ("LSTM", "dynamic"), ("GRU", "float32")]
)
def test_recurrent_layers_convert(kind, mode):
    model, x = recurrent_network(kind), normal(4, STEPS, FEATURES)
    file = tfnas.to_tflite(model, mode)
    tolerance = 1e-5 if mode == "float32" else 0.05
    np.testing.assert_allclose(file.predict(x), model.predict(x, verbose=0), atol=tolerance)


def test_int8_of_an_lstm_of_fixed_batch_converts_or_is_refused():
    """In the helper process, whose end is no refusal."""
    inputs = keras.Input(batch_shape=(1, 12, 3))
    model = keras.Model(inputs, layers.LSTM(8)(inputs))
    with tfnas.isolated():
        try:
            tfnas.to_tflite(model, "int8", normal(8, 12, 3))
        except tfnas.ConversionError as error:
            assert not isinstance(error.__cause__, HelperDied)  # noqa: PT017


def attention_network():
    """Attention of four heads over (16, 32), then two dense layers."""
    inputs = keras.Input((16, 32))
    attended = layers.MultiHeadAttention(4, 8)(inputs, inputs)
    return keras.Model(inputs, layers.Dense(32)(layers.Dense(32)(attended)))


def product_network(product):
    """The product of a matrix of 4x5 with one of 5x6."""
    inputs = [keras.Input((4, 5)), keras.Input((5, 6))]
    return keras.Model(inputs, product(inputs))


def uncounted_networks():
    """Yields networks with their multiply-accumulates, counted by hand."""
    projections, products = 4 * 16 * 32 * 32, 2 * 16 * 16 * 32
    yield "attention", attention_network, projections + products + 2 * 16 * 32 * 32
    for kind, gates in (("LSTM", 4), ("GRU", 3), ("SimpleRNN", 1)):
        macs = STEPS * gates * UNITS * (FEATURES + UNITS) + UNITS * CLASSES
        yield kind, functools.partial(recurrent_network, kind), macs
    einsum = functools.partial(keras.ops.einsum, "bij,bjk->bik")
    for name, product in (("Dot", layers.Dot((2, 1))), ("einsum", lambda pair: einsum(*pair))):
        yield name, functools.partial(product_network, product), 4 * 5 * 6


@pytest.mark.parametrize(
    ("network", "macs"),
    [pytest.param(network, macs, id=name) for name, network, macs in uncounted_networks()],
)
def test_macs_are_those_of_an_independent_count(network, macs):
    assert tfnas.profile(network()).macs == macs


def macs_from_weights(model):
    """Multiply-accumulates of an attention network, counted from the shapes of its kernels."""
    places = 16
    kernels = [w for w in model.weights if "kernel" in w.path]
    value = next(w for w in kernels if "value" in w.path)
    inner = int(np.prod(value.shape[1:]))  # of all heads; keys are as wide as values
    return places * sum(int(np.prod(w.shape)) for w in kernels) + 2 * places**2 * inner


def test_target_macs_is_a_fraction_of_the_entire_model():
    model = attention_network()
    try:
        smaller, _ = tfnas.prune_channels(model, target_macs=0.5)
    except ValueError as refusal:
        if "target_macs" in str(refusal):
            return
        raise
    assert macs_from_weights(smaller) <= 0.51 * macs_from_weights(model)


@keras.saving.register_keras_serializable("tfnas_defects")
class Subclassed(keras.Model):
    """A typical subclassed network, without `keras.Input`."""

    def __init__(self, **options):
        super().__init__(**options)
        self.convolution = layers.Conv2D(16, 3, activation="relu")
        self.flatten, self.hidden = layers.Flatten(), layers.Dense(32, "relu")
        self.classify = layers.Dense(10, "softmax")

    def call(self, x):
        return self.classify(self.hidden(self.flatten(self.convolution(x))))


SUBCLASSED_MACS = 36 * 9 * 16 + 36 * 16 * 32 + 32 * 10


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).random((16, 8, 8, 1), np.float32)


@pytest.fixture(scope="module")
def subclassed(images):
    model = Subclassed()
    model(images)
    return model


@pytest.fixture(scope="module")
def wrapped(subclassed):
    """A functional model around the subclassed one, as the error messages advise."""
    inputs = keras.Input((8, 8, 1))
    return keras.Model(inputs, subclassed(inputs))


def test_a_subclassed_model_converts(subclassed, images):
    file = tfnas.to_tflite(subclassed)
    expected = subclassed.predict(images, verbose=0)
    np.testing.assert_allclose(file.predict(images), expected, atol=1e-5)


def test_the_macs_of_a_wrapped_model_are_counted(wrapped):
    assert tfnas.profile(wrapped).macs == SUBCLASSED_MACS


@pytest.mark.parametrize("technique", [tfnas.prune_channels, tfnas.factorize])
def test_a_wrapped_model_is_made_smaller(wrapped, technique):
    smaller, _ = technique(wrapped, target_macs=0.5)
    assert tfnas.profile(smaller).macs <= 0.51 * SUBCLASSED_MACS
    assert smaller.count_params() < 0.9 * wrapped.count_params()


def test_a_wrapped_model_is_quantized_in_training(wrapped, images):
    trainable = tfnas.quantize_aware(wrapped, "int8", data=images)
    file = tfnas.to_tflite(trainable, "int8")
    assert file.size < 0.5 * 4 * wrapped.count_params()  # four bytes a weight in float32


@pytest.mark.parametrize("trained", [False, True], ids=["post-training", "in training"])
def test_an_activation_that_is_zero_throughout_converts(trained):
    inputs = keras.Input((6,))
    never = keras.initializers.Constant(-30.0)
    dead = layers.Dense(4, "relu", bias_initializer=never)(inputs)
    model = keras.Model(inputs, layers.Add()([layers.Dense(3)(dead), layers.Dense(3)(inputs)]))
    x = normal(100, 6)
    if trained:
        file = tfnas.to_tflite(tfnas.quantize_aware(model, data=x), "int8")
    else:
        file = tfnas.to_tflite(model, "int8", x)
    for op in (op for op in file.graph.operators if op.name == "FULLY_CONNECTED"):
        inputs, kernel, outputs = (max(t.scales) for t in (*op.inputs[:2], *op.outputs))
        assert inputs * kernel / outputs < 256  # XNNPACK's limit
    step = file.outputs[0].scale
    expected = model.predict(x, verbose=0)
    np.testing.assert_allclose(file.predict(x, reference=True), expected, atol=2 * step)


@pytest.mark.parametrize("merge", slow_but([layers.Concatenate, layers.Maximum], layers.Maximum))
def test_a_merge_agrees_with_the_file_outside_of_the_calibrated_range(merge):
    inputs = keras.Input((6,))
    branches = [layers.Dense(4)(inputs), layers.Dense(4)(inputs)]
    model = keras.Model(inputs, layers.Dense(3)(merge()(branches)))
    rng = np.random.default_rng(2)
    model.set_weights([rng.normal(size=w.shape) for w in model.get_weights()])
    trainable = tfnas.quantize_aware(model, data=normal(64, 6))
    file = tfnas.to_tflite(trainable, "int8")
    outside = normal(256, 6, scale=3.0)
    answers = file.predict(outside, reference=True), trainable.predict(outside, verbose=0)
    # One step a rounding: of the branches, the merge and the output.
    assert np.abs(answers[0] - answers[1]).max() <= 3.01 * file.outputs[0].scale


@pytest.mark.parametrize("trained", [False, True], ids=["post-training", "in training"])
def test_a_tensor_beside_its_own_permute_converts(trained):
    inputs = keras.Input((8, 8, 1))
    turned = layers.Permute((2, 1, 3))(inputs)
    both = layers.Concatenate()([inputs, turned])
    model = keras.Model(inputs, [layers.Flatten()(turned), layers.Flatten()(both)])
    x = normal(24, 8, 8, 1)
    if trained:
        trainable = quantize_aware_partly(model, data=x)
        if tfnas.unquantized_layers(trainable):
            return  # named before training
        file = tfnas.to_tflite(trainable, "int8")
    else:
        file = tfnas.to_tflite(model, "int8", x)
    answers = file.predict(x, reference=True)
    for answer, expected in zip(answers, model.predict(x, verbose=0), strict=True):
        np.testing.assert_allclose(answer, expected, atol=0.05)  # a step is 0.03


class OwnSignature(tf.Module):
    """A product with a signature that is not "serving_default"."""

    def __init__(self):
        super().__init__()
        self.kernel = tf.constant(normal(16, 64))

    @tf.function(input_signature=[tf.TensorSpec((1, 16), tf.float32)])
    def infer(self, x):
        return {"y": tf.matmul(x, self.kernel)}


def test_a_recipe_takes_a_file_whose_signature_has_another_name(tmp_path):
    module = OwnSignature()
    tf.saved_model.save(module, str(tmp_path), signatures={"infer": module.infer})
    converter = tf.lite.TFLiteConverter.from_saved_model(str(tmp_path), signature_keys=["infer"])
    file, x = tfnas.Artifact(converter.convert()), normal(32, 16, seed=1)
    quantized = tfnas.apply_recipe(file, "static_wi8_ai8", x)
    expected = file.predict(x)
    error = np.abs(quantized.predict(x, reference=True) - expected)
    assert error.max() < 0.05 * np.abs(expected).max()
