"""The load of a transformer in the next 24 hours (ETTh1), by an LSTM over 96 hours.

Columns are standardized by the training year; every sixth hour begins a window, in the test months
every third.
"""

from __future__ import annotations

import keras
import numpy as np
from keras import layers
from tasks import etth1

ERROR = True
EPOCHS, QAT_EPOCHS, LEARNING_RATE = 10, 2, 2e-3
AHEAD = 48  # 24 hours of two columns


def data(folder: str) -> tuple[tuple, tuple, tuple]:
    """Returns the parts as (windows, load): (windows, 96, 7) and (windows, 48).

    Both are changes from the last hour of the window: the level of another season is no news.

    Args:
        folder: Folder of `ETTh1.csv`.
    """
    return tuple(_changes(x, y["load"]) for x, y in etth1.data(folder))


def _changes(x: np.ndarray, load: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    last = x[:, -1:]
    return x - last, load - np.tile(last[:, 0, etth1.LOAD], AHEAD // len(etth1.LOAD))


def model(seed: int) -> keras.Model:
    """Returns an LSTM of 32 units and a Dense layer.

    Args:
        seed: Seed of the weights.
    """
    keras.utils.set_random_seed(seed)
    window = keras.Input((etth1.HOURS, etth1.COLUMNS), name="window")
    x = layers.Dropout(0.2)(layers.LSTM(32, name="memory")(window))
    return keras.Model(window, layers.Dense(AHEAD, name="load")(x))
