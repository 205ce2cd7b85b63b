"""A file of JSON objects, one a line, that grows by whole lines."""

from __future__ import annotations

import json
import pathlib
from typing import Any

from tfnas.runtime.files import write_atomically


def read_json_lines(path: pathlib.Path) -> list[dict[str, Any]]:
    """Returns the objects of a file; lines that a kill cut short are removed from it.

    Example:
        >>> read_json_lines(pathlib.Path("no file"))
        []

    Args:
        path: The file; it need not exist.
    """
    if not path.exists():
        return []
    text = path.read_text(encoding="utf-8", errors="replace")
    lines = text.splitlines(keepends=True)
    objects = [(line, _parsed(line)) for line in lines]
    whole = [(line, found) for line, found in objects if found is not None]
    if len(whole) < len(lines):
        write_atomically(path, "".join(line for line, _ in whole))
    return [found for _, found in whole if found is not None]


def append_json_line(path: pathlib.Path, record: dict[str, Any]) -> None:
    """Adds an object to a file.

    Args:
        path: The file, whose last line is whole: it was read before, or does not exist.
        record: The object.
    """
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(record) + "\n")


def _parsed(line: str) -> dict[str, Any] | None:
    try:
        found = json.loads(line) if line.endswith("\n") else None
    except ValueError:
        return None
    return found if isinstance(found, dict) else None
