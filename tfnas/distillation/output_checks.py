"""Rules of single arguments."""

from __future__ import annotations

import math
import numbers
from collections.abc import Set
from typing import Any

import keras


def check_number(
    name: str,
    value: Any,
    *,
    low: float,
    high: float = math.inf,
    outside: Set[float] = frozenset(),
) -> None:
    """Raises ValueError for what is no number of an interval.

    Args:
        name: The argument's.
        value: What was given.
        low: Where the interval begins.
        high: Where it ends.
        outside: Ends of the interval that do not belong to it; infinity never does.
    """
    number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if number and (low < value < high or value in {low, high} - outside - {math.inf}):
        return
    opening = "(" if low in outside else "["
    closing = ")" if high in outside or high == math.inf else "]"
    interval = f"{opening}{low:g}, {high:g}{closing}"
    raise ValueError(f"{name} must be a number in {interval}, got {value!r}")


def check_model(name: str, model: Any) -> None:
    """Raises ValueError for what is no built Keras 3 model."""
    if not isinstance(model, keras.Model):
        raise ValueError(f"{name} must be a built Keras 3 model, got {type(model).__name__}")
    if not model.built:
        raise ValueError(
            f"{name} must be built, got {model.name!r}: begin it with keras.Input, or call it once"
        )
