"""Helpers for external measuring programs: time limits, their output, records as JSON."""

from __future__ import annotations

import dataclasses
import json
import math
import numbers
from typing import Any

_LINES = 5
_DEFAULTS = "Warning: No "  # of ethos-u-vela for each option that it has a default of


def check_timeout(timeout: float) -> None:
    """Checks a time limit.

    Args:
        timeout: The limit, in seconds.

    Raises:
        ValueError: It is no finite number above 0.
    """
    number = isinstance(timeout, numbers.Real) and not isinstance(timeout, bool)
    if not number or not 0 < timeout < math.inf:
        raise ValueError(f"timeout must be a finite number of seconds above 0, got {timeout!r}")


def last_lines(output: str) -> str:
    """Returns the last lines of a program's output without warnings about defaults.

    Example:
        >>> last_lines("one" + chr(10) + "two" + chr(10))
        'one | two'

    Args:
        output: The entire output.
    """
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    lines = [line for line in lines if not line.startswith(_DEFAULTS)] or lines
    return " | ".join(lines[-_LINES:]) or "no output"


def plain_record(record: Any, **more: Any) -> dict[str, Any]:
    """Returns a dataclass as JSON types: dictionaries, lists, strings and numbers.

    Args:
        record: The dataclass.
        **more: Items to add, or that replace its fields.
    """
    found: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(record) | more))
    return found
