"""The trainings of a job: how the loss fell, as small drawings side by side and as a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tfnas.drawing.pareto_plot import spans_much
from tfnas.reports.content import Cell, Section, Table, paragraphs
from tfnas.reports.scales import AxisScale, around
from tfnas.reports.training_tiles import Tile, TrainingTiles

_LEFT, _RIGHT, _TOP, _BOTTOM = TrainingTiles.frame
_LOSS = "loss"
_SHOWN = (
    "The loss of each epoch, on the training data; all drawings share one axis. A loss that still "
    "falls at the end asks for more `epochs`."
)


def curve_sections(curves: Mapping[str, Mapping[str, Sequence[float | None]]]) -> list[Section]:
    """Returns the section of the trainings of a job; nothing where nothing was trained.

    Args:
        curves: Training -> name of a value -> the value of each epoch; see
            :class:`tfnas.compression.training_curves.TrainingCurves`.
    """
    known = {name: each for name, each in curves.items() if _numbers(each.get(_LOSS, []))}
    if not known:
        return []
    rows: list[list[Cell]] = [
        [name, len(each[_LOSS]), *_ends(each[_LOSS]), _others(each)] for name, each in known.items()
    ]
    headers = ["training", "epochs", "first loss", "last loss", "at the end"]
    table = Table(headers, rows, prose=[4])
    return [Section("How it was trained", [*paragraphs(_SHOWN), _tiles(known), table])]


def _tiles(curves: Mapping[str, Mapping[str, Sequence[float | None]]]) -> TrainingTiles:
    losses = {name: each[_LOSS] for name, each in curves.items()}
    known = [value for each in losses.values() for value in _numbers(each)]
    upward = around(known, _BOTTOM, _TOP, logarithmic=spans_much(known))
    longest = max(map(len, losses.values()))
    across = AxisScale(0.5, longest + 0.5, _LEFT, _RIGHT)
    tiles = []
    for name, values in losses.items():
        dots = [
            (across.place(epoch), upward.place(value))
            for epoch, value in enumerate(values, 1)
            if value is not None
        ]
        path = "M" + "L".join(f"{x} {y}" for x, y in dots)
        tiles.append(Tile(name, path, dots, len(values)))
    return TrainingTiles(_apart(upward.ticks(3)), tiles)


def _apart(ticks: Sequence[tuple[float, str]]) -> list[tuple[float, str]]:
    """Returns ticks whose texts do not touch."""
    kept: list[tuple[float, str]] = []
    for place, text in ticks:
        if not kept or abs(place - kept[-1][0]) >= 14:
            kept.append((place, text))
    return kept


def _numbers(values: Sequence[float | None]) -> list[float]:
    return [value for value in values if value is not None]


def _ends(values: Sequence[float | None]) -> list[str]:
    known = _numbers(values)
    return [f"{known[0]:.4g}", f"{known[-1]:.4g}"]


def _others(curves: Mapping[str, Sequence[float | None]]) -> str:
    last = {name: each[-1] for name, each in curves.items() if name != _LOSS and each}
    return ", ".join(f"{name} {value:.4g}" for name, value in last.items() if value is not None)
