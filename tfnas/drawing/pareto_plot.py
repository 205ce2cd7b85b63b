"""What a plot of files shows: quality over latency or size, a Pareto front, limits.

A :class:`ParetoPlot` holds the numbers and decides what is on the axes. It is drawn by
:mod:`tfnas.drawing.pareto_figure` as a figure, and by reports as a picture that answers the mouse:
both show the same points in the same places.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

AXES = ("latency", "bytes")
MEASURED = ("accuracy", "latency", "size")
Row = tuple[float, float, int]  # quality by the metric, latency ratio, bytes
_LEAST_SPAN = 0.005  # of the largest value: smaller differences are not drawn larger


class ParetoLabels(NamedTuple):
    """Words on the axes of a plot, and the direction of the upward one.

    Args:
        metric: The metric of quality.
        part: The part of the data that it is measured on.
        beside: The model that the latencies are ratios to.
        higher_is_better: The metric's direction.
    """

    metric: str = "accuracy"
    part: str = "validation part"
    beside: str = "the reference model"
    higher_is_better: bool = True

    @property
    def upward(self) -> str:
        """The title of the upward axis."""
        better = "" if self.higher_is_better else " (lower is better)"
        return f"{self.metric} of the file, {self.part}{better}"

    def across(self, name: str) -> str:
        """Returns the title of an axis from left to right.

        Args:
            name: "latency" or "bytes".
        """
        if name == "bytes":
            return "size of the file, KiB (lower is better)"
        return f"latency of the file, as a ratio to {self.beside} (lower is better)"


LABELS = ParetoLabels()


@dataclasses.dataclass(frozen=True)
class ParetoPlot:
    """Files to be drawn by their quality, time and size.

    Args:
        rows: (quality by the metric, latency ratio, bytes) of each candidate.
        front: Indices of the candidates on the front.
        chosen: Index of the chosen candidate; None: none.
        title: Title of the plot.
        labels: Words on the axes, and the direction of the metric.
        objectives: Names of the objectives of the front.
        over: "latency" or "bytes", a panel for each, side by side on one axis of quality.
        others: Files that the candidates are compared with, by name.
        errors: Half the width of each quality's interval; empty: no intervals are drawn.
        limits: "quality", "latency" or "bytes" -> the limit, drawn as a line where it is near.
        names: Names of the candidates; empty: their numbers.
        more: Name of a further value, with its unit -> the value of each candidate.

    Raises:
        ValueError: `over` holds something else, or nothing.
    """

    rows: Sequence[Row]
    front: Sequence[int]
    chosen: int | None = None
    title: str = ""
    labels: ParetoLabels = LABELS
    objectives: Sequence[str] = MEASURED
    over: Sequence[str] = ("latency",)
    others: Mapping[str, Row] = dataclasses.field(default_factory=dict)
    errors: Sequence[float] = ()
    limits: Mapping[str, float] = dataclasses.field(default_factory=dict)
    names: Sequence[str] = ()
    more: Mapping[str, Sequence[float | None]] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        if isinstance(self.over, str) or not self.over or set(self.over) - set(AXES):
            raise ValueError(f'over must be a list of "latency" and "bytes", got {self.over!r}')

    def far(self) -> list[int]:
        """Returns the candidates that are drawn at the edge, as their quality is far worse."""
        values, others = [row[0] for row in self.rows], [row[0] for row in self.others.values()]
        return far_worse(values, others, self.chosen, self.labels)

    def quality_limit(self) -> float | None:
        """Returns the limit of the quality where it is near what is drawn."""
        limit = self.limits.get("quality")
        return limit if limit is not None and near(limit, self._qualities()) else None

    def limit(self, name: str) -> float | None:
        """Returns a limit on the axis from left to right where it is near what is drawn.

        Args:
            name: "latency" or "bytes".
        """
        if name not in self.limits:
            return None
        at = across((0.0, self.limits[name], self.limits[name]), name)
        return at if near(at, self.known(name)) else None

    def known(self, name: str) -> list[float]:
        """Returns all values on the axis from left to right: of candidates, then of others.

        Args:
            name: "latency" or "bytes".
        """
        return [across(row, name) for row in (*self.rows, *self.others.values())]

    def heights(self) -> tuple[float, float, float]:
        """Returns the lower and the upper end of the axis of quality, and where far ones lie."""
        shown = self._qualities()
        limit = self.quality_limit()
        shown += [] if limit is None else [limit]
        low, high = min(shown, default=0.0), max(shown, default=1.0)
        span = max(high - low, least_span(shown))
        room = 0.12 * span if self.far() else 0.0
        edge = low - room if self.labels.higher_is_better else high + room
        return min(low, edge) - 0.07 * span, max(high, edge) + 0.07 * span, edge

    def _qualities(self) -> list[float]:
        """Returns the ends of all intervals that are drawn."""
        far, shown = self.far(), [row[0] for row in self.others.values()]
        for i in range(len(self.rows)):
            error = self.errors[i] if self.errors else 0.0
            shown += [] if i in far else [self.rows[i][0] + sign * error for sign in (-1, 1)]
        return shown


def across(row: tuple[float, float, float], name: str) -> float:
    """Returns the value on the axis from left to right: the latency, or the size in KiB."""
    return row[2] / 1024 if name == "bytes" else row[1]


def near(limit: float, values: Sequence[float]) -> bool:
    """Returns whether a limit is near the values, so that its line is drawn."""
    low, high = min(values, default=limit), max(values, default=limit)
    if limit > 0 and spans_much(values):
        low, high, limit = np.log([low, high, limit])
    room = 0.4 * max(high - low, 0.1 * abs(high))
    return bool(low - room <= limit <= high + room)


def spans_much(values: Sequence[float]) -> bool:
    """Returns whether values are drawn on a logarithmic axis."""
    return bool(values) and max(values) > 5 * min(values) > 0


def least_span(values: Sequence[float]) -> float:
    """Returns the difference of values that is drawn as the whole axis at least."""
    return _LEAST_SPAN * (max(map(abs, values), default=0.0) or 1.0)


def far_worse(
    values: Sequence[float], others: Sequence[float], chosen: int | None, labels: ParetoLabels
) -> list[int]:
    """Returns the candidates that are drawn at the edge, far worse than the others.

    On the scale of a file that only guesses, the others would lie on one line.
    """
    if not values:
        return []
    sign = 1 if labels.higher_is_better else -1
    good = [sign * value for value in values]
    middle, top = float(np.median(good)), max([*good, *(sign * value for value in others)])
    least = middle - 4 * max(top - middle, least_span(good))
    return [i for i, value in enumerate(good) if value < least and i != chosen]


def short(value: float) -> str:
    """Returns a quality as text: an accuracy with three decimals, also any small or large one.

    Example:
        >>> short(0.9), short(0.00012345), short(123456.0)
        ('0.900', '0.000123', '1.23e+05')
    """
    return f"{value:.3f}" if not value or 0.01 <= abs(value) < 1000 else f"{value:.3g}"
