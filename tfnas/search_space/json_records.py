"""Checks of records that are read from JSON."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any


def check_keys(record: type, fields: Any) -> None:
    """Checks the keys of a dictionary; fields with a default may be missing.

    Args:
        record: A dataclass.
        fields: The dictionary whose keys must be fields of the dataclass.

    Raises:
        ValueError: A key is unknown or missing, or `fields` is no dictionary.
    """
    if not isinstance(fields, Mapping):
        raise ValueError(f"{record.__name__} must be a JSON object, got {fields!r}")
    known = {field.name: field for field in dataclasses.fields(record)}
    unknown = sorted(str(key) for key in set(fields) - set(known))
    if unknown:
        raise ValueError(f"unknown key in {record.__name__}: {', '.join(unknown)}")
    missing = [
        name
        for name, field in known.items()
        if name not in fields
        and field.default is dataclasses.MISSING
        and field.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise ValueError(f"missing key in {record.__name__}: {', '.join(missing)}")


def parse_json_object(text: str, what: str) -> dict[str, Any]:
    """Returns the JSON object in a text.

    Args:
        text: The text.
        what: Name of the text, for the message of an error.

    Raises:
        ValueError: The text is no JSON, or no object.
    """
    try:
        value = json.loads(text)
    except (ValueError, TypeError, RecursionError) as error:
        raise ValueError(f"{what} is not valid JSON: {error}") from error
    if not isinstance(value, dict):
        raise ValueError(f"{what} must be a JSON object, got {type(value).__name__}")
    return value
