"""How much is tried."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Effort:
    """How much is tried.

    Args:
        formats: Number formats without training.
        epochs: Epochs of a step that trains; 0: nothing is trained.
        steps: Optimizer steps of one at least: few examples are seen more often.
        rounds: Shares of channels that are tried.
        ladder: Shares where the budget asks for none.
        low_rank: Whether low rank is tried where channels can't go.
    """

    formats: tuple[str, ...]
    epochs: int
    steps: int = 0
    rounds: int = 0
    ladder: tuple[float, ...] = ()
    low_rank: bool = False


_CHEAP = ("float16", "dynamic", "int8", "int8x4")
EFFORTS = {
    "quick": Effort(_CHEAP, 0),
    "normal": Effort(_CHEAP, 6, 1500, 2, (0.5,)),
    "thorough": Effort((*_CHEAP, "int16x8"), 15, 5000, 4, (0.7, 0.5, 0.35), low_rank=True),
}
