"""Pictures of the records of techniques and measurements."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from tfnas.drawing.figures import BLUE, GRAY, GREEN, ORANGE, one_panel, png

if TYPE_CHECKING:
    from tfnas.measure.quantization_debugger.error_report import QuantizationError
    from tfnas.pruning.sensitivity import Sensitivity


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
    figure, axes = one_panel(3.5 + 0.9 * losses.shape[1], 1.6 + 0.26 * len(names))
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
    return png(figure)


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
    figure, axes = one_panel(8.0, 1.9 + 0.24 * len(rows))
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
    return png(figure)


# Kind of a picture in a technique's report -> function of its record.
PICTURES: dict[str, Callable[[Any], bytes]] = {
    "sensitivity": sensitivity_picture,
    "quantization error": quantization_picture,
}
