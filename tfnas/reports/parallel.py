"""Parallel coordinates: what each trial decided, and what came of it, as a line for each trial."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import ClassVar

from tfnas.reports.scales import around, number

_STEP = 120  # between axes, in the units of the SVG
_LEFT, _TOP, _BOTTOM = 60, 50, 250
Placed = tuple[list[float], list[tuple[float, str]]]  # of each value; of texts on the axis
_MOST_VALUES = 8  # on an axis, each with its text


@dataclasses.dataclass(frozen=True)
class Axis:
    """A decision or a measured value.

    Args:
        words: Its name, in lines.
        x: Its place from the left.
        ticks: Places and texts of values.
    """

    words: Sequence[str]
    x: float
    ticks: Sequence[tuple[float, str]]


@dataclasses.dataclass(frozen=True)
class Line:
    """A trial.

    Args:
        item: Its number, as in the chart of the page.
        kind: A kind of :data:`tfnas.reports.chart.SHAPES`.
        name: Its name.
        path: The line, as the path of an SVG.
    """

    item: int
    kind: str
    name: str
    path: str


@dataclasses.dataclass(frozen=True)
class Parallel:
    """Parallel coordinates; on the page only.

    Args:
        title: What it shows, for who does not see it.
        axes: The axes, from left to right.
        lines: The trials, those that matter most last.
    """

    kind: ClassVar[str] = "parallel"
    frame: ClassVar[tuple[int, int]] = (_TOP, _BOTTOM)
    height: ClassVar[int] = _BOTTOM + 15

    title: str
    axes: Sequence[Axis]
    lines: Sequence[Line]

    @property
    def width(self) -> int:
        """The width, in the units of the SVG."""
        return 2 * _LEFT + _STEP * (len(self.axes) - 1)


def parallel_of(
    title: str,
    decisions: Mapping[str, Sequence[object]],
    measured: Mapping[str, Sequence[float]],
    names: Sequence[str],
    kinds: Sequence[str],
) -> Parallel:
    """Returns parallel coordinates.

    Args:
        title: What they show.
        decisions: Name of a decision -> its value in each trial.
        measured: Name of a measured value -> its value in each trial.
        names: Names of the trials.
        kinds: Their kinds, keys of :data:`tfnas.reports.chart.SHAPES`.
    """
    axes, places = [], []
    placed = {name: _decided(values) for name, values in decisions.items()}
    placed |= {name: _measured(values) for name, values in measured.items()}
    for index, (name, (heights, ticks)) in enumerate(placed.items()):
        x = _LEFT + _STEP * index
        axes.append(Axis(_lines(name), x, ticks))
        places.append([f"{x} {height}" for height in heights])
    paths = ["M" + "L".join(points) for points in zip(*places, strict=True)]
    order = ("dominated", "far", "front", "chosen")
    lines = [Line(i, kinds[i], name, paths[i]) for i, name in enumerate(names)]
    return Parallel(title, axes, sorted(lines, key=lambda line: order.index(line.kind)))


def _measured(values: Sequence[float]) -> Placed:
    """Returns the place of each number on an axis, and the texts of the ends."""
    scale = around(list(values), _BOTTOM, _TOP, room=0.0)
    ends = dict.fromkeys((min(values), max(values)))
    return [scale.place(each) for each in values], [(scale.place(e), number(e)) for e in ends]


def _decided(values: Sequence[object]) -> Placed:
    """Returns the place of each value on an axis, and the texts beside it."""
    numbers = [float(v) for v in values if isinstance(v, int | float) and not isinstance(v, bool)]
    distinct = set(values)
    if len(numbers) == len(values) and len(distinct) > _MOST_VALUES:
        return _measured(numbers)
    ordered = sorted(distinct, key=_order)
    step = (_BOTTOM - _TOP) / max(1, len(ordered) - 1)
    place = {value: round(_BOTTOM - step * i, 1) for i, value in enumerate(ordered)}
    return [place[value] for value in values], [(place[v], _text(v)) for v in ordered]


def _order(value: object) -> tuple[bool, float, str]:
    is_number = isinstance(value, int | float)
    return not is_number, float(value) if isinstance(value, int | float) else 0.0, str(value)


def _text(value: object) -> str:
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    return text if len(text) <= 16 else f"{text[:15]}…"


def _lines(name: str) -> list[str]:
    """Returns a name in two lines of about the same length."""
    spaces = [i for i, letter in enumerate(name) if letter in " _"]
    if len(name) <= 14 or not spaces:
        return ["", name]
    middle = min(spaces, key=lambda i: abs(i - len(name) / 2))
    return [name[:middle], name[middle + 1 :] if name[middle] == " " else name[middle:]]
