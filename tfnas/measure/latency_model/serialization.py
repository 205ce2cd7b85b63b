"""Reads and writes a fitted latency model as JSON; every field is validated on reading."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import pathlib
from collections.abc import Mapping
from typing import Any

from tfnas.measure.latency_model.profiling import LatencyFit
from tfnas.measure.latency_model.regression import LatencyErrors
from tfnas.quantization.spec import QuantSpec
from tfnas.runtime.files import write_atomically
from tfnas.search_space.json_records import check_keys, parse_json_object

FORMAT = "tfnas latency model 1"


@dataclasses.dataclass(frozen=True)
class StoredModel:
    """The content of the file.

    Args:
        format: Name and version of the format.
        mode: Mode of the measured files, such as "int8".
        threads: Threads of the interpreter.
        provenance: Machine, versions and date of the fit.
        fit: The fitted costs and their errors.
        table: Ratios of layers that were measured alone.
    """

    format: str
    mode: str
    threads: int
    provenance: Mapping[str, Any]
    fit: LatencyFit
    table: Mapping[str, float]


def write_model(path: str | os.PathLike[str], stored: StoredModel) -> pathlib.Path:
    """Writes the file atomically and returns its path."""
    text = json.dumps(dataclasses.asdict(stored), indent=1, sort_keys=True)
    return write_atomically(path, text)


def read_model(path: str | os.PathLike[str]) -> StoredModel:
    """Reads and validates a file of :func:`write_model`.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is no such file; the message names the file and the rule.
    """
    try:
        return _read(pathlib.Path(path).read_bytes())
    except ValueError as error:
        raise ValueError(f"file {os.fspath(path)!r} must be a latency model: {error}") from error


def _read(content: bytes) -> StoredModel:
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError("it must be UTF-8") from error
    fields = parse_json_object(text, "it")
    if fields.get("format") != FORMAT:
        raise ValueError(f"format must be {FORMAT!r}, got {fields.get('format')!r}")
    check_keys(StoredModel, fields)
    mode = QuantSpec.of(fields["mode"]).mode
    threads = fields["threads"]
    if not isinstance(threads, int) or isinstance(threads, bool) or threads < 1:
        raise ValueError(f"threads must be a whole number >= 1, got {threads!r}")
    provenance = fields["provenance"]
    if not isinstance(provenance, dict):
        raise ValueError(f"provenance must be a JSON object, got {provenance!r}")
    return StoredModel(
        FORMAT,
        mode,
        threads,
        provenance,
        _fit(fields["fit"]),
        _numbers("table", fields["table"]),
    )


def _fit(fields: Any) -> LatencyFit:
    check_keys(LatencyFit, fields)
    costs, macs_costs = (_costs(name, fields[name]) for name in ("costs", "macs_costs"))
    if not isinstance(fields["space"], str):
        raise ValueError(f"space must be a fingerprint, got {fields['space']!r}")
    if not isinstance(fields["direct"], bool):
        raise ValueError(f"direct must be true or false, got {fields['direct']!r}")
    errors, macs_errors = (_errors(name, fields[name]) for name in ("errors", "macs_errors"))
    seconds = _number("seconds", fields["seconds"])
    return LatencyFit(
        costs, errors, macs_costs, macs_errors, fields["space"], seconds, fields["direct"]
    )


def _costs(name: str, fields: Any) -> dict[str, float]:
    costs = _numbers(name, fields)
    if not costs:
        raise ValueError(f"{name} must hold at least one feature, got none")
    return costs


def _errors(name: str, fields: Any) -> LatencyErrors:
    check_keys(LatencyErrors, fields)
    may_be_negative = ("r2", "spearman")
    values = {
        key: _number(f"{name}.{key}", value, negative=key in may_be_negative)
        for key, value in fields.items()
    }
    return LatencyErrors(**{**values, "networks": int(values["networks"])})  # type: ignore[arg-type]


def _numbers(name: str, fields: Any) -> dict[str, float]:
    if not isinstance(fields, dict):
        raise ValueError(f"{name} must be a JSON object, got {fields!r}")
    return {key: _number(f"{name}[{key!r}]", value) for key, value in fields.items()}


def _number(name: str, value: Any, negative: bool = False) -> float:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    # A JSON integer may be too large for a float.
    if not number or not -1e300 < value < 1e300 or not math.isfinite(value):
        raise ValueError(f"{name} must be a finite number, got {str(value)[:50]}")
    if value < 0 and not negative:
        raise ValueError(f"{name} must be >= 0, got {value!r}")
    return float(value)
