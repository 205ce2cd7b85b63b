"""Networks over sequences for `sequences.py`: one module a row, as those of `tasks`.

Each has `data(folder)`, `model(seed)`, `EPOCHS`, `QAT_EPOCHS` and `LEARNING_RATE`; the parts of its
data are (inputs, targets), its model is not compiled. `ERROR = True` says that it forecasts numbers
and is judged by its mean squared error; the others name one class, and are judged by accuracy.
"""

from __future__ import annotations

import importlib
from types import ModuleType

NAMES = (
    "japanese_vowels_lstm",
    "etth1_lstm",
    "etth1_transformer",
    "spoken_digits_ds_cnn",
    "spoken_digits_gru",
    "text_transformer",
    "sst2_transformer",
    "vision_transformer",
)


def network(name: str) -> ModuleType:
    """Returns the module of a row.

    Args:
        name: One of `NAMES`.
    """
    return importlib.import_module(f"{__name__}.{name}")
