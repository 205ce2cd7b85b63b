"""What surrogates that take turns share, whatever the number of objectives."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tfnas.nas.search_state import SearchState
from tfnas.nas.surrogate.ensemble import MEMBERS, MIN_RECORDS, Member
from tfnas.nas.surrogate.screening_interface import Screening, farthest
from tfnas.nas.trial_records import Proposal
from tfnas.runtime.argument_rules import check_count


class EnsembleScreening(Screening):
    """Chooses by surrogates that take turns; before they are fitted, the farthest proposal.

    Args:
        children: Number of proposals to choose from, at least 1.
        members: The forms of the surrogates, which take turns.
        warmup: Number of trials at the start that are chosen by their distances alone.

    Raises:
        ValueError: A number is outside its rule.
    """

    chooses_initial = True

    def __init__(
        self, children: int = 24, members: Sequence[Member] = MEMBERS, warmup: int = MIN_RECORDS
    ) -> None:
        super().__init__(children)
        check_count("warmup", warmup, 0)
        self.members, self.warmup = tuple(members), warmup
        self.forget()

    def choose(
        self, search: SearchState, proposals: Sequence[Proposal], rng: np.random.Generator
    ) -> Proposal:
        """Returns the proposal that is expected to improve the search most."""
        if len(proposals) == 1:
            return proposals[0]
        few = len(search.learning_records) < MIN_RECORDS
        if few or search.num_started < self.warmup:
            return farthest(search, proposals)
        self.features(search, proposals[0].architecture)
        return self.best_of(search, proposals, rng)

    def best_of(
        self, search: SearchState, proposals: Sequence[Proposal], rng: np.random.Generator
    ) -> Proposal:
        """Returns the proposal that the surrogates expect most of.

        Args:
            search: The search so far, with at least `MIN_RECORDS` records.
            proposals: Proposals that were not tried yet, at least two.
            rng: NumPy's random generator.
        """
        raise NotImplementedError
