"""A :class:`~tfnas.drawing.pareto_plot.ParetoPlot` as a figure of matplotlib."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tfnas.drawing.figures import BLUE, GRAY, ORANGE, PURPLE, empty_figure
from tfnas.drawing.pareto_plot import ParetoPlot, across, short, spans_much

_MARKERS = ("D", "s", "^", "P")
_NAMED = 3  # most files far off that are labeled with their quality
_LIMIT = {"color": ORANGE, "linestyle": "--", "linewidth": 1, "zorder": 0}


def pareto_figure(plot: ParetoPlot) -> Any:
    """Returns a figure of quality over latency or size, with the Pareto front.

    Args:
        plot: What is drawn.

    Returns:
        A `matplotlib.figure.Figure`, which a notebook shows.

    Raises:
        ImportError: matplotlib is not installed.
    """
    over = plot.over
    figure = empty_figure(7.2 if len(over) == 1 else 5.2 * len(over), 5.3)
    panels = figure.subplots(1, len(over), sharey=True, squeeze=False)[0]
    low, high, _ = plot.heights()
    for axes, name in zip(panels, over, strict=True):
        _draw_candidates(axes, plot, name)
        _draw_far(axes, plot, name)
        _mark_chosen(axes, plot, name)
        _draw_others(axes, plot, name)
        _draw_limits(axes, plot, name)
        _scale(axes, plot.known(name))
        axes.set_xlabel(plot.labels.across(name))
        axes.grid(alpha=0.3)
        axes.set_ylim(low, high)
    panels[0].set_ylabel(plot.labels.upward)
    figure.suptitle(plot.title, fontsize=11)
    if plot.rows or plot.others:
        _legend(figure, panels[0], None if "bytes" in over else "area: size of the file")
    return figure


def _draw_candidates(axes: Any, plot: ParetoPlot, name: str) -> None:
    rows, far, errors = plot.rows, plot.far(), plot.errors
    largest = max((row[2] for row in rows), default=1)
    others = [i for i in range(len(rows)) if i not in plot.front]
    label = f"Pareto front: {', '.join(plot.objectives)}"
    for indices, color, title in ((others, GRAY, "dominated"), (plot.front, BLUE, label)):
        drawn = [i for i in indices if i not in far]
        x, y = [across(rows[i], name) for i in drawn], [rows[i][0] for i in drawn]
        if errors and drawn:
            spread = [errors[i] for i in drawn]
            axes.errorbar(x, y, spread, fmt="none", ecolor=color, elinewidth=1, alpha=0.6)
        area = [30 + 270 * rows[i][2] / largest for i in drawn]
        style = {"color": color, "alpha": 0.75, "edgecolors": "white"}
        axes.scatter(x, y, s=area, label=title if drawn else None, **style)


def _draw_far(axes: Any, plot: ParetoPlot, name: str) -> None:
    """Marks the files that are far worse at the edge where these lie: below, or above."""
    far, (*_, edge) = plot.far(), plot.heights()
    colors = [BLUE if i in plot.front else GRAY for i in far]
    there = [across(plot.rows[i], name) for i in far]
    marker, word, side = ("v", "below", 1) if plot.labels.higher_is_better else ("^", "above", -1)
    label = f"far {word}" if far else None
    axes.scatter(there, [edge] * len(far), marker=marker, c=colors, label=label)
    for at, i in zip(there, far if len(far) <= _NAMED else [], strict=False):
        offset = {"xytext": (0, 7 * side), "textcoords": "offset points", "fontsize": 8}
        place = {"ha": "center", "va": "bottom" if side > 0 else "top"}
        axes.annotate(short(plot.rows[i][0]), (at, edge), **offset, **place)


def _mark_chosen(axes: Any, plot: ParetoPlot, name: str) -> None:
    if plot.chosen is None:
        return
    quality, latency, size = row = plot.rows[plot.chosen]
    at = across(row, name)
    axes.scatter([at], [quality], marker="*", s=90, color=ORANGE, zorder=3, label="chosen")
    # Away from the nearer edge.
    known = plot.known(name)
    low, high = min(known), max(known)
    middle = (low * high) ** 0.5 if spans_much(known) else (low + high) / 2
    side = -1 if at > middle else 1
    axes.annotate(
        f"{short(quality)}, {latency:.3f}x, {size / 1024:.0f} KiB",
        (at, quality),
        textcoords="offset points",
        xytext=(10 * side, -18),
        ha="right" if side < 0 else "left",
    )


def _draw_others(axes: Any, plot: ParetoPlot, name: str) -> None:
    for number, (label, row) in enumerate(plot.others.items()):
        style = {"marker": _MARKERS[number % len(_MARKERS)], "color": PURPLE, "s": 70}
        axes.scatter([across(row, name)], [row[0]], label=label, edgecolors="white", **style)


def _draw_limits(axes: Any, plot: ParetoPlot, name: str) -> None:
    beside, above = plot.limit(name), plot.quality_limit()
    lines = [] if beside is None else [axes.axvline(beside, **_LIMIT)]
    if above is not None:
        lines.append(axes.axhline(above, **_LIMIT))
    for line in lines[:1]:
        line.set_label("limit of the budget")


def _legend(figure: Any, axes: Any, title: str | None) -> None:
    """Draws a legend below the panels, where it hides no point."""
    from matplotlib.collections import PathCollection

    legend = figure.legend(
        *axes.get_legend_handles_labels(),
        loc="outside lower center",
        ncols=3,
        fontsize=8,
        title=title,
        title_fontsize=8,
    )
    for handle in legend.legend_handles:
        if isinstance(handle, PathCollection):
            handle.set_sizes([50])


def _scale(axes: Any, values: Sequence[float]) -> None:
    """Makes the x axis logarithmic where the values span much."""
    from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter

    if spans_much(values):
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(ScalarFormatter())
        axes.xaxis.set_minor_formatter(NullFormatter())
