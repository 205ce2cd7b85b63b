"""A text transformer on TREC: six kinds of questions, words of a vocabulary, padding masked.

5,452 training questions, a tenth of which validates, and 500 test questions.
"""

from __future__ import annotations

import pathlib

import keras
import numpy as np
from keras import layers, ops

from .blocks import encode

EPOCHS, QAT_EPOCHS, LEARNING_RATE = 6, 1, 1e-3
VOCABULARY, LENGTH, KINDS, WIDTH = 5000, 20, 6, 32


def data(folder: str) -> tuple[tuple, tuple, tuple]:
    """Returns the training, validation and test part as (ids, kinds); ids (questions, 20).

    Args:
        folder: Folder of `trec_train.txt` and `trec_test.txt`.
    """
    y, texts = read(pathlib.Path(folder) / "trec_train.txt")
    y_test, test_texts = read(pathlib.Path(folder) / "trec_test.txt")
    validation = np.arange(len(y)) % 10 == 9
    ids, ids_test = to_ids(texts[~validation], (texts, test_texts), VOCABULARY, LENGTH)
    train = ids[~validation], y[~validation]
    return train, (ids[validation], y[validation]), (ids_test, y_test)


def read(path: pathlib.Path) -> tuple[np.ndarray, np.ndarray]:
    """Returns labels and texts of a file with a line "label text" each."""
    lines = [line.split(" ", 1) for line in path.read_text("latin-1").splitlines()]
    return np.array([int(label) for label, _ in lines], np.int32), np.array([t for _, t in lines])


def to_ids(
    training: np.ndarray, parts: tuple[np.ndarray, ...], vocabulary: int, length: int
) -> list[np.ndarray]:
    """Returns the ids of the words of texts, (texts, length); 0 is padding.

    Args:
        training: The texts whose words are the vocabulary.
        parts: Arrays of texts.
        vocabulary: Number of ids.
        length: Words of a text; more are cut.
    """
    vectorize = layers.TextVectorization(
        vocabulary, output_sequence_length=length, standardize="lower"
    )
    vectorize.adapt(training)
    return [np.asarray(vectorize(each), np.int32) for each in parts]


def model(seed: int) -> keras.Model:
    """Returns two blocks over words and places, the mean over words that are no padding, softmax.

    Args:
        seed: Seed of the weights.
    """
    return word_encoder(seed, VOCABULARY, LENGTH, KINDS)


def word_encoder(seed: int, vocabulary: int, length: int, kinds: int) -> keras.Model:
    """Returns the network for texts of any kinds.

    Args:
        seed: Seed of the weights.
        vocabulary: Number of ids.
        length: Words of a text.
        kinds: Number of classes.
    """
    keras.utils.set_random_seed(seed)
    ids = keras.Input((length,), dtype="int32", name="ids")
    places = ops.cumsum(ops.ones_like(ids), axis=1) - 1
    words = layers.Embedding(vocabulary, WIDTH, mask_zero=True, name="words")(ids)
    x = layers.Add()([words, layers.Embedding(length, WIDTH, name="places")(places)])
    x = encode(x, blocks=2, heads=4, dropout=0.2)
    x = layers.GlobalAveragePooling1D()(x, mask=ops.not_equal(ids, 0))
    return keras.Model(ids, layers.Dense(kinds, activation="softmax", name="kind")(x))
