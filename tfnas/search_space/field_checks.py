"""Checks of the fields of frozen records, which also make their values plain Python numbers."""

from __future__ import annotations

import numbers
from collections.abc import Iterable
from typing import Any


def _as_int(name: str, value: Any, minimum: int, maximum: int | None) -> int:
    bounds = f">= {minimum}" if maximum is None else f"between {minimum} and {maximum}"
    is_whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    if not is_whole or value < minimum or (maximum is not None and value > maximum):
        raise ValueError(f"{name} must be a whole number {bounds}, got {value!r}")
    return int(value)


def set_int(record: Any, name: str, minimum: int, maximum: int | None = None) -> None:
    """Makes a field a Python integer.

    Args:
        record: The record.
        name: Name of the field.
        minimum: Its smallest value.
        maximum: Its largest value; None: there is none.

    Raises:
        ValueError: It is no whole number within these bounds.
    """
    object.__setattr__(record, name, _as_int(name, getattr(record, name), minimum, maximum))


def set_shape(record: Any, name: str, *lengths: int) -> None:
    """Makes a field a tuple of sizes, such as (height, width, channels).

    Args:
        record: The record.
        name: Name of the field.
        *lengths: Numbers of sizes that it may hold.

    Raises:
        ValueError: It does not hold so many whole numbers, each at least 1.
    """
    value = getattr(record, name)
    readable = isinstance(value, Iterable) and not isinstance(value, str | bytes)
    items = tuple(value) if readable else ()
    if len(items) not in lengths:
        rule = " or ".join(map(str, lengths))
        raise ValueError(f"{name} must hold {rule} whole numbers, got {value!r}")
    shape = tuple(_as_int(f"{name}[{i}]", item, 1, None) for i, item in enumerate(items))
    object.__setattr__(record, name, shape)


def set_float(
    record: Any,
    name: str,
    *,
    above: float | None = None,
    at_least: float | None = None,
    below: float | None = None,
) -> None:
    """Makes a field a finite Python float.

    Args:
        record: The record.
        name: Name of the field.
        above: It must be above this; None: there is no such rule.
        at_least: It must be at least this.
        below: It must be below this.

    Raises:
        ValueError: It is no number within these bounds.
    """
    value = getattr(record, name)
    rules = [
        text
        for bound, text in (
            (above, f"> {above}"),
            (at_least, f">= {at_least}"),
            (below, f"< {below}"),
        )
        if bound is not None
    ]
    is_valid = isinstance(value, numbers.Real) and not isinstance(value, bool)
    is_valid = is_valid and abs(value) < 1e300  # false for NaN and infinity as well
    is_valid = is_valid and (above is None or value > above)
    is_valid = is_valid and (at_least is None or value >= at_least)
    is_valid = is_valid and (below is None or value < below)
    if not is_valid:
        raise ValueError(f"{name} must be a number {' and '.join(rules)}, got {value!r}")
    object.__setattr__(record, name, float(value))
