"""Splits English sentences into the pieces of words of BERT's uncased vocabulary."""

from __future__ import annotations

import json
import pathlib
import re
import unicodedata
from collections.abc import Sequence

import numpy as np

_START, _END, _UNKNOWN = "[CLS]", "[SEP]", "[UNK]"
_LONGEST_WORD = 100
_PARTS = re.compile(r"[^\W_]+|[^\w\s]|_")


def token_ids(texts: Sequence[str], folder: pathlib.Path, length: int) -> np.ndarray:
    """Returns the numbers of the pieces of each sentence, (sentences, length), 0 behind them.

    Args:
        texts: Sentences.
        folder: Folder of `tokenizer.json`.
        length: Pieces of a sentence with its start and its end; longer ones are cut.
    """
    file = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    vocabulary: dict[str, int] = file["model"]["vocab"]
    ids = np.zeros((len(texts), length), np.int32)
    for row, text in zip(ids, texts, strict=True):
        pieces = [piece for word in _words(text) for piece in _pieces(word, vocabulary)]
        found = [_START, *pieces[: length - 2], _END]
        row[: len(found)] = [vocabulary[piece] for piece in found]
    return ids


def _words(text: str) -> list[str]:
    """Words and single punctuation marks, in small letters without accents."""
    letters = unicodedata.normalize("NFD", text.lower())
    return _PARTS.findall("".join(c for c in letters if unicodedata.category(c) != "Mn"))


def _pieces(word: str, vocabulary: dict[str, int]) -> list[str]:
    """The longest pieces that the vocabulary has, from the front."""
    found: list[str] = []
    start = 0
    while start < len(word):
        before = "##" if start else ""
        ends = range(len(word), start, -1)
        end = next((end for end in ends if before + word[start:end] in vocabulary), None)
        if end is None or len(word) > _LONGEST_WORD:
            return [_UNKNOWN]
        found.append(before + word[start:end])
        start = end
    return found
