"""Checks of single arguments."""

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
    excluded: Set[float] = frozenset(),
) -> None:
    """Raises ValueError unless a value is a number in an interval.

    Args:
        name: Name of the argument, for the message.
        value: Its value.
        low: Lower bound.
        high: Upper bound.
        excluded: Bounds that do not belong to the interval; infinity never does.
    """
    number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if number and (low < value < high or value in {low, high} - excluded - {math.inf}):
        return
    opening = "(" if low in excluded else "["
    closing = ")" if high in excluded or high == math.inf else "]"
    interval = f"{opening}{low:g}, {high:g}{closing}"
    raise ValueError(f"{name} must be a number in {interval}, got {value!r}")


def check_model(name: str, model: Any) -> None:
    """Raises ValueError unless a value is a built Keras 3 model."""
    if not isinstance(model, keras.Model):
        raise ValueError(f"{name} must be a built Keras 3 model, got {type(model).__name__}")
    if not model.built:
        raise ValueError(
            f"{name} must be built, got {model.name!r}: start it with keras.Input, or call it once"
        )
