"""Numbers without a range are an error, where TensorFlow's quantizer ends the process."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfnas
from tfnas.quantization.spec import QuantSpec
from tfnas.tflite.quiet_converter import quiet_converter
from tfnas.tflite.saved_model_converter import ConverterOptions, convert_saved_model


@pytest.fixture(scope="module")
def model():
    """A model with the logarithm of its inputs, which only numbers above 0 have."""
    inputs = keras.Input((4,))
    logarithms = keras.ops.log(inputs)
    chosen = keras.ops.where(inputs > 0, logarithms, keras.ops.zeros_like(inputs))
    return keras.Model(inputs, keras.layers.Dense(2, name="head")(chosen))


@pytest.fixture(scope="module")
def zeros():
    """Inputs above 0, but one."""
    x = np.random.default_rng(0).uniform(1, 2, (20, 4)).astype("float32")
    x[3, 1] = 0.0
    return x


FLOATS = {"Log": "float32", "Greater": "float32", "Where": "float32", "ZerosLike": "float32"}


def test_layers_without_an_integer_form_are_named_first(model, zeros):
    with pytest.raises(tfnas.ConversionError, match="no integer form of Log"):
        tfnas.to_tflite(model, "int8", zeros)


@pytest.mark.parametrize(
    ("weights", "ranges"), [("int8", "moving_average"), ("int4", "percentile"), ("int8", "mse")]
)
def test_infinite_numbers_are_no_range(model, zeros, weights, ranges):
    spec = tfnas.QuantSpec(weights, "int8", ranges=ranges, layers=FLOATS)
    with pytest.raises(ValueError, match="must give finite numbers in all layers, got NaN or inf"):
        tfnas.to_tflite(model, spec, zeros)
    assert tfnas.to_tflite(model, spec, zeros[4:]).predict(zeros).shape == (20, 2)


def test_tensorflow_does_not_quantize_them(tmp_path):
    module = tf.Module()
    spec = tf.TensorSpec((1, 4), tf.float32, name="x")
    weight = np.ones((4, 2), np.float32)
    module.serve = tf.function(
        lambda x: {"y": tf.matmul(tf.where(x > 0, tf.math.log(x), 0.0), weight)},
        input_signature=[spec],
    )
    signatures = {"serving_default": module.serve.get_concrete_function()}
    tf.saved_model.save(module, str(tmp_path), signatures=signatures)
    options = ConverterOptions(QuantSpec("int8", "int8"), ("x",), False, False, False)
    reason = "must give finite numbers in all layers, got -inf to .* in 'Log'"
    with quiet_converter(), pytest.raises(ValueError, match=reason):
        convert_saved_model(str(tmp_path), "serving_default", options, [np.zeros((3, 4), "f4")])
