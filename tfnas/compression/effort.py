"""How much a compression job tries."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Effort:
    """How much a compression job tries.

    Args:
        formats: Number formats without training.
        epochs: Epochs of a step that trains; 0: nothing is trained.
        steps: Fewest optimizer steps of a step that trains: small data sets get more epochs.
        rounds: Number of fractions of channels that are tried.
        ladder: Fractions to try where no limit of the budget demands one.
        low_rank: Whether low rank is tried where channels can't be pruned.
        longer: Multiple of `epochs` that is trained once more where slightly too much is lost.
        price: Whether half of the cut is tried too where a limit's cut meets the budget.
        corrections: Most amounts that follow a file that was slightly too large, each corrected by
            the sizes of the files before.
    """

    formats: tuple[str, ...]
    epochs: int
    steps: int = 0
    rounds: int = 0
    ladder: tuple[float, ...] = ()
    low_rank: bool = False
    longer: float = 2.5
    price: bool = False
    corrections: int = 3


_CHEAP = ("float16", "dynamic", "int8", "int8x4")
EFFORTS = {
    "quick": Effort(_CHEAP, 0),
    "normal": Effort(_CHEAP, 6, 1500, 2, (0.5,)),
    "thorough": Effort((*_CHEAP, "int16x8"), 15, 5000, 4, (0.7, 0.5, 0.35), True, 4.0, True),
}
