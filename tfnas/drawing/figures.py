"""Figures of matplotlib that need no screen, in colors that color-blind people can tell apart."""

from __future__ import annotations

import functools
import io
from typing import Any

# The colors of Okabe and Ito.
BLUE, ORANGE, GREEN, GRAY = "#0072B2", "#D55E00", "#009E73", "#999999"
PURPLE = "#CC79A7"


def empty_figure(width: float, height: float) -> Any:
    """Returns a figure that a notebook shows by itself, and that no window holds.

    Args:
        width: Width in inches.
        height: Height in inches.

    Returns:
        A `matplotlib.figure.Figure`.

    Raises:
        ImportError: matplotlib is not installed.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    figure = _figure_class()(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def one_panel(width: float, height: float) -> tuple[Any, Any]:
    """Returns a figure with its only axes; see :func:`empty_figure`."""
    figure = empty_figure(width, height)
    return figure, figure.add_subplot()


def png(figure: Any) -> bytes:
    """Returns a figure as a PNG file."""
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=120)
    return out.getvalue()


@functools.cache
def _figure_class() -> Any:
    from matplotlib.figure import Figure

    class NotebookFigure(Figure):
        """A figure that a notebook shows without pyplot, which would show it twice."""

        def _repr_png_(self) -> bytes:
            return png(self)

    return NotebookFigure
