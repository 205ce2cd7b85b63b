"""Warnings of Keras that mean nothing in a search."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator


@contextlib.contextmanager
def without_optimizer_warnings() -> Iterator[None]:
    """Silences the warning that a file has no state of the optimizer, or another one's."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Skipping variable loading for optimizer")
        yield
