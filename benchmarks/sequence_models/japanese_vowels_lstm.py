"""Who says it? An LSTM over 25 steps of 12 cepstral coefficients (JapaneseVowels), nine speakers.

203 training utterances, 67 that validate and 370 test utterances.
"""

from __future__ import annotations

import keras
from keras import layers
from tasks import japanese_vowels

EPOCHS, QAT_EPOCHS, LEARNING_RATE = 60, 5, 3e-3
STEPS, CHANNELS, SPEAKERS = 25, 12, 9


def data(folder: str) -> tuple[tuple, tuple, tuple]:
    """Returns the parts as (sequences, speakers); sequences (utterances, 25, 12).

    Args:
        folder: Folder of `japanese_vowels.npz`.
    """
    return tuple((x[:, :STEPS], y) for x, y in japanese_vowels.data(folder))


def model(seed: int) -> keras.Model:
    """Returns an LSTM of 48 units and a softmax.

    Args:
        seed: Seed of the weights.
    """
    keras.utils.set_random_seed(seed)
    sequence = keras.Input((STEPS, CHANNELS), name="cepstra")
    x = layers.Dropout(0.3)(layers.LSTM(48, name="memory")(layers.GaussianNoise(0.1)(sequence)))
    return keras.Model(sequence, layers.Dense(SPEAKERS, activation="softmax", name="speaker")(x))
