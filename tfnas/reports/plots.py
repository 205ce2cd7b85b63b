"""Pictures of results, in the colors of Okabe and Ito, which color-blind people can tell apart."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from tfnas.measure.quantization_debugger.error_report import QuantizationError
    from tfnas.pruning.sensitivity import Sensitivity

BLUE, ORANGE, GREEN, GRAY = "#0072B2", "#D55E00", "#009E73", "#999999"
PURPLE = "#CC79A7"
MEASURED = ("accuracy", "latency", "size")


class ParetoLabels(NamedTuple):
    """Words on the axes of :func:`pareto_picture`, and the direction of the upward one.

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


LABELS = ParetoLabels()
Row = tuple[float, float, int]  # quality by the metric, latency ratio, bytes
_LABELS = {
    "latency": "latency of the file, as a ratio to {} (lower is better)",
    "bytes": "size of the file, KiB (lower is better)",
}
_MARKERS = ("D", "s", "^", "P")
_NAMED = 3  # most files far off that are labeled with their quality
_LEAST_SPAN = 0.005  # of the largest value: smaller differences are not drawn larger
_LIMIT = {"color": ORANGE, "linestyle": "--", "linewidth": 1, "zorder": 0}


def pareto_picture(
    rows: Sequence[Row],
    front: Sequence[int],
    chosen: int | None = None,
    title: str = "",
    labels: ParetoLabels = LABELS,
    objectives: Sequence[str] = MEASURED,
    *,
    over: Sequence[str] = ("latency",),
    others: Mapping[str, Row] | None = None,
    errors: Sequence[float] = (),
    limits: Mapping[str, float] | None = None,
) -> bytes:
    """Returns a picture of quality over latency or size, with the Pareto front, as PNG.

    Args:
        rows: (quality by the metric, latency ratio, bytes) of each candidate.
        front: Indices of the candidates on the front.
        chosen: Index of the chosen candidate.
        title: Title of the picture.
        labels: Words on the axes, and the direction of the metric.
        objectives: Names of the objectives of the front.
        over: "latency" or "bytes", a panel for each, side by side.
        others: Files that the candidates are compared with, by name.
        errors: Half the width of each quality's interval; empty: no intervals are drawn.
        limits: "quality", "latency" or "bytes" -> the limit, drawn as a line.
    """
    others, limits = others or {}, dict(limits or {})
    figure = _empty_figure(7.2 if len(over) == 1 else 5.2 * len(over), 5.3)
    panels = figure.subplots(1, len(over), sharey=True, squeeze=False)[0]
    far = _far_worse([row[0] for row in rows], [row[0] for row in others.values()], chosen, labels)
    shown = [row[0] for row in others.values()]
    for i in sorted(set(range(len(rows))) - set(far)):
        shown += [rows[i][0] + sign * (errors[i] if errors else 0.0) for sign in (-1, 1)]
    if "quality" in limits and _near(limits["quality"], shown):
        shown.append(limits["quality"])
    else:
        limits.pop("quality", None)
    low, high = min(shown, default=0.0), max(shown, default=1.0)
    span = max(high - low, _least_span(shown))
    room = 0.12 * span if far else 0.0
    edge = low - room if labels.higher_is_better else high + room
    for axes, name in zip(panels, over, strict=True):
        known = [_x(row, name) for row in (*rows, *others.values())]
        _draw_candidates(axes, rows, front, name, errors, objectives, far)
        _draw_far(axes, rows, front, name, far, edge, labels)
        if chosen is not None:
            _mark_chosen(axes, rows[chosen], name, known)
        _draw_others(axes, others, name)
        _draw_limits(axes, limits, name, known)
        _scale(axes, known)
        axes.set_xlabel(_LABELS[name].format(labels.beside))
        axes.grid(alpha=0.3)
        axes.set_ylim(min(low, edge) - 0.07 * span, max(high, edge) + 0.07 * span)
    panels[0].set_ylabel(labels.upward)
    figure.suptitle(title, fontsize=11)
    if rows or others:
        _legend(figure, panels[0], None if "bytes" in over else "area: size of the file")
    return _png(figure)


def _draw_others(axes: Any, others: Mapping[str, Row], name: str) -> None:
    for number, (label, row) in enumerate(others.items()):
        style = {"marker": _MARKERS[number % len(_MARKERS)], "color": PURPLE, "s": 70}
        axes.scatter([_x(row, name)], [row[0]], label=label, edgecolors="white", **style)


def _draw_limits(axes: Any, limits: Mapping[str, float], name: str, known: Sequence[float]) -> None:
    limit = _x((0.0, limits[name], limits[name]), name) if name in limits else None
    lines = [axes.axvline(limit, **_LIMIT)] if limit and _near(limit, known) else []
    if "quality" in limits:
        lines.append(axes.axhline(limits["quality"], **_LIMIT))
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


def _x(row: tuple[float, float, float], name: str) -> float:
    """Returns the value on the x axis: the latency, or the size in KiB."""
    return row[2] / 1024 if name == "bytes" else row[1]


def _near(limit: float, values: Sequence[float]) -> bool:
    """Returns whether a limit is near the values, so that its line is drawn."""
    low, high = min(values, default=limit), max(values, default=limit)
    if limit > 0 and _spans_much(values):
        low, high, limit = np.log([low, high, limit])
    room = 0.4 * max(high - low, 0.1 * abs(high))
    return bool(low - room <= limit <= high + room)


def _least_span(values: Sequence[float]) -> float:
    """Returns the difference of values that is drawn as the whole axis at least."""
    return _LEAST_SPAN * (max(map(abs, values), default=0.0) or 1.0)


def _far_worse(
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
    least = middle - 4 * max(top - middle, _least_span(good))
    return [i for i, value in enumerate(good) if value < least and i != chosen]


def _draw_candidates(
    axes: Any,
    rows: Sequence[Row],
    front: Sequence[int],
    name: str,
    errors: Sequence[float],
    objectives: Sequence[str],
    far: Sequence[int],
) -> None:
    largest = max((row[2] for row in rows), default=1)
    others = [i for i in range(len(rows)) if i not in front]
    front_label = f"Pareto front: {', '.join(objectives)}"
    for indices, color, label in ((others, GRAY, "dominated"), (front, BLUE, front_label)):
        drawn = [i for i in indices if i not in far]
        x, y = [_x(rows[i], name) for i in drawn], [rows[i][0] for i in drawn]
        if errors and drawn:
            spread = [errors[i] for i in drawn]
            axes.errorbar(x, y, spread, fmt="none", ecolor=color, elinewidth=1, alpha=0.6)
        area = [30 + 270 * rows[i][2] / largest for i in drawn]
        style = {"color": color, "alpha": 0.75, "edgecolors": "white"}
        axes.scatter(x, y, s=area, label=label if drawn else None, **style)


def _draw_far(
    axes: Any,
    rows: Sequence[Row],
    front: Sequence[int],
    name: str,
    far: Sequence[int],
    edge: float,
    labels: ParetoLabels,
) -> None:
    """Marks the files that are far worse at the edge where these lie: below, or above."""
    colors = [BLUE if i in front else GRAY for i in far]
    there = [_x(rows[i], name) for i in far]
    marker, word, side = ("v", "below", 1) if labels.higher_is_better else ("^", "above", -1)
    label = f"far {word}" if far else None
    axes.scatter(there, [edge] * len(far), marker=marker, c=colors, label=label)
    for at, i in zip(there, far if len(far) <= _NAMED else [], strict=False):
        offset = {"xytext": (0, 7 * side), "textcoords": "offset points", "fontsize": 8}
        place = {"ha": "center", "va": "bottom" if side > 0 else "top"}
        axes.annotate(_short(rows[i][0]), (at, edge), **offset, **place)


def _short(value: float) -> str:
    """Returns a quality as text: an accuracy with three decimals, also any small or large one.

    Example:
        >>> _short(0.9), _short(0.00012345), _short(123456.0)
        ('0.900', '0.000123', '1.23e+05')
    """
    return f"{value:.3f}" if not value or 0.01 <= abs(value) < 1000 else f"{value:.3g}"


def _mark_chosen(axes: Any, row: Row, name: str, known: Sequence[float]) -> None:
    quality, latency, size = row
    at = _x(row, name)
    axes.scatter([at], [quality], marker="*", s=90, color=ORANGE, zorder=3, label="chosen")
    # Away from the nearer edge.
    low, high = min(known), max(known)
    middle = (low * high) ** 0.5 if _spans_much(known) else (low + high) / 2
    side = -1 if at > middle else 1
    axes.annotate(
        f"{_short(quality)}, {latency:.3f}x, {size / 1024:.0f} KiB",
        (at, quality),
        textcoords="offset points",
        xytext=(10 * side, -18),
        ha="right" if side < 0 else "left",
    )


def _scale(axes: Any, values: Sequence[float]) -> None:
    """Makes the x axis logarithmic where the values span much."""
    from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter

    if _spans_much(values):
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(ScalarFormatter())
        axes.xaxis.set_minor_formatter(NullFormatter())


def _spans_much(values: Sequence[float]) -> bool:
    return bool(values) and max(values) > 5 * min(values) > 0


def sensitivity_picture(result: Sensitivity, title: str = "") -> bytes:
    """Returns a picture of the quality lost with one layer alone pruned, as PNG.

    A row for each layer, the most sensitive on top; a column for each sparsity. The darker, the
    more is lost; the losses are in the cells.

    Args:
        result: The record of :func:`tfnas.sensitivity`.
        title: Title of the picture.
    """
    losses = result.losses()
    order = np.argsort(-losses[:, -1], kind="stable")
    losses, names = losses[order], [result.names[i] for i in order]
    figure, axes = _figure(3.5 + 0.9 * losses.shape[1], 1.6 + 0.26 * len(names))
    shown = np.sqrt(losses)  # small differences stay visible beside large ones
    image = axes.imshow(shown, cmap="cividis_r", aspect="auto", vmin=0)
    middle = float(shown.max()) / 2
    for row, column in np.ndindex(*losses.shape):
        color = "white" if shown[row, column] > middle else "black"
        text = f"{losses[row, column]:.3g}"
        axes.text(column, row, text, ha="center", va="center", fontsize=7, color=color)
    axes.set_xticks(range(losses.shape[1]), [f"{s:.0%}" for s in result.sparsities])
    axes.set_yticks(range(len(names)), names, fontsize=7)
    axes.set_xlabel("fraction of this layer's weights set to zero")
    axes.set_title(title or f"Quality lost (unpruned: {result.baseline:.4g})", fontsize=10)
    bar = figure.colorbar(image, ax=axes, label="quality lost")
    ticks = np.linspace(0, float(shown.max()) or 1.0, 5)
    bar.set_ticks(ticks, labels=[f"{t * t:.2g}" for t in ticks])
    return _png(figure)


def quantization_picture(errors: QuantizationError, title: str = "") -> bytes:
    """Returns a picture of the signal-to-noise ratio of every layer, as PNG.

    A row for each operator, the one that adds most noise on top. The bar is the SQNR of its
    output, the diamond that of its weights. Rows without any noise are labeled "exact".

    Args:
        errors: The record of :func:`tfnas.quantization_error`.
        title: Title of the picture.
    """
    from matplotlib.patches import Patch

    from tfnas.measure.quantization_debugger.sqnr import as_percent

    rows = errors.layers
    figure, axes = _figure(8.0, 1.9 + 0.24 * len(rows))
    drawn = [row.sqnr if np.isfinite(row.sqnr) else 0.0 for row in rows]
    saturated = [row.saturation > 0 for row in rows]
    axes.barh(range(len(rows)), drawn, color=[ORANGE if s else BLUE for s in saturated])
    weights = [(i, row.weight_sqnr) for i, row in enumerate(rows) if row.weight_noise]
    diamonds = axes.scatter(
        [sqnr for _, sqnr in weights],
        [place for place, _ in weights],
        marker="D",
        s=22,
        color=GREEN,
        edgecolors="white",
        label="weights",
        zorder=3,
    )
    for place, row in enumerate(rows):
        text = f" {as_percent(row.saturation)} saturated" if row.saturation else ""
        text = text if np.isfinite(row.sqnr) else " exact"
        color = ORANGE if row.saturation else GRAY
        axes.text(max(drawn[place], 0), place, text, va="center", fontsize=7, color=color)
    axes.set_yticks(range(len(rows)), [f"{row.layer} ({row.operator})" for row in rows], fontsize=7)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlabel("signal to quantization noise, dB (higher is better)")
    axes.set_title(title or f"{errors.model}, {errors.mode}: most noise added on top", fontsize=10)
    axes.grid(axis="x", alpha=0.3)
    axes.axvline(0, color=GRAY, linewidth=0.8)
    bars = [Patch(color=BLUE, label="output"), Patch(color=ORANGE, label="output, saturated")]
    figure.legend(handles=[*bars, diamonds], loc="outside lower center", ncols=3, fontsize=8)
    return _png(figure)


def _empty_figure(width: float, height: float) -> Any:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _figure(width: float, height: float) -> tuple[Any, Any]:
    figure = _empty_figure(width, height)
    return figure, figure.add_subplot()


def _png(figure: Any) -> bytes:
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=120)
    return out.getvalue()


# Kind of a picture in a technique's report -> function of its record.
PICTURES: dict[str, Callable[[Any], bytes]] = {
    "sensitivity": sensitivity_picture,
    "quantization error": quantization_picture,
}
