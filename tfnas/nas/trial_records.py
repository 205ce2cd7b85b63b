"""What an oracle proposes, what came of it, and which of it is best."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from tfnas.nas.samplers.pareto_selection import best_first


@dataclasses.dataclass(frozen=True)
class Proposal:
    """An architecture to try, and where it comes from.

    Args:
        point: The architecture, or the point of a space of hyperparameters.
        parent: Id of the trial that it was made from; None: of none.
    """

    point: Any
    parent: str | None = None


@dataclasses.dataclass(frozen=True)
class Entry:
    """A trial that ended well.

    Args:
        trial_id: Its id.
        point: What was tried.
        violation: How far it is outside of the limits; 0: within.
        losses: Its objectives, each turned so that less is better.
        parent: Id of the trial that it was made from.
    """

    trial_id: str
    point: Any
    violation: float
    losses: tuple[float, ...]
    parent: str | None


def ranked(entries: Sequence[Entry]) -> np.ndarray:
    """Returns the entries' numbers, the best first: within the limits, then by objective.

    Several objectives are ranked by Pareto front and crowding.

    Args:
        entries: Trials that ended well.
    """
    if not entries:
        return np.zeros(0, int)
    violations = [entry.violation for entry in entries]
    if len(entries[0].losses) == 1:
        return np.lexsort(([entry.losses[0] for entry in entries], violations))
    return best_first(violations, [entry.losses for entry in entries])
