"""Flags of settings records, made from the descriptions of their fields."""

from __future__ import annotations

import dataclasses
from typing import Any

from absl import flags

from tfnas.settings_fields import FieldOption, kinds_of, options_of


def define_options(record: type, common: dict[str, Any], **defaults: Any) -> None:
    """Declares a flag for each described field of a settings record.

    Args:
        record: The dataclass.
        common: Keyword arguments of each flag's declaration.
        **defaults: Other defaults than the fields' own.
    """
    kinds = kinds_of(record)
    fields = {field.name: field for field in dataclasses.fields(record)}
    for name, described in options_of(record).items():
        if not described.flag:
            continue
        default = defaults.get(name, fields[name].default)
        needed = default is dataclasses.MISSING
        _define(name, described, kinds[name][0], None if needed else default, needed, common)


def _define(
    name: str,
    described: FieldOption,
    kind: type,
    default: Any,
    needed: bool,
    common: dict[str, Any],
) -> None:
    options = {"required": True, **common} if needed else common
    if kind is bool:
        flags.DEFINE_bool(name, default, described.help, **options)
    elif kind is int:
        least = None if described.low is None else int(described.low)
        flags.DEFINE_integer(name, default, described.help, lower_bound=least, **options)
    elif kind is float:
        low = None if "low" in described.open or "both" in described.open else described.low
        high = None if "high" in described.open or "both" in described.open else described.high
        flags.DEFINE_float(
            name, default, described.help, lower_bound=low, upper_bound=high, **options
        )
    elif kind is str and described.choices:
        flags.DEFINE_enum(name, default, list(described.choices), described.help, **options)
    elif kind is str:
        flags.DEFINE_string(name, default, described.help, **options)
    else:
        flags.DEFINE_list(name, list(default or ()), described.help, **options)


def option_values(record: type, values: flags.FlagValues) -> dict[str, Any]:
    """Returns the values of the flags of a settings record, as its fields take them.

    Args:
        record: The dataclass.
        values: The flags.

    Raises:
        ValueError: The texts of a list flag have another form.
    """
    found = {}
    for name, described in options_of(record).items():
        if not described.flag or name not in values:
            continue
        value = values[name].value
        if isinstance(value, list):
            value = tuple(value) if described.parse is None else described.parse(value)
        found[name] = value
    return found
