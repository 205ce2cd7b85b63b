"""The two forms of reinforcement learning: how a policy proposes, and what it learns from.

A form is a part of :class:`~tfnas.nas.samplers.reinforce.ReinforceSampler`; an object with the same
methods can take its place.

References:
    Zoph and Le, "Neural Architecture Search with Reinforcement Learning", ICLR 2017
    (:class:`BuildingForm`). Cai et al., "Efficient Architecture Search by Network Transformation",
    AAAI 2018 (:class:`ModifyingForm`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, TypeAlias

import numpy as np

from tfnas.nas.samplers.policy import BuildingPolicy, ModifyingPolicy
from tfnas.nas.search_state import SearchState
from tfnas.nas.trial_records import Proposal, TrialRecord, ranked
from tfnas.search_space.search_space import Decision, Values

MAX_RECORDS = 256  # trials that a policy learns from
_FURTHER = 0.5  # probability of each further change of a child if there is a surrogate
_MEAN_PLACE = 4.0  # mean place of the architecture that is changed, 0 for the best

Scored: TypeAlias = Sequence[tuple[TrialRecord, float]]
Steps: TypeAlias = tuple[list[Any], list[float]]


class PolicyForm(Protocol):
    """The interface of forms."""

    def policy(self, decisions: tuple[Decision, ...]) -> Any:
        """Returns a new policy.

        Args:
            decisions: Decisions of the search space, parents before children.
        """
        ...

    def propose(
        self, search: SearchState, policy: Any, rng: np.random.Generator, screened: bool
    ) -> Proposal:
        """Returns a sample of the policy.

        Args:
            search: The search so far.
            policy: The policy.
            rng: NumPy's random generator.
            screened: Whether a surrogate chooses among several proposals.
        """
        ...

    def steps(self, search: SearchState, policy: Any, scored: Scored) -> Steps:
        """Returns the steps to learn from, and the advantage of each.

        Args:
            search: The search so far.
            policy: The policy.
            scored: The records to learn from with their scores, larger is better.
        """
        ...

    def forget(self) -> None:
        """Drops what is known about trials."""
        ...


class BuildingForm:
    """The policy makes all decisions of an architecture, each conditioned on the earlier ones."""

    def policy(self, decisions: tuple[Decision, ...]) -> BuildingPolicy:
        """Returns a new policy."""
        return BuildingPolicy(decisions)

    def propose(
        self, search: SearchState, policy: Any, rng: np.random.Generator, screened: bool
    ) -> Proposal:
        """Returns a sample of the policy."""
        return Proposal(search.space.from_values(policy.sample(rng)))

    def steps(self, search: SearchState, policy: Any, scored: Scored) -> Steps:
        """Returns the decisions of each architecture, with its score."""
        values = [search.space.values(record.architecture) for record, _ in scored]
        return values, [score for _, score in scored]

    def forget(self) -> None:
        """Does nothing: no trial is known."""


class ModifyingForm:
    """The policy changes decisions of one of the best architectures so far."""

    def __init__(self) -> None:
        self._ranked: tuple[int, np.ndarray] = (-1, np.zeros(0, int))

    def policy(self, decisions: tuple[Decision, ...]) -> ModifyingPolicy:
        """Returns a new policy."""
        return ModifyingPolicy(decisions)

    def propose(
        self, search: SearchState, policy: Any, rng: np.random.Generator, screened: bool
    ) -> Proposal:
        """Returns a changed architecture, with a surrogate changed once or more."""
        start = self._start(search, rng)
        values = search.space.values(start.architecture)
        while True:
            decision, option = policy.actions[policy.sample(values, rng)]
            value = decision.of_option(option, rng)
            values = search.space.complete({**values, decision.name: value}, rng)
            if not screened or rng.random() < _FURTHER:
                return Proposal(search.space.from_values(values), start.trial_id)

    def steps(self, search: SearchState, policy: Any, scored: Scored) -> Steps:
        """Returns the changes of each architecture, with its gain over the parent's score."""
        score_of = {record.trial_id: score for record, score in scored}
        architectures = {record.trial_id: record.architecture for record, _ in scored}
        steps: list[Any] = []
        advantages: list[float] = []
        for record, score in scored:
            if record.parent in score_of:
                gain = score - score_of[record.parent]
                before = architectures[record.parent]
                new_steps = _changes(search.space, policy, before, record.architecture)
                steps += new_steps
                advantages += [gain] * len(new_steps)
        return steps, advantages

    def forget(self) -> None:
        """Drops the ranking of a lower rung."""
        self._ranked = (-1, np.zeros(0, int))

    def _start(self, search: SearchState, rng: np.random.Generator) -> TrialRecord:
        """One of the best records so far; better ones are more likely."""
        count, recent = len(search.learning_records), search.learning_records[-MAX_RECORDS:]
        if self._ranked[0] != count:
            self._ranked = (count, ranked(recent))
        order = self._ranked[1]
        place = min(int(rng.exponential(_MEAN_PLACE)), len(order) - 1)
        return recent[order[place]]


FORMS = {"building": BuildingForm, "modifying": ModifyingForm}


def _changes(space: Any, policy: Any, before: Any, after: Any) -> list[tuple[Values, int]]:
    """The actions that lead from one architecture to another, with the first as their state."""
    old, new = space.values(before), space.values(after)
    decisions = {d.name: d for d in policy.decisions}
    indices = {(d.name, option): i for i, (d, option) in enumerate(policy.actions)}
    return [
        (old, indices[name, decisions[name].option(value)])
        for name, value in new.items()
        if name in old and old[name] != value
    ]
