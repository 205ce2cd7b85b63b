"""Who says it? Nine speakers by their vowels (JapaneseVowels of the UEA archive), with Conv1D.

270 training and 370 test utterances of 12 cepstral coefficients, which the archive stretched to
25 steps. The network pads them to 32 and masks nothing. A quarter of the training part validates.

Quality: accuracy on the archive's test part. The trained model reaches 0.984.
"""

from __future__ import annotations

import pathlib

import keras
import numpy as np
from keras import layers

from .training import fit, held_out

EPOCHS = 60
METRIC, HIGHER_IS_BETTER = "accuracy", True
LIMIT = {"max_drop": 1.5}
STEPS, CHANNELS, SPEAKERS = 32, 12, 9


def data(folder: str | pathlib.Path) -> tuple[tuple, tuple, tuple]:
    """Returns the parts as (sequences, speakers), padded with zeros: (utterances, 32, 12).

    Args:
        folder: Folder of `japanese_vowels.npz`.
    """
    with np.load(pathlib.Path(folder) / "japanese_vowels.npz") as file:
        x, y, x_test, y_test = (file[k] for k in ("x_train", "y_train", "x_test", "y_test"))
    validation = held_out(y, 4)
    parts = (x[~validation], y[~validation]), (x[validation], y[validation]), (x_test, y_test)
    return tuple(
        (np.pad(x, ((0, 0), (0, STEPS - x.shape[1]), (0, 0))), y.astype(np.int32)) for x, y in parts
    )


def model() -> keras.Model:
    """Returns three convolutions over time with a pooled softmax; noise on its inputs in training.

    The noise is a layer of the model: it acts in training alone and is not in a file.
    """
    sequence = keras.Input((STEPS, CHANNELS), name="cepstra")
    x = layers.GaussianNoise(0.1)(sequence)
    for filters in (48, 64, 64):
        x = layers.Conv1D(filters, 5, padding="same", use_bias=False)(x)
        x = layers.BatchNormalization(momentum=0.9)(x)
        x = layers.ReLU()(x)
    x = layers.GlobalMaxPooling1D()(x)
    x = layers.Dropout(0.3)(x)
    network = keras.Model(sequence, layers.Dense(SPEAKERS, activation="softmax", name="speaker")(x))
    network.compile(
        keras.optimizers.Adam(2e-3), "sparse_categorical_crossentropy", metrics=["accuracy"]
    )
    return network


def train(network: keras.Model, parts: tuple, epochs: int = EPOCHS) -> keras.callbacks.History:
    """Trains the network.

    Args:
        network: The result of `model`.
        parts: The result of `data`.
        epochs: Passes over the training utterances.
    """
    return fit(network, parts[0], parts[1], epochs, batch_size=16)


def quality(y: np.ndarray, outputs: np.ndarray) -> float:
    """Returns the accuracy.

    Args:
        y: Speakers, (utterances,).
        outputs: Probabilities, (utterances, 9).
    """
    return float(np.mean(outputs.argmax(-1) == y))
