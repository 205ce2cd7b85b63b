"""The interface of samplers: they propose architectures and learn from results.

A sampler has parts that are passed in (a selection, a mutation, a crossover, a surrogate, a policy)
and keeps the state of one search. The oracle copies it when the search is created, so that one
sampler can be an argument of several tuners. Nothing of it is stored: after a restart the oracle
lets it learn from the same results again, in the same order.

A sampler of your own implements :meth:`Sampler.propose`:

    class Sequential(Sampler):
        def propose(self, search, rng):
            values = {"units": 8 * (1 + search.num_started % 4)}
            return Proposal(search.space.from_values(values))

    oracle = SpaceOracle(Sequential(), objective=..., max_trials=12)
"""

from __future__ import annotations

import numpy as np

from tfnas.nas.objectives import Objectives
from tfnas.nas.search_state import SearchState
from tfnas.nas.surrogate.screening import FirstProposal, Screening
from tfnas.nas.trial_records import Proposal, TrialRecord


class Sampler:
    """Proposes the architecture of each trial; subclasses implement :meth:`propose`."""

    num_initial: int = 0
    """Number of trials at the start that are proposed without a surrogate."""
    min_records: int = 1
    """Number of trials of a higher rung from which on the search learns from that rung."""
    screening: Screening = FirstProposal()
    """Chooses the proposal to try among several."""

    def begin(self, objectives: Objectives) -> None:
        """Called once, before all other methods.

        Args:
            objectives: The objectives of the search.
        """

    def propose(self, search: SearchState, rng: np.random.Generator) -> Proposal:
        """Returns an architecture to try next; it may have been tried before.

        Args:
            search: The search so far.
            rng: NumPy's random generator.
        """
        raise NotImplementedError

    def num_refinements(self, search: SearchState) -> int:
        """Returns how often a choice is repeated among proposals of :meth:`refine`.

        Args:
            search: The search so far.
        """
        return 0

    def refine(self, search: SearchState, chosen: Proposal, rng: np.random.Generator) -> Proposal:
        """Returns a proposal near the chosen one; it may have been tried before.

        Args:
            search: The search so far.
            chosen: The proposal that the surrogate has chosen so far.
            rng: NumPy's random generator.
        """
        return Proposal(search.space.mutate(chosen.architecture, rng), chosen.parent)

    def learn(self, search: SearchState, record: TrialRecord) -> None:
        """Called with each record of `search.learning_records`, in their order, also on reload.

        Args:
            search: The search so far.
            record: The newest record.
        """

    def forget(self) -> None:
        """Called when the search starts to learn from a higher rung, with no records yet."""
        self.screening.forget()

    def num_proposals(self, search: SearchState) -> int:
        """Returns the number of proposals to choose from; 1 in the initial trials.

        Args:
            search: The search so far.
        """
        return self.screening.children if search.num_started >= max(self.num_initial, 1) else 1
