"""Layers that other operators compute in an integer file."""

import keras
import numpy as np
import tensorflow as tf
from keras import layers

import tfnas

X = np.random.default_rng(0).normal(size=(64, 4, 4, 3)).astype("float32")


def layer_scale(first):
    """The factors of keras.applications' ConvNeXt, which has no public name for the class."""
    return keras.src.applications.convnext.LayerScale(first, 6)


def test_a_layer_scale_is_trained_and_has_integers():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((4, 4, 3))
    x = layers.Conv2D(6, 1, name="stem")(inputs)
    x = layers.Add()([x, layer_scale(0.5)(layers.Dense(6, "relu", name="wide")(x))])
    x = layers.Add()([x, layer_scale(1e-6)(layers.Dense(6, name="fresh")(x))])  # as it begins
    model = keras.Model(inputs, layers.Dense(3, name="end")(layers.GlobalAveragePooling2D()(x)))
    trainable = tfnas.quantize_aware(model, data=X)
    assert tfnas.unquantized_layers(trainable) == []
    factors = [v for v in trainable.trainable_variables if v.shape == (6,) and "scale" in v.path]
    assert len(factors) == 2
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(trainable(X, training=True))
    gradients = tape.gradient(loss, [variable.value for variable in factors])
    assert all(np.abs(gradient).max() > 0 for gradient in gradients)
    file = tfnas.to_tflite(trainable, "int8")
    assert not [t.name for t in file.graph.tensors if t.dtype.startswith("float")]
    expected = trainable.predict(X, verbose=0)
    steps = np.abs(file.predict(X, reference=True) - expected) / file.outputs[0].scale
    assert steps.max() <= 2.01
    assert np.abs(expected - model.predict(X, verbose=0)).max() <= 0.05 * np.ptp(expected)
