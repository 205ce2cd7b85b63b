"""Rules that the settings of several jobs share."""

from __future__ import annotations

from typing import Any


def check_whole_numbers(settings: Any, optional: bool = False, **least: int) -> None:
    """Raises ValueError unless fields of a record are whole numbers.

    Args:
        settings: The record.
        optional: Whether they may be None.
        **least: Name of a field -> the least that it may be.
    """
    for name, minimum in least.items():
        value = getattr(settings, name)
        if value is None and optional:
            continue
        if not isinstance(value, int) or value < minimum:
            raise ValueError(f"{name} must be a whole number >= {minimum}, got {value!r}")


def check_learning_rate(value: float) -> None:
    """Raises ValueError unless a learning rate is above 0."""
    if not value > 0:
        raise ValueError(f"learning_rate must be above 0, got {value!r}")
