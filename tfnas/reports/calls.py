"""Calls of Python that repeat a job, for its report."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from tfnas.reports.last_sections import bare


def call_of(name: str, positional: Sequence[str], arguments: Mapping[str, Any]) -> str:
    """Returns a call as a line of Python.

    Example:
        >>> call_of("tfnas.search", ["'digits'"], {"max_trials": 12, "teacher": "/home/me/t.keras"})
        "tfnas.search('digits', max_trials=12, teacher='t.keras')"

    Args:
        name: The function.
        positional: Its first arguments, as they are written.
        arguments: Its other arguments by name; of an absolute path the last name is written.
    """
    named = (f"{key}={written(value)}" for key, value in arguments.items())
    return f"{name}({', '.join([*positional, *named])})"


def changed(settings: Any) -> dict[str, Any]:
    """Returns the fields of a dataclass that are not as their defaults, by name.

    Example:
        >>> from tfnas.compression.fine_tune_settings import FineTuneSettings
        >>> changed(FineTuneSettings(epochs=5, seed=3))["seed"]
        3

    Args:
        settings: The dataclass.
    """
    found = {}
    for field in dataclasses.fields(settings):
        value, default = getattr(settings, field.name), field.default
        if field.default_factory is not dataclasses.MISSING:
            default = field.default_factory()
        if default is dataclasses.MISSING or value != default:
            found[field.name] = value
    return found


def written(value: Any) -> str:
    """Returns a value as Python writes it; of a dataclass the fields that are not as their
    defaults."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return call_of(f"tfnas.{type(value).__name__}", [], changed(value))
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{k!r}: {written(v)}" for k, v in value.items()) + "}"
    return repr(bare(value))
