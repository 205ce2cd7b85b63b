"""Which proposal becomes a trial: the first chosen one that is new and keeps the limits.

A sampler may propose what was tried before, or what is known to break a limit without a trial (its
MACs, or its predicted latency). :class:`ProposalFilter` drops those. What was tried is read from
the trials (:mod:`tfnas.nas.trial_store`), so nothing here is stored.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from tfnas.nas.samplers.sampler import Sampler
from tfnas.nas.search_state import SearchState
from tfnas.nas.trial_records import Proposal
from tfnas.search_space.architecture import Architecture

_PROPOSALS = 100
_REPEATS_NEAR = 20  # in a row, after which all proposals near another one are taken to be known
_STEPS = 10_000
_STEPS_WITH_COSTS = 50  # fewer, as the costs of a step may need a model to be built


class ProposalFilter:
    """Knows which networks were tried, and which ones are infeasible."""

    def __init__(self) -> None:
        self.costs: Callable[[Architecture], Mapping[str, float]] | None = None
        """Returns the metrics of an architecture that are known without a trial; proposals whose
        metrics break a limit are dropped."""
        self.infeasible: set[Any] = set()
        self._tried: dict[Any, str] = {}
        self._networks: dict[str, Any] = {}

    def register(self, trial_id: str, arch: Architecture) -> None:
        """Registers the architecture of a trial as tried.

        It replaces an earlier one of the trial, which may have declared hyperparameters since.

        Args:
            trial_id: The trial.
            arch: Its architecture.
        """
        before = self._networks.get(trial_id)
        if before is not None and self._tried.get(before) == trial_id:
            del self._tried[before]
        self._networks[trial_id] = arch.network
        self._tried[arch.network] = trial_id

    def next_proposal(
        self, search: SearchState, sampler: Sampler, rng: np.random.Generator
    ) -> Proposal | None:
        """Returns the proposal to try; None: the search space is exhausted.

        Args:
            search: The search so far.
            sampler: Its sampler.
            rng: NumPy's random generator.

        Raises:
            RuntimeError: No architecture keeps the limits.
        """
        proposal = None
        if len(self._tried) < search.space.size:
            proposal = self._chosen(search, sampler, rng) or self._walked(search, sampler, rng)
        if proposal is None and self.costs is not None and not search.learning_records:
            raise RuntimeError(
                f"limits {', '.join(map(str, search.objectives.limits))} must leave a feasible "
                f"architecture, got none among {len(self.infeasible)} proposals"
            )
        return proposal

    def _chosen(
        self, search: SearchState, sampler: Sampler, rng: np.random.Generator
    ) -> Proposal | None:
        """The first chosen proposal that is not known to break a limit.

        Costs are computed for chosen proposals only.
        """
        checked = 0
        while checked < _PROPOSALS and (proposals := self._new(search, sampler, rng)):
            if len(proposals) > 1:
                self._refine(search, sampler, proposals, rng)
            while proposals:
                proposal = sampler.screening.choose(search, proposals, rng)
                checked += 1
                if self._is_feasible(search, proposal.architecture):
                    return proposal
                proposals.remove(proposal)
        return None

    def _new(
        self, search: SearchState, sampler: Sampler, rng: np.random.Generator
    ) -> list[Proposal]:
        """Distinct proposals that were not tried and are not known to break a limit."""
        count = sampler.num_proposals(search)
        return self._distinct([], count, lambda: sampler.propose(search, rng))

    def _refine(
        self,
        search: SearchState,
        sampler: Sampler,
        proposals: list[Proposal],
        rng: np.random.Generator,
    ) -> None:
        """Adds proposals near the chosen one, until none of them is chosen."""
        before = None
        for _ in range(sampler.num_refinements(search)):
            best = sampler.screening.choose(search, proposals, rng)
            if best is before:
                return
            before, count = best, max(sampler.screening.children // 2, 1)
            near = functools.partial(sampler.refine, search, best, rng)
            proposals += self._distinct(proposals, count, near, _REPEATS_NEAR)

    def _distinct(
        self,
        known: list[Proposal],
        count: int,
        draw: Callable[[], Proposal],
        most_repeats: int = _PROPOSALS,
    ) -> list[Proposal]:
        """New proposals that differ from each other and from the known ones."""
        seen = {proposal.architecture.network for proposal in known}
        found: list[Proposal] = []
        repeats = 0
        while len(found) < count and repeats < most_repeats:
            proposal = draw()
            network, repeats = proposal.architecture.network, repeats + 1
            if not (network in self._tried or network in seen or network in self.infeasible):
                seen.add(network)
                found.append(proposal)
                repeats = 0
        return found

    def _walked(
        self, search: SearchState, sampler: Sampler, rng: np.random.Generator
    ) -> Proposal | None:
        """The first new and feasible architecture of a random walk; None if it finds none."""
        arch = sampler.propose(search, rng).architecture
        with_costs = self.costs is not None and bool(search.objectives.limits)
        for _ in range(_STEPS_WITH_COSTS if with_costs else _STEPS):
            arch = search.space.mutate(arch, rng)
            if arch.network not in self._tried and self._is_feasible(search, arch):
                return Proposal(arch)
        return None

    def _is_feasible(self, search: SearchState, arch: Architecture) -> bool:
        if self.costs is None or not search.objectives.limits:
            return True
        network = arch.network
        if network not in self.infeasible and search.objectives.violation(self.costs(arch)) > 0:
            self.infeasible.add(network)
        return network not in self.infeasible
