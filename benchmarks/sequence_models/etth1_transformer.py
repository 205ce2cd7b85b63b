"""The load of a transformer in the next 24 hours (ETTh1), by two blocks of attention over patches.

A patch is four hours; the data are those of `etth1_lstm`.
"""

from __future__ import annotations

import keras
from keras import layers
from tasks import etth1

from .blocks import encode
from .etth1_lstm import AHEAD, data

__all__ = ["ERROR", "data", "model"]
ERROR = True
EPOCHS, QAT_EPOCHS, LEARNING_RATE = 10, 2, 1e-3
PATCH, WIDTH = 4, 32


def model(seed: int) -> keras.Model:
    """Returns patches, two blocks, and a Dense layer on all places.

    Args:
        seed: Seed of the weights.
    """
    keras.utils.set_random_seed(seed)
    window = keras.Input((etth1.HOURS, etth1.COLUMNS), name="window")
    x = layers.Conv1D(WIDTH, PATCH, PATCH, name="patches")(window)
    x = layers.Dropout(0.1)(layers.LayerNormalization(name="norm")(x))
    x = encode(x, blocks=2, heads=4, dropout=0.1)
    x = layers.Dropout(0.2)(layers.Flatten()(x))
    return keras.Model(window, layers.Dense(AHEAD, name="load")(x))
