"""Which digit is spoken? A GRU over frames of a log-mel spectrogram; one speaker is left out.

2,000 training recordings of four speakers, 500 of a fifth that validate, 500 of a sixth that test.
The spectrogram is made before: its float operators are not what is compared.
"""

from __future__ import annotations

import keras
import numpy as np
from keras import layers
from tasks import spoken_digits

EPOCHS, QAT_EPOCHS, LEARNING_RATE = 20, 2, 3e-3
PAIR = 2  # frames of a step


def data(folder: str) -> tuple[tuple, tuple, tuple]:
    """Returns the parts as (frames, digits); frames (recordings, 49, 64), of about 20 ms each.

    Args:
        folder: Folder of `spoken_digits_8khz.npz`.
    """
    return tuple((_steps(x), y) for x, y in spectrograms(folder))


def spectrograms(folder: str) -> tuple[tuple, tuple, tuple]:
    """Returns the parts as (spectrograms, digits); spectrograms (recordings, 99, 32).

    Args:
        folder: Folder of `spoken_digits_8khz.npz`.
    """
    sound = keras.Input((spoken_digits.SAMPLES,))
    bands = keras.Model(sound, spoken_digits.log_mel(sound))
    parts = spoken_digits.data(folder)
    return tuple((bands.predict(x, verbose=0)[..., 0], y) for x, y in parts)


def _steps(x: np.ndarray) -> np.ndarray:
    steps = x.shape[1] // PAIR
    return x[:, : steps * PAIR].reshape(len(x), steps, -1)


def model(seed: int) -> keras.Model:
    """Returns a GRU of 64 units and a softmax.

    Args:
        seed: Seed of the weights.
    """
    keras.utils.set_random_seed(seed)
    frames = keras.Input((49, 64), name="frames")
    x = layers.Dropout(0.4)(layers.GRU(64, name="memory")(layers.GaussianNoise(0.2)(frames)))
    return keras.Model(frames, layers.Dense(10, activation="softmax", name="digit")(x))
