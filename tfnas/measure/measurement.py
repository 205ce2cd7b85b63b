"""Records of measurements, and Pareto dominance between them.

A :class:`Measurement` holds the results of one artifact with their uncertainty and provenance;
it is stored as JSON beside the artifact. :func:`pareto_front` and :func:`hypervolume` work on
plain rows of numbers, so that anything can be ranked by them. This module imports no TensorFlow.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from tfnas.search_space.json_records import check_keys, check_types, parse_json_object
from tfnas.table import Tabular, TextTable

DIRECTIONS = ("max", "min")


@dataclasses.dataclass(frozen=True)
class Score:
    """A metric of an artifact on a set of examples, with its 95% interval.

    Example:
        >>> str(Score("accuracy", 0.9, 0.88, 0.92, 1000))
        'accuracy 0.9000 [0.8800, 0.9200] n=1000'

    Args:
        name: The metric, such as "accuracy".
        value: Its value over all examples.
        low: Lower end of the 95% interval.
        high: Upper end of the 95% interval.
        examples: Number of examples.
    """

    name: str
    value: float
    low: float
    high: float
    examples: int

    def __str__(self) -> str:
        return f"{self.name} {self.value:.4f} [{self.low:.4f}, {self.high:.4f}] n={self.examples}"


@dataclasses.dataclass(frozen=True)
class Latency(Tabular):
    """Time of one inference, in ms and as a ratio to a reference model measured beside it.

    Absolute times drift on a shared machine and the ratio does not, so compare `ratio`.

    Args:
        median_ms: Median time of one inference, in ms.
        p10_ms: 10th percentile over the rounds, in ms.
        p90_ms: 90th percentile over the rounds, in ms.
        ratio: Median over the rounds of (time / time of the reference), no unit.
        ratio_low: Lower end of the 95% interval of that median.
        ratio_high: Upper end of the 95% interval of that median.
        reference_ms: Median time of the reference in the same rounds, in ms.
        reference: sha256 of the reference file.
        rounds: Number of interleaved rounds.
        threads: Threads of the interpreter.
        xnnpack: Whether the XNNPACK delegate was allowed.
        device: The device that measured; empty for this machine.
    """

    median_ms: float
    p10_ms: float
    p90_ms: float
    ratio: float
    ratio_low: float
    ratio_high: float
    reference_ms: float
    reference: str
    rounds: int
    threads: int
    xnnpack: bool
    device: str = ""

    def ratio_to(self, other: Latency) -> tuple[float, float, float]:
        """Returns (ratio, low, high) of this latency to another one, measured side by side.

        The interval is wide: its ends are those of the two, the worst against the best.

        Args:
            other: The other latency.
        """
        return (
            self.ratio / other.ratio,
            self.ratio_low / other.ratio_high,
            self.ratio_high / other.ratio_low,
        )

    def headers(self) -> list[str]:
        """Returns the titles of the columns."""
        names = ["median ms", "10th to 90th", "ratio [95%]", "rounds", "threads", "XNNPACK"]
        return [*names, *(["device"] if self.device else [])]

    def rows(self) -> list[list[str]]:
        """Returns the latency as the one row of a table."""
        return [
            [
                f"{self.median_ms:.4g}",
                f"{self.p10_ms:.4g} to {self.p90_ms:.4g}",
                f"{self.ratio:.3f} [{self.ratio_low:.3f}, {self.ratio_high:.3f}]",
                str(self.rounds),
                str(self.threads),
                "on" if self.xnnpack else "off",
                *([self.device] if self.device else []),
            ]
        ]

    def __str__(self) -> str:
        return (
            f"{self.median_ms:.4g} ms, {self.ratio:.3f}x reference "
            f"[{self.ratio_low:.3f}, {self.ratio_high:.3f}]"
            f"{f' on {self.device}' if self.device else ''}"
        )


@dataclasses.dataclass(frozen=True, repr=False)
class Measurement(Tabular):
    """Everything that is known about one artifact. Prints as a table of what was measured.

    Example:
        >>> m = Measurement(size_bytes=1000)
        >>> Measurement.from_json(m.to_json()) == m
        True

    Args:
        size_bytes: Size of the file, in bytes.
        gzip_bytes: Size of the file after gzip, in bytes.
        sha256: Hash of the file.
        mode: How it was converted, such as "int8".
        score: Quality on a set of examples.
        latency: Time of one inference.
        parameters: Number of weights of the Keras model.
        macs: Multiply-accumulates of one inference; None where some can't be counted.
        peak_activation_bytes: Memory of the activations alive at once, in bytes.
        architecture: Key of the architecture.
        provenance: Where and with what it was measured: CPU, versions, data set.
        phone: `PhoneLatency.to_dict()`, the latency on a phone.
        vela: `VelaReport.to_dict()`, the estimates of an accelerator's compiler.
        elsewhere: Device -> the latency on it; see `measure_on` of :func:`tfnas.benchmark`.
    """

    size_bytes: int
    gzip_bytes: int | None = None
    sha256: str | None = None
    mode: str | None = None
    score: Score | None = None
    latency: Latency | None = None
    parameters: int | None = None
    macs: int | None = None
    peak_activation_bytes: int | None = None
    architecture: str | None = None
    provenance: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    phone: Mapping[str, Any] | None = None
    vela: Mapping[str, Any] | None = None
    elsewhere: Mapping[str, Latency] | None = None

    def tables(self) -> list[TextTable]:
        """Returns what was measured and the provenance; what is unknown is left out.

        Example:
            >>> m = Measurement(size_bytes=1000, mode="int8")
            >>> m.tables()[0].rows
            [['size', '1,000 bytes'], ['mode', 'int8']]

        Returns:
            One table per section that holds something.
        """
        numbers = {
            "size": _bytes(self.size_bytes),
            "size, gzipped": _bytes(self.gzip_bytes),
            "mode": self.mode,
            "score": self.score,
            "latency": self.latency,
            "parameters": None if self.parameters is None else f"{self.parameters:,}",
            "MACs": None if self.macs is None else f"{self.macs:,}",
            "peak activations": _bytes(self.peak_activation_bytes),
            "architecture": self.architecture,
            "sha256": self.sha256,
        }
        sections = {
            "measured": numbers,
            "provenance": self.provenance,
            "phone": self.phone or {},
            "vela": self.vela or {},
            "latency elsewhere": self.elsewhere or {},
        }
        found = []
        for title, section in sections.items():
            rows = [
                [name, str(value)]
                for name, value in section.items()
                if value is not None and not isinstance(value, Mapping | list | tuple)
            ]
            if rows:
                found.append(TextTable([title, "value"], rows, right=2))
        return found

    def to_dict(self) -> dict[str, Any]:
        """Returns the measurement as plain dictionaries, lists, strings and numbers.

        Example:
            >>> m = Measurement(size_bytes=1000, mode="int8")
            >>> m.to_dict()["size_bytes"]
            1000

        Returns:
            Field -> value, with records as dictionaries.
        """
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Measurement:
        """Returns the measurement of a dictionary as :meth:`to_dict` returns it.

        Example:
            >>> m = Measurement(size_bytes=1000, mode="int8")
            >>> Measurement.from_dict(m.to_dict()) == m
            True

        Args:
            fields: Field -> value.

        Returns:
            The measurement.

        Raises:
            ValueError: A key is unknown or missing, or a value has another type; the message
                names it.
        """
        check_keys(cls, fields)
        records = {"score": Score, "latency": Latency}
        check_types(cls, {n: v for n, v in fields.items() if n not in records})
        values = dict(fields)
        for name, record in records.items():
            if values.get(name) is not None:
                values[name] = _record(record, values[name])
        if values.get("elsewhere") is not None:
            found = values["elsewhere"].items()
            values["elsewhere"] = {name: _record(Latency, each) for name, each in found}
        return cls(**values)

    def to_json(self, indent: int | None = None) -> str:
        """Returns the measurement as JSON text.

        Example:
            >>> m = Measurement(size_bytes=1000, mode="int8")
            >>> m.to_json()[:22]
            '{"size_bytes": 1000, "'

        Args:
            indent: Spaces per level; None: one line.

        Returns:
            The text.
        """
        return json.dumps(self.to_dict(), indent=indent)

    @classmethod
    def from_json(cls, text: str) -> Measurement:
        """Returns the measurement of JSON text as :meth:`to_json` returns it.

        Example:
            >>> m = Measurement(size_bytes=1000, mode="int8")
            >>> Measurement.from_json(m.to_json()).mode
            'int8'

        Args:
            text: A JSON object.

        Returns:
            The measurement.

        Raises:
            ValueError: The text is no JSON object, or a key is unknown or missing.
        """
        return cls.from_dict(parse_json_object(text, "measurement"))


def _record(kind: type[Any], fields: Mapping[str, Any]) -> Any:
    """A record of checked fields."""
    check_keys(kind, fields)
    check_types(kind, fields)
    return kind(**fields)


def dominates(a: Sequence[float], b: Sequence[float], directions: Sequence[str]) -> bool:
    """Whether `a` is at least as good as `b` in every objective and better in at least one.

    Example:
        >>> dominates([0.9, 10], [0.9, 20], ["max", "min"])
        True

    Args:
        a: One value per objective.
        b: One value per objective.
        directions: "max" or "min" for each objective.

    Raises:
        ValueError: Lengths differ, a direction is unknown or a value is NaN.
    """
    first, second = _as_losses([a, b], directions)
    return _dominates(first, second)


def pareto_front(rows: Sequence[Sequence[float]], directions: Sequence[str]) -> list[int]:
    """Returns the indices of the rows that no other row dominates, ascending.

    Equal rows do not dominate each other: all of them stay.

    Example:
        >>> pareto_front([[0.9, 10], [0.8, 20], [0.95, 30]], ["max", "min"])
        [0, 2]

    Args:
        rows: One row per candidate, one value per objective: (candidates, objectives).
        directions: "max" or "min" for each objective.

    Raises:
        ValueError: Lengths differ, a direction is unknown or a value is NaN.
    """
    losses = _as_losses(rows, directions)
    return [
        index
        for index, row in enumerate(losses)
        if not any(_dominates(other, row) for other in losses)
    ]


def hypervolume(
    rows: Sequence[Sequence[float]], reference: Sequence[float], directions: Sequence[str]
) -> float:
    """Returns the volume between the Pareto front and a reference point.

    Rows that are not better than the reference in every objective add nothing.

    Example:
        >>> hypervolume([[1, 2], [2, 1]], [3, 3], ["min", "min"])
        3.0

    Args:
        rows: One row per candidate, one value per objective: (candidates, objectives).
        reference: The reference point, the worst corner, one value per objective.
        directions: "max" or "min" for each objective.

    Raises:
        ValueError: Lengths differ, a direction is unknown or a value is NaN.

    References:
        Guerreiro, Fonseca and Paquete, "The Hypervolume Indicator: Computational Problems and
        Algorithms", ACM Computing Surveys 2021; computed by the package moocore.
    """
    if not isinstance(rows, Iterable):
        raise ValueError(f"rows must be a sequence, got {rows!r}")
    *losses, corner = _as_losses([*rows, reference], directions)
    inside = [row for row in losses if all(v < c for v, c in zip(row, corner, strict=True))]
    return _volume(inside, corner)


def _bytes(count: int | None) -> str | None:
    return None if count is None else f"{count:,} bytes"


def _volume(points: list[tuple[float, ...]], corner: tuple[float, ...]) -> float:
    """The volume between points that are below a corner, and the corner."""
    if not points:
        return 0.0
    if any(math.isinf(value) for point in (corner, *points) for value in point):
        return math.inf  # moocore ends the process
    if len(corner) == 1:  # moocore 0.1.7 ends the process here too
        return corner[0] - min(point[0] for point in points)
    import moocore

    volume = float(moocore.hypervolume(np.array(points), ref=np.array(corner)))
    return math.inf if math.isnan(volume) else volume  # too large for a float: inf - inf


def _dominates(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
    return a != b and all(x <= y for x, y in zip(a, b, strict=True))


def _as_losses(
    rows: Sequence[Sequence[float]], directions: Sequence[str]
) -> list[tuple[float, ...]]:
    """The rows with every objective as one to minimize. Raises ValueError as the callers do."""
    for name, values in (("rows", rows), ("directions", directions)):
        if isinstance(values, str | bytes | Mapping) or not isinstance(values, Iterable):
            raise ValueError(f"{name} must be a sequence, got {values!r}")
    for direction in directions:
        if direction not in DIRECTIONS:
            raise ValueError(f"directions must be 'max' or 'min', got {direction!r}")
    signs = [-1.0 if direction == "max" else 1.0 for direction in directions]
    losses = []
    for index, row in enumerate(rows):
        try:
            numbers = [float(0.0 + value) for value in row]  # 0.0 + refuses texts
        except (TypeError, ValueError, OverflowError) as error:
            raise ValueError(f"rows[{index}] must hold numbers, got {row!r}") from error
        if len(numbers) != len(directions):
            raise ValueError(
                f"rows[{index}] must hold {len(directions)} values, one per direction, got {row!r}"
            )
        if any(math.isnan(value) for value in numbers):
            raise ValueError(f"rows[{index}] must hold no NaN, got {row!r}")
        losses.append(tuple(s * v for s, v in zip(signs, numbers, strict=True)))
    return losses
