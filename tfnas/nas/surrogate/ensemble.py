"""Several surrogates of one objective that take turns.

No single Gaussian process is right for all tables: one that keeps distances is best on smooth ones,
one that knows ranks alone bears failures, one with a weight for each decision finds the few that
count, and one with a common weight does not believe in them too early. Each trial is chosen by
another member, so that an error of one of them costs a trial in four, and trials that are chosen at
the same time differ.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from tfnas.nas.surrogate.gaussian_process import FeatureGroups, Surrogate
from tfnas.nas.surrogate.value_scales import clipped, normal_scores


@dataclasses.dataclass(frozen=True)
class Member:
    """The form of one surrogate.

    Args:
        scale: Changes the scale of measurements, (n,) to (n,).
        separate: Whether each decision has a weight of its own.
    """

    scale: Callable[[np.ndarray], np.ndarray]
    separate: bool


MIN_RECORDS = 4  # trials that a surrogate needs
MEMBERS = (
    Member(clipped, separate=True),
    Member(normal_scores, separate=True),
    Member(normal_scores, separate=False),
    Member(clipped, separate=False),
)


@dataclasses.dataclass(frozen=True)
class FittedExamples:
    """What surrogates are fitted to.

    Args:
        x: Features, (n, features).
        y: Measurements, larger is better, (n,).
        groups: The groups of the features.
    """

    x: np.ndarray
    y: np.ndarray
    groups: FeatureGroups


class SurrogateEnsemble:
    """Surrogates of one objective; each is fitted when its turn comes.

    Example:
        >>> x, groups = np.arange(5.0)[:, None], FeatureGroups(np.zeros(1))
        >>> def examples(count):
        ...     return FittedExamples(x[:count], x[:count, 0], groups)
        >>> mean, deviation = SurrogateEnsemble().member(0, 5, examples).predict(x)
        >>> bool(np.all(np.diff(mean) > 0))
        True

    Args:
        members: The forms of the surrogates, at least one.
    """

    def __init__(self, members: Sequence[Member] = MEMBERS) -> None:
        self.members = tuple(members)
        self._settings: dict[int, tuple[int, np.ndarray]] = {}
        self._fitted: dict[int, tuple[int, Surrogate]] = {}

    def member(self, turn: int, count: int, examples: Callable[[int], FittedExamples]) -> Surrogate:
        """Returns the surrogate whose turn it is.

        Its weights and noise are fitted again each time the number of trials has grown by a fifth,
        to the trials at that point, so that they are the same after a reload.

        Args:
            turn: Number of the choice; members come one after the other.
            count: Number of trials.
            examples: Returns the examples of the first so many trials.
        """
        place, refit = turn % len(self.members), refit_count(count)
        fitted = self._fitted.get(place)
        if fitted is not None and fitted[0] == count:
            return fitted[1]
        settings = self._settings.get(place)
        if settings is None or settings[0] != refit:
            first = self._surrogate(place, examples(refit), None)
            settings = self._settings[place] = (refit, first.settings)
        surrogate = self._surrogate(place, examples(count), settings[1])
        self._fitted[place] = (count, surrogate)
        return surrogate

    def _surrogate(
        self, place: int, found: FittedExamples, settings: np.ndarray | None
    ) -> Surrogate:
        form = self.members[place]
        scaled = form.scale(found.y)
        return Surrogate(found.x, scaled, found.groups, separate=form.separate, settings=settings)


def refit_count(count: int) -> int:
    """Returns the largest of 4, 5, 6, 8, 10, 12, 15, 18, ... up to a number of trials.

    Args:
        count: The number of trials.
    """
    largest = MIN_RECORDS
    while (following := max(largest + 1, int(1.2 * largest))) <= count:
        largest = following
    return min(largest, count)
