"""Checks of records that are read from JSON."""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from collections.abc import Mapping, Sequence
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


def check_types(record: type, fields: Mapping[str, Any]) -> None:
    """Checks the types of a dictionary's values by the annotations of a dataclass.

    Numbers, texts, None, and lists and dictionaries of them are checked, other types are not.

    Example:
        >>> @dataclasses.dataclass
        ... class Size:
        ...     bytes: int
        >>> check_types(Size, {"bytes": "many"})
        Traceback (most recent call last):
        ValueError: Size.bytes must be int, got 'many'

    Args:
        record: A dataclass.
        fields: Its fields by name.

    Raises:
        ValueError: A value has another type.
    """
    for name, kind in typing.get_type_hints(record).items():
        if name in fields and not _fits(fields[name], kind):
            text = getattr(kind, "__name__", None) if isinstance(kind, type) else str(kind)
            value = repr(fields[name])[:80]
            raise ValueError(f"{record.__name__}.{name} must be {text or kind}, got {value}")


def _fits(value: Any, kind: Any) -> bool:
    """Whether a value of JSON has a type."""
    origin, parts = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, part) for part in parts)
    if kind is None or kind is type(None):
        return value is None
    if kind in (int, float, str, bool):
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        return is_number if kind is float else type(value) is kind
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return isinstance(value, Mapping) and all(_fits(v, parts[1]) for v in value.values())
    if origin in (list, tuple):
        return isinstance(value, list | tuple) and (
            origin is tuple or all(_fits(item, parts[0]) for item in value)
        )
    return True


def check_items(name: str, items: Sequence[Any], kind: type, count: int | None = None) -> None:
    """Checks the items of a list, which :func:`check_types` leaves open where it is a tuple.

    Example:
        >>> check_items("Size.macs", [1, "2"], int)
        Traceback (most recent call last):
        ValueError: Size.macs must hold values of int, got '2'

    Args:
        name: The list, for the message.
        items: Its items.
        kind: int, float, str or bool.
        count: How many there must be; None: any number.

    Raises:
        ValueError: An item has another type, or there are too many or too few.
    """
    if count is not None and len(items) != count:
        raise ValueError(f"{name} must hold {count} values, got {len(items)}")
    for item in items:
        if not _fits(item, kind):
            raise ValueError(f"{name} must hold values of {kind.__name__}, got {repr(item)[:80]}")


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
