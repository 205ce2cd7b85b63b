"""Networks over sequences for `sequences.py`: one module a row, as those of `tasks`.

Each has `data(folder)`, `model(seed)`, `EPOCHS`, `QAT_EPOCHS` and `LEARNING_RATE`.
"""

from __future__ import annotations

import importlib
from types import ModuleType

NAMES = ("text_transformer", "vision_transformer")


def network(name: str) -> ModuleType:
    """Returns the module of a row.

    Args:
        name: One of `NAMES`.
    """
    return importlib.import_module(f"{__name__}.{name}")
