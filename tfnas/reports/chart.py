"""A plot of files for a page: the same points as a figure's, which answer mouse and keyboard.

The places of all that is drawn are computed here; `templates/chart.html.j2` writes them as SVG, and
`templates/report.js` lets a reader look at a file, compare two, and hide those beyond a limit.
Without the script the plot stands still. Each kind of file has a shape of its own beside its color.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import ClassVar

from tfnas.drawing.pareto_plot import ParetoPlot, across, short, spans_much
from tfnas.reports.scales import AxisScale, around, number

WIDTH, HEIGHT = 400, 280  # of a panel, in the units of its SVG
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 388, 10, 254
# Kind of a file -> its shape around (0, 0), as the path of an SVG.
SHAPES = {
    "front": "M-6 0a6 6 0 1 0 12 0a6 6 0 1 0 -12 0Z",
    "dominated": "M-5 -5H5V5H-5Z",
    "chosen": "M0 -10L2.6 -3.4L9.5 -3.1L4.1 1.2L5.9 8.1L0 4.2L-5.9 8.1L-4.1 1.2L-9.5 -3.1"
    "L-2.6 -3.4Z",
    "other": "M0 -8L8 0L0 8L-8 0Z",
    "far": "M-7 -5H7L0 7Z",
}


@dataclasses.dataclass(frozen=True)
class Item:
    """A file of the plot.

    Args:
        name: Its name.
        kind: A key of `SHAPES`.
        values: A number for each field; None: unknown.
        texts: The same as texts.
    """

    name: str
    kind: str
    values: Sequence[float | None]
    texts: Sequence[str]

    @property
    def plain_values(self) -> str:
        """The numbers in one text, for the script."""
        return " ".join("nan" if value is None else f"{value:.6g}" for value in self.values)


@dataclasses.dataclass(frozen=True)
class Field:
    """A measured value of files.

    Args:
        name: Its name, with its unit.
        higher_is_better: Its direction.
    """

    name: str
    higher_is_better: bool = False

    @property
    def limit(self) -> str:
        """The title of the limit that a reader may set."""
        return f"{self.name} at {'least' if self.higher_is_better else 'most'}"


@dataclasses.dataclass(frozen=True)
class Mark:
    """A file's place in a panel.

    Args:
        item: Index of the file.
        x: Its place from the left.
        y: Its place from the top.
        error: Length of the half of its interval; 0: none is drawn.
    """

    item: int
    x: float
    y: float
    error: float = 0.0


@dataclasses.dataclass(frozen=True)
class Panel:
    """One of the plots side by side.

    Args:
        title: Title of the axis from left to right.
        x_ticks: Places and texts of its numbers.
        marks: The files, those that matter most last.
        limit: Place of the limit; None: none is near.
    """

    title: str
    x_ticks: Sequence[tuple[float, str]]
    marks: Sequence[Mark]
    limit: float | None


@dataclasses.dataclass(frozen=True)
class Chart:
    """A plot of files; on the page only, where Markdown has a picture and the table.

    Args:
        title: What it shows, for who does not see it.
        upward: Title of the upward axis, which all panels share.
        y_ticks: Places and texts of its numbers.
        y_limit: Place of the limit of quality; None: none is near.
        panels: The panels.
        items: The files.
        fields: What is known of each file.
        key: (kind, text) of the shapes that are drawn.
    """

    kind: ClassVar[str] = "chart"
    shapes: ClassVar[dict[str, str]] = SHAPES
    size: ClassVar[tuple[int, int]] = (WIDTH, HEIGHT)
    frame: ClassVar[tuple[int, int, int, int]] = (_LEFT, _RIGHT, _TOP, _BOTTOM)

    title: str
    upward: str
    y_ticks: Sequence[tuple[float, str]]
    y_limit: float | None
    panels: Sequence[Panel]
    items: Sequence[Item]
    fields: Sequence[Field]
    key: Sequence[tuple[str, str]]


def chart_of(plot: ParetoPlot) -> Chart:
    """Returns a plot with the places of all that is drawn.

    Args:
        plot: What is drawn.
    """
    low, high, edge = plot.heights()
    upward = AxisScale(low, high, _BOTTOM, _TOP)
    items = _items(plot)
    limit = plot.quality_limit()
    lines = limit is not None or any(plot.limit(name) is not None for name in plot.over)
    return Chart(
        plot.title,
        plot.labels.upward,
        upward.ticks(),
        None if limit is None else upward.place(limit),
        [_panel(plot, name, upward, edge, items) for name in plot.over],
        items,
        _fields(plot),
        _key(plot, items, lines),
    )


def _fields(plot: ParetoPlot) -> list[Field]:
    first = Field(plot.labels.metric, plot.labels.higher_is_better)
    return [first, Field("latency, ratio"), Field("size, KiB"), *map(Field, plot.more)]


def _items(plot: ParetoPlot) -> list[Item]:
    far, found = plot.far(), []
    for i, row in enumerate(plot.rows):
        kind = "front" if i in plot.front else "dominated"
        kind = "chosen" if i == plot.chosen else "far" if i in far else kind
        error = f" ± {plot.errors[i]:.3g}" if plot.errors else ""
        values = [row[0], row[1], row[2] / 1024, *(each[i] for each in plot.more.values())]
        texts = [f"{short(row[0])}{error}", f"{row[1]:.3f}x", *map(number, values[2:])]
        found.append(Item(plot.names[i] if plot.names else str(i), kind, values, texts))
    for name, row in plot.others.items():
        values = [row[0], row[1], row[2] / 1024, *[None] * len(plot.more)]
        texts = [short(row[0]), f"{row[1]:.3f}x", *map(number, values[2:])]
        found.append(Item(name, "other", values, texts))
    return found


def _panel(plot: ParetoPlot, name: str, upward: AxisScale, edge: float, items: list[Item]) -> Panel:
    known, limit = plot.known(name), plot.limit(name)
    shown = known if limit is None else [*known, limit]
    scale = around(shown, _LEFT, _RIGHT, logarithmic=spans_much(known))
    marks = []
    for i, row in enumerate([*plot.rows, *plot.others.values()]):
        is_far = items[i].kind == "far"
        y = upward.place(edge if is_far else row[0])
        error = plot.errors[i] if plot.errors and i < len(plot.rows) and not is_far else 0.0
        half = abs(upward.place(row[0] + error) - y) if error and math.isfinite(error) else 0.0
        marks.append(Mark(i, scale.place(across(row, name)), y, round(half, 1)))
    order = ("dominated", "far", "front", "other", "chosen")
    marks.sort(key=lambda mark: order.index(items[mark.item].kind))
    place = None if limit is None else scale.place(limit)
    return Panel(plot.labels.across(name), scale.ticks(), marks, place)


def _key(plot: ParetoPlot, items: list[Item], lines: bool) -> list[tuple[str, str]]:
    word = "below" if plot.labels.higher_is_better else "above"
    texts = {
        "chosen": "chosen",
        "front": f"Pareto front: {', '.join(plot.objectives)}",
        "dominated": "dominated: another file is as good or better in everything",
        "far": f"far {word}, drawn at the edge",
        "other": ", ".join(plot.others),
    }
    kinds = {item.kind for item in items}
    found = [(kind, text) for kind, text in texts.items() if kind in kinds]
    return [*found, *([("limit", "limit of the budget")] if lines else [])]
