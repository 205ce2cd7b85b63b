"""Curves of trainings as small drawings side by side; :mod:`tfnas.reports.curves` places them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import ClassVar


@dataclasses.dataclass(frozen=True)
class Tile:
    """The drawing of a training.

    Args:
        name: Name of the training.
        path: The curve, as the path of an SVG.
        dots: Places of the epochs: (x, y).
        epochs: Number of epochs.
    """

    name: str
    path: str
    dots: Sequence[tuple[float, float]]
    epochs: int


@dataclasses.dataclass(frozen=True)
class TrainingTiles:
    """Curves of trainings side by side, on one axis of the loss; on the page only.

    Args:
        ticks: Places and texts of numbers of the loss.
        tiles: The trainings.
    """

    kind: ClassVar[str] = "curves"
    size: ClassVar[tuple[int, int]] = (220, 130)
    frame: ClassVar[tuple[int, int, int, int]] = (40, 212, 10, 108)

    ticks: Sequence[tuple[float, str]]
    tiles: Sequence[Tile]
