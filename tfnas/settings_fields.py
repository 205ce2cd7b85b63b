"""Fields of settings records, described once: their check, their help and their flag.

A settings record is a frozen dataclass whose fields are made by :func:`option`. The description of
a field is the help of its flag in the command line, and :func:`documented` puts it into the
record's docstring. The rule of a field is checked by :func:`check_options` and by the flag.
"""

from __future__ import annotations

import dataclasses
import inspect
import math
import numbers
import textwrap
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

_KEY = "option"
_MISSING = dataclasses.MISSING
_T = TypeVar("_T")


@dataclasses.dataclass(frozen=True)
class FieldOption:
    """Description of a field.

    Args:
        help: What it is, with its unit; without a full stop at the end.
        low: Smallest value, or None.
        high: Largest value, or None.
        open: Whether `low` and `high` themselves are excluded: "", "low", "high" or "both".
        choices: The allowed values of a text, or an empty tuple.
        parse: Turns the texts of a list flag into the value; None: a tuple of texts.
        flag: Whether the command line has a flag for it.
    """

    help: str
    low: float | None = None
    high: float | None = None
    open: str = ""
    choices: tuple[str, ...] = ()
    parse: Callable[[Sequence[str]], Any] | None = None
    flag: bool = True

    @property
    def rule(self) -> str:
        """The rule of a number in words, such as "in (0, 1]" or "above 0"."""
        left = "(" if self.open in ("low", "both") or self.low is None else "["
        right = ")" if self.open in ("high", "both") or self.high is None else "]"
        if self.low is not None and self.high is not None:
            return f"in {left}{self.low:g}, {self.high:g}{right}"
        if self.low is not None:
            return f"above {self.low:g}" if left == "(" else f">= {self.low:g}"
        if self.high is not None:
            return f"below {self.high:g}" if right == ")" else f"<= {self.high:g}"
        return "finite"

    def holds(self, value: float) -> bool:
        """Returns whether a number keeps the rule."""
        above = self.low is None or value > self.low or (value == self.low and not self._open_low)
        below = self.high is None or value < self.high or (value == self.high and not self._open_hi)
        return math.isfinite(value) and above and below

    @property
    def _open_low(self) -> bool:
        return self.open in ("low", "both")

    @property
    def _open_hi(self) -> bool:
        return self.open in ("high", "both")


def option(
    default: Any = _MISSING,
    help: str = "",
    factory: Callable[[], Any] | None = None,
    **rule: Any,
) -> Any:
    """Returns a dataclass field with a description.

    Example:
        >>> @dataclasses.dataclass(frozen=True, kw_only=True)
        ... class Settings:
        ...     '''Settings.'''
        ...     bits: int = option(8, "bits of a weight", low=2, high=8)
        >>> check_options(Settings(bits=1))
        Traceback (most recent call last):
        ...
        ValueError: bits must be a whole number in [2, 8], got 1

    Args:
        default: The default; left out: the field must be set.
        help: What the field is.
        factory: Returns the default, where it may change.
        **rule: Further fields of :class:`FieldOption`.
    """
    metadata = {_KEY: FieldOption(help, **rule)}
    if factory is not None:
        return dataclasses.field(default_factory=factory, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def option_of(record: type, name: str) -> Any:
    """Returns a field as it is described in another settings record: default, help and rule.

    Args:
        record: The class of the other settings.
        name: Name of its field.
    """
    [field] = [each for each in dataclasses.fields(record) if each.name == name]
    return dataclasses.field(default=field.default, metadata=field.metadata)


def options_of(record: Any) -> dict[str, FieldOption]:
    """Returns the described fields of a settings record or of its class."""
    fields = dataclasses.fields(record)
    return {field.name: field.metadata[_KEY] for field in fields if _KEY in field.metadata}


def kinds_of(record: type) -> dict[str, tuple[type, bool]]:
    """Returns the type of each described field, and whether it may be None.

    Args:
        record: The class of the settings.
    """
    hints, kinds = typing.get_type_hints(record), {}
    for name in options_of(record):
        parts = typing.get_args(hints[name]) if _is_union(hints[name]) else (hints[name],)
        types_ = [typing.get_origin(part) or part for part in parts if part is not type(None)]
        kinds[name] = (types_[0], type(None) in parts)
    return kinds


def _is_union(hint: Any) -> bool:
    return isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union


def check_options(settings: Any) -> None:
    """Checks the described fields of a settings record.

    Args:
        settings: The record.

    Raises:
        ValueError: A field breaks its rule; the message names the field, the rule and the value.
    """
    kinds = kinds_of(type(settings))
    for name, described in options_of(settings).items():
        value = getattr(settings, name)
        kind, optional = kinds[name]
        if value is None and optional:
            continue
        rule = _rule_broken(value, kind, described)
        if rule:
            raise ValueError(f"{name} must be {rule}, got {value!r}")


def check_whole_numbers(settings: Any, optional: bool = False, **minima: int) -> None:
    """Checks that fields of a settings record are whole numbers.

    Args:
        settings: The record.
        optional: Whether None is allowed.
        **minima: Name of a field -> its smallest value.

    Raises:
        ValueError: One of them is not.
    """
    for name, minimum in minima.items():
        value = getattr(settings, name)
        broken = _rule_broken(value, int, FieldOption("", low=minimum))
        if broken and not (value is None and optional):
            raise ValueError(f"{name} must be {broken}, got {value!r}")


def _rule_broken(value: Any, kind: type, described: FieldOption) -> str:
    """Returns the rule that a value breaks, "" where it keeps it."""
    boolean = isinstance(value, bool)
    if kind is bool:
        return "" if boolean else "True or False"
    if kind is int:
        whole = isinstance(value, numbers.Integral) and not boolean
        return "" if whole and described.holds(value) else f"a whole number {described.rule}"
    if kind is float:
        if boolean or not isinstance(value, numbers.Real) or not math.isfinite(value):
            bounds = "" if described.low is described.high is None else f" {described.rule}"
            return f"a finite number{bounds}"
        return "" if described.holds(float(value)) else described.rule
    if kind is str and described.choices:
        return "" if value in described.choices else f"one of {', '.join(described.choices)}"
    return ""


def parse_pairs(
    texts: Sequence[str], flag: str, form: str, *, whole: bool = False
) -> tuple[tuple[str, Any], ...]:
    """Parses the values of a list flag whose items are pairs.

    Example:
        >>> parse_pairs(["stem=4", "*=16"], "layers", "NAME=K", whole=True)
        (('stem', 4), ('*', 16))

    Args:
        texts: The texts.
        flag: Name of the flag, for the message.
        form: Form of an item, for the message.
        whole: Whether values are whole numbers.

    Raises:
        ValueError: A text has another form.
    """
    pairs: list[tuple[str, Any]] = []
    for text in texts:
        name, _, value = text.rpartition("=")
        if not (name and value) or (whole and not (value.isascii() and value.isdecimal())):
            raise ValueError(f"{flag} must hold {form}, got {text!r}")
        pairs.append((name, int(value) if whole else value))
    return tuple(pairs)


def documented(record: type[_T]) -> type[_T]:
    """Adds the descriptions of the fields to the docstring of a settings record.

    Args:
        record: A dataclass; it is changed and returned.
    """
    lines = []
    for name, described in options_of(record).items():
        texts = described.help + _choices_text(described)
        first = f"{name}: {texts[:1].upper()}{texts[1:]}."
        lines += textwrap.wrap(first, 92, initial_indent="    ", subsequent_indent=" " * 8)
    raises = "Raises:\n    ValueError: A field breaks its rule; the message names it."
    parts = [inspect.cleandoc(record.__doc__ or ""), "Args:\n" + "\n".join(lines), raises]
    record.__doc__ = "\n\n".join(parts) + "\n"
    return record


def _choices_text(described: FieldOption) -> str:
    return f": {', '.join(described.choices)}" if described.choices else ""


def as_settings(kind: type[_T], values: Mapping[str, Any]) -> _T:
    """Returns a settings record of the values that are its fields; others are ignored.

    Args:
        kind: The dataclass.
        values: Values by name.
    """
    names = {field.name for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    return kind(**{name: value for name, value in values.items() if name in names})
