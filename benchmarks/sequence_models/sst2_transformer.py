"""The text transformer on SST-2: is a sentence of a film review positive?

6,920 training sentences, 872 that validate and 1,821 test sentences.
"""

from __future__ import annotations

import pathlib

import keras

from .text_transformer import read, to_ids, word_encoder

EPOCHS, QAT_EPOCHS, LEARNING_RATE = 3, 1, 1e-3
VOCABULARY, LENGTH, KINDS = 8000, 32, 2


def data(folder: str) -> tuple[tuple, tuple, tuple]:
    """Returns the parts as (ids, kinds); ids (sentences, 32).

    Args:
        folder: Folder of `sst2_train.txt`, `sst2_dev.txt` and `sst2_test.txt`.
    """
    parts = [read(pathlib.Path(folder) / f"sst2_{name}.txt") for name in ("train", "dev", "test")]
    ids = to_ids(parts[0][1], tuple(texts for _, texts in parts), VOCABULARY, LENGTH)
    return tuple(zip(ids, (y for y, _ in parts), strict=True))


def model(seed: int) -> keras.Model:
    """Returns the network.

    Args:
        seed: Seed of the weights.
    """
    return word_encoder(seed, VOCABULARY, LENGTH, KINDS)
