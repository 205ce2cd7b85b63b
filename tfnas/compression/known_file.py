"""What the planner of `compress` reads and keeps of a candidate."""

from __future__ import annotations

import dataclasses
from typing import Protocol

from tfnas.compression.budget import CandidateCosts
from tfnas.compression.recipe import Recipe


class Outcome(Protocol):
    """What became of a recipe: all that the planner reads of a candidate."""

    @property
    def recipe(self) -> Recipe:
        """The recipe."""
        ...

    @property
    def costs(self) -> CandidateCosts:
        """The costs of its file."""
        ...

    @property
    def beaten(self) -> bool:
        """Whether another file is as small and fast and significantly better."""
        ...


@dataclasses.dataclass(frozen=True)
class KnownFile:
    """A recipe and the costs of its file, without the file: two of them can be compared.

    Args:
        recipe: The recipe.
        costs: The costs of its file.
        beaten: Whether another file is as small and fast and significantly better.
    """

    recipe: Recipe
    costs: CandidateCosts
    beaten: bool = False

    @classmethod
    def of(cls, outcome: Outcome) -> KnownFile:
        """Returns what is kept of a candidate.

        Args:
            outcome: The candidate.
        """
        return cls(outcome.recipe, outcome.costs, outcome.beaten)


KnownFiles = tuple[Outcome, ...]  # int8, then with fewer bits, where they were converted
