"""Weights must be finite before anything converts them."""

import keras
import numpy as np
import pytest
from keras import layers

import tfnas
from tfnas.quantization.spec import QuantSpec
from tfnas.tflite.passes.check_weights import check_weights
from tfnas.tflite.passes.conversion_state import Conversion


def net():
    inner = keras.Sequential(
        [keras.Input((4,)), layers.Dense(3, name="first"), layers.BatchNormalization(name="norm")],
        name="inner",
    )
    inputs = keras.Input((4,))
    return keras.Model(inputs, layers.Dense(2, name="last")(inner(inputs)), name="net")


def spoil(weight, value, count):
    values = np.array(weight)
    values.flat[:count] = value
    weight.assign(values)


def test_finite_weights_pass():
    conversion = Conversion(net(), QuantSpec.of("float32"))
    assert check_weights(conversion) is conversion


@pytest.mark.parametrize(
    ("layer", "name", "value", "count", "size"),
    [
        ("last", "kernel", np.nan, 2, 6),
        ("inner/first", "bias", np.inf, 1, 3),
        ("inner/norm", "moving_variance", -np.inf, 3, 3),
    ],
)
def test_the_message_names_layer_weight_and_count(layer, name, value, count, size):
    model = net()
    [weight] = [w for w in model.weights if w.path.endswith(f"{layer}/{name}")]
    spoil(weight, value, count)
    message = (
        f"weights of model 'net' must be finite, got {count} of {size} values that are NaN or "
        f"infinite in '{name}' of layer '{layer}'"
    )
    for mode in ("float32", "int4", "int8"):
        with pytest.raises(tfnas.ConversionError, match=message):
            tfnas.to_tflite(model, mode, np.zeros((4, 4), np.float32))


def test_trained_ranges_must_be_finite_too():
    model = tfnas.quantize_aware(net(), data=np.ones((4, 4), np.float32))
    spoil(next(w for w in model.weights if w.name == "high"), np.nan, 1)
    with pytest.raises(tfnas.ConversionError, match=r"1 of 1 values .* in 'high'"):
        tfnas.to_tflite(model, "int8")
    tfnas.to_tflite(model, "float32")  # which has no ranges


def test_weights_of_tf_keras():
    tf_keras = pytest.importorskip("tf_keras")
    model = tf_keras.Sequential([tf_keras.layers.Input((4,)), tf_keras.layers.Dense(2, name="d")])
    spoil(model.weights[0], np.nan, 5)
    with pytest.raises(tfnas.ConversionError, match=r"5 of 8 values .* in 'kernel' of layer 'd'"):
        tfnas.to_tflite(model)
