"""Programs of others that measure for us: the time that they get, and what they told."""

from __future__ import annotations

import dataclasses
import json
import math
import numbers
from typing import Any

_LINES = 5
_DEFAULTS = "Warning: No "  # of ethos-u-vela, whenever it takes a default


def check_timeout(timeout: Any) -> None:
    """Raises ValueError unless a time limit is a finite number of seconds above 0."""
    number = isinstance(timeout, numbers.Real) and not isinstance(timeout, bool)
    if not number or not 0 < timeout < math.inf:
        raise ValueError(f"timeout must be a finite number of seconds above 0, got {timeout!r}")


def last_lines(said: str) -> str:
    """Returns the last lines of what a program said, but for warnings about defaults.

    Example:
        >>> last_lines("one" + chr(10) + "two" + chr(10))
        'one | two'

    Args:
        said: All of it.
    """
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    lines = [line for line in lines if not line.startswith(_DEFAULTS)] or lines
    return " | ".join(lines[-_LINES:]) or "nothing said"


def plain_record(record: Any, **more: Any) -> dict[str, Any]:
    """Returns a dataclass as JSON would give it back: dictionaries, lists, strings and numbers.

    Args:
        record: The dataclass.
        **more: Fields beside its own, or in their place.
    """
    found: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(record) | more))
    return found
