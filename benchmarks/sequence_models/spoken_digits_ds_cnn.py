"""Which digit is spoken? A DS-CNN on a log-mel spectrogram; one speaker is left out.

2,000 training recordings of four speakers, 500 of a fifth that validate, 500 of a sixth that test.
The spectrogram is made before: its float operators are not what is compared.
"""

from __future__ import annotations

import keras
from keras import layers

from .spoken_digits_gru import spectrograms

EPOCHS, QAT_EPOCHS, LEARNING_RATE = 12, 1, 3e-3


def data(folder: str) -> tuple[tuple, tuple, tuple]:
    """Returns the parts as (spectrograms, digits); spectrograms (recordings, 99, 32, 1).

    Args:
        folder: Folder of `spoken_digits_8khz.npz`.
    """
    return tuple((x[..., None], y) for x, y in spectrograms(folder))


def model(seed: int) -> keras.Model:
    """Returns a strided convolution and three separable ones.

    Args:
        seed: Seed of the weights.
    """
    keras.utils.set_random_seed(seed)
    bands = keras.Input((99, 32, 1), name="bands")
    x = layers.GaussianNoise(0.2)(bands)
    x = layers.Conv2D(48, (10, 4), strides=(2, 2), padding="same", use_bias=False)(x)
    for strides in (2, 1, 1):
        x = layers.ReLU()(layers.BatchNormalization(momentum=0.9)(x))
        x = layers.DepthwiseConv2D(3, strides=strides, padding="same", use_bias=False)(x)
        x = layers.ReLU()(layers.BatchNormalization(momentum=0.9)(x))
        x = layers.Conv2D(64, 1, use_bias=False)(x)
    x = layers.ReLU()(layers.BatchNormalization(momentum=0.9)(x))
    x = layers.Dropout(0.4)(layers.GlobalAveragePooling2D()(x))
    return keras.Model(bands, layers.Dense(10, activation="softmax", name="digit")(x))
