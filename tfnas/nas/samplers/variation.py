"""How an evolutionary search changes architectures: mutation and crossover.

Both are parts of :class:`~tfnas.nas.samplers.evolution.EvolutionSampler`; an object with the same
methods can take their place.
"""

from __future__ import annotations

import dataclasses
from typing import Protocol, TypeAlias

import numpy as np

from tfnas.search_space.architecture import Architecture
from tfnas.search_space.search_space import SearchSpace

Parents: TypeAlias = tuple[Architecture, Architecture]


class Mutation(Protocol):
    """The interface of mutations."""

    def mutate(
        self, space: SearchSpace, arch: Architecture, rng: np.random.Generator, *, at_least: int = 1
    ) -> Architecture:
        """Returns a changed architecture.

        Args:
            space: The search space.
            arch: The architecture.
            rng: NumPy's random generator.
            at_least: Smallest number of changes: 0 if `arch` is new already, by a crossover.
        """
        ...


class Crossover(Protocol):
    """The interface of crossovers."""

    @property
    def probability(self) -> float:
        """Probability that a child has two parents."""
        ...

    def cross(self, space: SearchSpace, parents: Parents, rng: np.random.Generator) -> Architecture:
        """Returns a child of two architectures.

        Args:
            space: The search space.
            parents: Two architectures.
            rng: NumPy's random generator.
        """
        ...


@dataclasses.dataclass(frozen=True)
class DecisionMutation:
    """Changes one decision of an architecture, and perhaps more.

    Args:
        further: Probability of each further change, in [0, 1).

    Raises:
        ValueError: The probability is outside its rule.
    """

    further: float = 0.0

    def __post_init__(self) -> None:
        if not 0.0 <= self.further < 1.0:
            raise ValueError(f"further must be in [0, 1), got {self.further!r}")

    def mutate(
        self, space: SearchSpace, arch: Architecture, rng: np.random.Generator, *, at_least: int = 1
    ) -> Architecture:
        """Returns a changed architecture, as in :class:`Mutation`."""
        for _ in range(at_least):
            arch = space.mutate(arch, rng)
        while self.further and rng.random() < self.further:
            arch = space.mutate(arch, rng)
        return arch


@dataclasses.dataclass(frozen=True)
class GroupCrossover:
    """Takes each group of decisions, such as those of a stage, from either parent.

    Args:
        probability: Probability that a child has two parents, in [0, 1].

    Raises:
        ValueError: The probability is outside its rule.
    """

    probability: float = 0.5

    def __post_init__(self) -> None:
        if not 0.0 <= self.probability <= 1.0:
            raise ValueError(f"probability must be in [0, 1], got {self.probability!r}")

    def cross(self, space: SearchSpace, parents: Parents, rng: np.random.Generator) -> Architecture:
        """Returns a child of two architectures, as in :class:`Crossover`."""
        return space.crossover(*parents, rng)
