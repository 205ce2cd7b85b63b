"""Pictures. Colours are Okabe and Ito's, which colour-blind people can tell apart."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#999999"


def pareto_picture(
    rows: Sequence[tuple[float, float, int]],
    front: Sequence[int],
    chosen: int | None = None,
    title: str = "",
) -> bytes:
    """Returns a picture of accuracy over latency, with the Pareto front, as PNG.

    Args:
        rows: (accuracy, latency ratio, bytes) a candidate.
        front: Indices of the candidates on the front.
        chosen: Index of the candidate that was chosen.
        title: Title of the picture.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.collections import PathCollection
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 4.8), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
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
    draw(front, color=BLUE, label="Pareto front: accuracy, latency, size")
    if chosen is not None:
        accuracy, latency, size = rows[chosen]
        axes.scatter(
            [latency], [accuracy], marker="*", s=90, color=ORANGE, zorder=3, label="chosen"
        )
        axes.annotate(
            f"{accuracy:.3f}, {latency:.3f}x, {size / 1024:.0f} KiB",
            (latency, accuracy),
            textcoords="offset points",
            xytext=(10, -14),
        )
    if rows and max(row[1] for row in rows) > 5 * min(row[1] for row in rows):
        axes.set_xscale("log")
    axes.set_xlabel("latency of the file, as a ratio to the reference model (less is better)")
    axes.set_ylabel("accuracy of the file, validation part")
    axes.set_title(title)
    axes.grid(alpha=0.3)
    legend = axes.legend(loc="best", title="area: size of the file")
    for handle in legend.legend_handles:
        if isinstance(handle, PathCollection):
            handle.set_sizes([60])
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=120)
    return out.getvalue()
