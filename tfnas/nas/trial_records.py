"""Records of a search: what an oracle proposes, and the results of the trials that ended well."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from tfnas.nas.samplers.pareto_selection import best_first


@dataclasses.dataclass(frozen=True)
class Proposal:
    """An architecture to try, and the trial that it descends from.

    Args:
        architecture: The architecture; of a keras_tuner hypermodel its
            :class:`~tfnas.search_space.hyperparameters.HyperParameterValues`.
        parent: Id of the trial whose architecture was changed to get it; None: there is none.
    """

    architecture: Any
    parent: str | None = None


@dataclasses.dataclass(frozen=True)
class TrialRecord:
    """The result of a trial that ended well.

    Args:
        trial_id: Id of the trial.
        architecture: Its architecture, as in :class:`Proposal`.
        violation: Sum of the relative amounts by which it breaks limits; 0: it breaks none.
        losses: Its objectives, with the sign changed of those that are maximized.
        parent: Id of the trial whose architecture was changed to get this one.
    """

    trial_id: str
    architecture: Any
    violation: float
    losses: tuple[float, ...]
    parent: str | None


def ranked(records: Sequence[TrialRecord]) -> np.ndarray:
    """Returns the positions of the records, best first.

    Records that keep the limits come before the others. One objective is ranked by its value,
    several by Pareto front and crowding distance.

    Args:
        records: Trials that ended well.
    """
    if not records:
        return np.zeros(0, int)
    violations = [record.violation for record in records]
    if len(records[0].losses) == 1:
        return np.lexsort(([record.losses[0] for record in records], violations))
    return best_first(violations, [record.losses for record in records])
