"""Pictures. Colours are Okabe and Ito's, which colour-blind people can tell apart."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from tfnas.bench.quantization_record import QuantizationError
    from tfnas.pruning.sensitivity import Sensitivity

BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#999999"
MEASURED = ("accuracy", "latency", "size")


def pareto_picture(
    rows: Sequence[tuple[float, float, int]],
    front: Sequence[int],
    chosen: int | None = None,
    title: str = "",
    beside: str = "the reference model",
    objectives: Sequence[str] = MEASURED,
    part: str = "validation part",
) -> bytes:
    """Returns a picture of accuracy over latency, with the Pareto front, as PNG.

    Args:
        rows: (accuracy, latency ratio, bytes) a candidate.
        front: Indices of the candidates on the front.
        chosen: Index of the candidate that was chosen.
        title: Title of the picture.
        beside: What the latencies are ratios to.
        objectives: What it is the front of.
        part: What the accuracy is of.
    """
    from matplotlib.collections import PathCollection
    from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter

    figure, axes = _figure(7.2, 4.8)
    largest = max((row[2] for row in rows), default=1)

    def draw(indices: Sequence[int], **style: Any) -> None:
        axes.scatter(
            [rows[i][1] for i in indices],
            [rows[i][0] for i in indices],
            s=[30 + 270 * rows[i][2] / largest for i in indices],
            alpha=0.75,
            edgecolors="white",
            **style,
        )

    draw([i for i in range(len(rows)) if i not in front], color=GREY, label="dominated")
    draw(front, color=BLUE, label=f"Pareto front: {', '.join(objectives)}")
    if chosen is not None:
        accuracy, latency, size = rows[chosen]
        axes.scatter(
            [latency], [accuracy], marker="*", s=90, color=ORANGE, zorder=3, label="chosen"
        )
        # Away from the nearer edge.
        side = -1 if _right_half(latency, [row[1] for row in rows]) else 1
        axes.annotate(
            f"{accuracy:.3f}, {latency:.3f}x, {size / 1024:.0f} KiB",
            (latency, accuracy),
            textcoords="offset points",
            xytext=(10 * side, -18),
            ha="right" if side < 0 else "left",
        )
    if rows and max(row[1] for row in rows) > 5 * min(row[1] for row in rows):
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(ScalarFormatter())
        axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel(f"latency of the file, as a ratio to {beside} (less is better)")
    axes.set_ylabel(f"accuracy of the file, {part}")
    axes.set_title(title)
    axes.grid(alpha=0.3)
    legend = axes.legend(loc="best", title="area: size of the file")
    for handle in legend.legend_handles:
        if isinstance(handle, PathCollection):
            handle.set_sizes([60])
    return _png(figure)


def _right_half(value: float, values: Sequence[float]) -> bool:
    return value > (min(values) * max(values)) ** 0.5


def sensitivity_picture(found: Sensitivity, title: str = "") -> bytes:
    """Returns a picture of the quality with one layer alone pruned, as PNG.

    A row a layer, the most sensitive on top; a column a sparsity; the darker, the more is
    lost. The losses themselves are in the cells.

    Args:
        found: The record of :func:`tfnas.sensitivity`.
        title: Title of the picture.
    """
    losses = found.losses()
    order = np.argsort(-losses[:, -1], kind="stable")
    losses, names = losses[order], [found.names[i] for i in order]
    figure, axes = _figure(3.5 + 0.9 * losses.shape[1], 1.6 + 0.26 * len(names))
    shown = np.sqrt(losses)  # small differences stay visible beside large ones
    image = axes.imshow(shown, cmap="cividis_r", aspect="auto", vmin=0)
    middle = float(shown.max()) / 2
    for row, column in np.ndindex(*losses.shape):
        colour = "white" if shown[row, column] > middle else "black"
        text = f"{losses[row, column]:.3g}"
        axes.text(column, row, text, ha="center", va="center", fontsize=7, color=colour)
    axes.set_xticks(range(losses.shape[1]), [f"{s:.0%}" for s in found.sparsities])
    axes.set_yticks(range(len(names)), names, fontsize=7)
    axes.set_xlabel("share of this layer's weights set to zero")
    axes.set_title(title or f"What it costs (unpruned: {found.baseline:.4g})", fontsize=10)
    bar = figure.colorbar(image, ax=axes, label="quality lost")
    ticks = np.linspace(0, float(shown.max()) or 1.0, 5)
    bar.set_ticks(ticks, labels=[f"{t * t:.2g}" for t in ticks])
    return _png(figure)


def quantization_picture(found: QuantizationError, title: str = "") -> bytes:
    """Returns a picture of the signal-to-noise ratio of every layer, as PNG.

    A row an operator, the one that adds most noise on top. The bar is the SQNR of its
    output, the diamond that of its weights. Where nothing is lost there is no number to
    draw, and the row says "exact".

    Args:
        found: The record of :func:`tfnas.quantization_error`.
        title: Title of the picture.
    """
    from matplotlib.patches import Patch

    from tfnas.bench.decibels import as_share

    rows = found.layers
    figure, axes = _figure(8.0, 1.9 + 0.24 * len(rows))
    drawn = [entry.sqnr if np.isfinite(entry.sqnr) else 0.0 for entry in rows]
    saturated = [entry.saturation > 0 for entry in rows]
    axes.barh(range(len(rows)), drawn, color=[ORANGE if s else BLUE for s in saturated])
    weights = [(i, e.weight_sqnr) for i, e in enumerate(rows) if e.weight_noise]
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
    for place, entry in enumerate(rows):
        text = f" {as_share(entry.saturation)} saturated" if entry.saturation else ""
        text = text if np.isfinite(entry.sqnr) else " exact"
        colour = ORANGE if entry.saturation else GREY
        axes.text(max(drawn[place], 0), place, text, va="center", fontsize=7, color=colour)
    axes.set_yticks(range(len(rows)), [f"{e.layer} ({e.operator})" for e in rows], fontsize=7)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlabel("signal to quantisation noise, dB (more is better)")
    axes.set_title(title or f"{found.model}, {found.mode}: most noise added on top", fontsize=10)
    axes.grid(axis="x", alpha=0.3)
    axes.axvline(0, color=GREY, linewidth=0.8)
    bars = [Patch(color=BLUE, label="output"), Patch(color=ORANGE, label="output, saturated")]
    figure.legend(handles=[*bars, diamonds], loc="outside lower center", ncols=3, fontsize=8)
    return _png(figure)


def _figure(width: float, height: float) -> tuple[Any, Any]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.add_subplot()


def _png(figure: Any) -> bytes:
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=120)
    return out.getvalue()
