"""A vision transformer on Fashion-MNIST: 49 patches of 4x4 pixels, ten kinds of clothes.

8,000 training images, 1,000 that validate and 1,000 test images: enough to compare formats.
"""

from __future__ import annotations

import keras
import numpy as np
from keras import layers, ops

from .blocks import encode

EPOCHS, QAT_EPOCHS, LEARNING_RATE = 4, 1, 1e-3
WIDTH, PATCHES = 48, 49


def data(folder: str) -> tuple[tuple, tuple, tuple]:
    """Returns the parts as (images, kinds); images (number, 28, 28, 1) from 0 to 1.

    Args:
        folder: Not used; Keras has the images.
    """
    del folder
    (x, y), (x_test, y_test) = keras.datasets.fashion_mnist.load_data()
    x, x_test = (each[..., None].astype(np.float32) / 255.0 for each in (x, x_test))
    train, validation = slice(0, 8_000), slice(-1_000, None)
    return (x[train], y[train]), (x[validation], y[validation]), (x_test[:1_000], y_test[:1_000])


def model(seed: int) -> keras.Model:
    """Returns two blocks over patches and places, the mean over patches, softmax.

    Args:
        seed: Seed of the weights.
    """
    keras.utils.set_random_seed(seed)
    images = keras.Input((28, 28, 1), name="images")
    patches = layers.Reshape((PATCHES, WIDTH))(layers.Conv2D(WIDTH, 4, 4)(images))
    places = layers.Embedding(PATCHES, WIDTH, name="places")(_numbers(images))
    x = layers.Add()([patches, places])
    x = encode(x, blocks=2, heads=4, dropout=0.1)
    x = layers.GlobalAveragePooling1D()(x)
    return keras.Model(images, layers.Dense(10, activation="softmax", name="kind")(x))


def _numbers(images: keras.KerasTensor) -> keras.KerasTensor:
    """Returns the numbers of the patches, (batch, 49): of a first row of any images."""
    ones = ops.ones_like(ops.reshape(images, (-1, 28 * 28))[:, :PATCHES], dtype="int32")
    return ops.cumsum(ones, axis=1) - 1
