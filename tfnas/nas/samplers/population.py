"""How an evolutionary search keeps its population: survival, and the selection of parents.

Both are parts of :class:`~tfnas.nas.samplers.evolution.EvolutionSampler`; an object with the same
method can take their place.

References:
    Real et al., "Regularized Evolution for Image Classifier Architecture Search", AAAI 2019
    (:class:`AgingSurvival`). Deb et al., "NSGA-II", 2002 (:class:`ParetoSurvival`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from tfnas.nas.samplers.pareto_selection import tournament
from tfnas.nas.trial_records import TrialRecord, ranked
from tfnas.runtime.argument_rules import check_count


class Survival(Protocol):
    """The interface of survivals."""

    def survivors(self, population: Sequence[TrialRecord], size: int) -> list[TrialRecord]:
        """Returns the members that stay.

        Args:
            population: All members, the newest last.
            size: Largest number of members.
        """
        ...


class Selection(Protocol):
    """The interface of selections of parents."""

    def select(self, order: np.ndarray, rng: np.random.Generator) -> int:
        """Returns the position of a parent in the population.

        Args:
            order: Positions of the members, best first.
            rng: NumPy's random generator.
        """
        ...


@dataclasses.dataclass(frozen=True)
class AgingSurvival:
    """The newest members stay, however good the others are (aging evolution)."""

    def survivors(self, population: Sequence[TrialRecord], size: int) -> list[TrialRecord]:
        """Returns the newest members, as in :class:`Survival`."""
        return list(population[-size:])


@dataclasses.dataclass(frozen=True)
class ParetoSurvival:
    """The best members stay, by Pareto front and crowding distance (NSGA-II)."""

    def survivors(self, population: Sequence[TrialRecord], size: int) -> list[TrialRecord]:
        """Returns the best members in the order of their age, as in :class:`Survival`."""
        if len(population) <= size:
            return list(population)
        kept = set(ranked(population)[:size].tolist())
        return [record for i, record in enumerate(population) if i in kept]


@dataclasses.dataclass(frozen=True)
class EveryoneSurvival:
    """All members stay: a surrogate knows which of them are worth a child."""

    def survivors(self, population: Sequence[TrialRecord], size: int) -> list[TrialRecord]:
        """Returns all members, as in :class:`Survival`."""
        return list(population)


@dataclasses.dataclass(frozen=True)
class BestSelection:
    """Any of the best members, each as often.

    Args:
        size: Number of members that are chosen from, at least 1.

    Raises:
        ValueError: The size is outside its rule.
    """

    size: int = 5

    def __post_init__(self) -> None:
        check_count("size", self.size, 1)

    def select(self, order: np.ndarray, rng: np.random.Generator) -> int:
        """Returns the position of a member, as in :class:`Selection`."""
        return int(order[rng.integers(min(self.size, len(order)))])


@dataclasses.dataclass(frozen=True)
class TournamentSelection:
    """The best of some random members.

    Args:
        size: Number of members drawn, at least 1; of a smaller population all are.

    Raises:
        ValueError: The size is outside its rule.
    """

    size: int = 8

    def __post_init__(self) -> None:
        check_count("size", self.size, 1)

    def select(self, order: np.ndarray, rng: np.random.Generator) -> int:
        """Returns the position of the winner, as in :class:`Selection`."""
        return tournament(order, self.size, rng)
