"""A text transformer on TREC: six kinds of questions, words of a vocabulary, padding masked.

5,452 training questions, a tenth of which validates, and 500 test questions.
"""

from __future__ import annotations

import pathlib

import keras
import numpy as np
from keras import layers, ops

from .blocks import encoder

EPOCHS, QAT_EPOCHS, LEARNING_RATE = 6, 1, 1e-3
VOCABULARY, LENGTH, KINDS, WIDTH = 5000, 20, 6, 32


def data(folder: str) -> tuple[tuple, tuple, tuple]:
    """Returns the training, validation and test part as (ids, kinds); ids (questions, 20).

    Args:
        folder: Folder of `trec_train.txt` and `trec_test.txt`.
    """
    y, texts = _read(pathlib.Path(folder) / "trec_train.txt")
    y_test, test_texts = _read(pathlib.Path(folder) / "trec_test.txt")
    validation = np.arange(len(y)) % 10 == 9
    vectorize = layers.TextVectorization(
        VOCABULARY, output_sequence_length=LENGTH, standardize="lower"
    )
    vectorize.adapt(texts[~validation])
    ids, ids_test = (np.asarray(vectorize(each), np.int32) for each in (texts, test_texts))
    train = ids[~validation], y[~validation]
    return train, (ids[validation], y[validation]), (ids_test, y_test)


def _read(path: pathlib.Path) -> tuple[np.ndarray, np.ndarray]:
    """Returns labels and texts of a file with a line "label text" each."""
    lines = [line.split(" ", 1) for line in path.read_text("latin-1").splitlines()]
    return np.array([int(label) for label, _ in lines], np.int32), np.array([t for _, t in lines])


def model(seed: int) -> keras.Model:
    """Returns two blocks over words and places, the mean over words that are no padding, softmax.

    Args:
        seed: Seed of the weights.
    """
    keras.utils.set_random_seed(seed)
    ids = keras.Input((LENGTH,), dtype="int32", name="ids")
    places = ops.cumsum(ops.ones_like(ids), axis=1) - 1
    words = layers.Embedding(VOCABULARY, WIDTH, mask_zero=True, name="words")(ids)
    x = layers.Add()([words, layers.Embedding(LENGTH, WIDTH, name="places")(places)])
    for _ in range(2):
        x = encoder(x, heads=4, hidden=2 * WIDTH, dropout=0.2)
    x = layers.GlobalAveragePooling1D()(x, mask=ops.not_equal(ids, 0))
    return keras.Model(ids, layers.Dense(KINDS, activation="softmax", name="kind")(x))
