"""The interface of surrogates, and what all of them share.

A surrogate of your own is a subclass of :class:`Screening`, an argument of a sampler.

References:
    Johnson et al., "Minimax and Maximin Distance Designs", 1990 (:func:`farthest`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tfnas.nas.search_state import SearchState
from tfnas.nas.surrogate.decision_features import DecisionFeatures
from tfnas.nas.trial_records import Proposal, TrialRecord
from tfnas.runtime.argument_rules import check_count

MAX_RECORDS = 256  # trials that a surrogate is fitted to
_MAX_VIOLATION = 10.0
_DIGITS = 7  # of values that count as equal, however a processor rounds


class Screening:
    """The interface of surrogates: they choose a proposal and predict results.

    Args:
        children: Number of proposals to choose from, at least 1.

    Raises:
        ValueError: The number is outside its rule.
    """

    chooses_initial = False
    """Whether it also chooses among random proposals, before there are results."""

    def __init__(self, children: int = 24) -> None:
        check_count("children", children, 1)
        self.children = children
        self._encoded: dict[str, np.ndarray] = {}
        self._offered: dict[int, tuple[Proposal, np.ndarray]] = {}
        self._features: DecisionFeatures | None = None

    def choose(
        self, search: SearchState, proposals: Sequence[Proposal], rng: np.random.Generator
    ) -> Proposal:
        """Returns the proposal to try.

        Args:
            search: The search so far.
            proposals: Proposals that were not tried yet, at least one.
            rng: NumPy's random generator.
        """
        raise NotImplementedError

    def means(self, search: SearchState, queries: Sequence[TrialRecord]) -> np.ndarray | None:
        """Returns predictions of the objective, larger is better; None: it can't predict yet.

        Args:
            search: The search so far.
            queries: Records whose architectures are predicted, (m,).
        """
        return None

    def estimates(self, search: SearchState, queries: Sequence[TrialRecord]) -> np.ndarray | None:
        """Returns estimates of the objective without the noise of its measurement.

        Args:
            search: The search so far.
            queries: Records that are estimated, (m,).

        Returns:
            The estimates on a scale of their own, (m,), larger is better; None: it can't estimate.
        """
        return None

    def rank_correlation(self, search: SearchState) -> float | None:
        """Returns the rank correlation of measurements and predictions; None: there is none.

        Args:
            search: The search so far.
        """
        return None

    def forget(self) -> None:
        """Drops what is known about trials; called when the search learns from a higher rung."""
        self._encoded, self._offered = {}, {}

    def matrix(self, search: SearchState, records: Sequence[TrialRecord]) -> np.ndarray:
        """Returns the features of records, (records, features).

        Args:
            search: The search so far.
            records: The records.
        """
        features = self.features(search, records[0].architecture)
        for record in records:
            if record.trial_id not in self._encoded:
                self._encoded[record.trial_id] = search.encode(record.architecture)
        return features.of(np.stack([self._encoded[record.trial_id] for record in records]))

    def offered(self, search: SearchState, proposals: Sequence[Proposal]) -> np.ndarray:
        """Returns the features of proposals, (proposals, features).

        Those of the last call are not encoded again.

        Args:
            search: The search so far.
            proposals: Proposals, at least one.
        """
        features = self.features(search, proposals[0].architecture)
        known = self._offered
        self._offered = {
            id(proposal): known.get(id(proposal))
            or (proposal, search.encode(proposal.architecture))
            for proposal in proposals
        }
        return features.of(np.stack([self._offered[id(proposal)][1] for proposal in proposals]))

    def running(self, search: SearchState) -> np.ndarray:
        """Returns the features of the trials that are running, at least one.

        Args:
            search: The search so far.
        """
        features = self.features(search, search.pending[0])
        return features.of(np.stack([search.encode(arch) for arch in search.pending]))

    def features(self, search: SearchState, arch: Any) -> DecisionFeatures:
        """Returns the form of the features; it is another one if the search space has grown.

        Args:
            search: The search so far.
            arch: Any of its architectures.
        """
        decisions = tuple(search.space.decisions)
        if self._features is None or self._features.decisions != decisions:
            self.forget()
            self._features = DecisionFeatures(decisions, len(search.encode(arch)))
        return self._features


class FirstProposal(Screening):
    """No surrogate: the first proposal is tried."""

    def __init__(self) -> None:
        super().__init__(children=1)

    def choose(
        self, search: SearchState, proposals: Sequence[Proposal], rng: np.random.Generator
    ) -> Proposal:
        """Returns the first proposal."""
        return proposals[0]


def farthest(search: SearchState, proposals: Sequence[Proposal]) -> Proposal:
    """Returns the proposal that differs in the most decisions from its nearest earlier one.

    Trials that failed count: what is near one that broke a limit often breaks it too.

    Args:
        search: The search so far.
        proposals: The proposals, at least one.
    """
    earlier = [record.architecture for record in search.learning_records]
    earlier += [*search.pending, *search.failed]
    if not earlier:
        return proposals[0]
    a, b = (
        np.stack([search.encode(arch) for arch in archs])
        for archs in ([proposal.architecture for proposal in proposals], earlier)
    )
    distances = ((a[:, None] - b[None]) ** 2).sum(-1).min(1)
    return proposals[int(np.argmax(distances))]


def first_best(values: np.ndarray) -> int:
    """Returns the position of the first of the largest values; almost equal ones are equal.

    Example:
        >>> first_best(np.array([0.0, 1.0, 1.0 + 1e-12]))
        1

    Args:
        values: The values, (n,).
    """
    largest = float(np.max(values))
    return int(np.argmax(values >= largest - 10.0**-_DIGITS * max(abs(largest), 1e-6)))


def fitted_records(records: Sequence[TrialRecord]) -> list[TrialRecord]:
    """Returns all records; if there are too many, the latest ones and the best of the others.

    Args:
        records: Records in the order of their ends.
    """
    if len(records) <= MAX_RECORDS:
        return list(records)
    older = sorted(records[: -MAX_RECORDS // 2], key=lambda e: (e.violation, e.losses))
    return [*older[: MAX_RECORDS // 2], *records[-MAX_RECORDS // 2 :]]


def violations(records: Sequence[TrialRecord]) -> np.ndarray:
    """Returns the amounts by which limits are broken, up to 10, (records,).

    Args:
        records: The records.
    """
    return np.array([min(record.violation, _MAX_VIOLATION) for record in records])


def penalized(records: Sequence[TrialRecord], objective: int = 0) -> np.ndarray:
    """Returns an objective, larger is better, less a penalty for broken limits, (records,).

    Args:
        records: The records.
        objective: Number of the objective.
    """
    values = -np.array([record.losses[objective] for record in records])
    spread = float(np.ptp(values)) or 1.0
    return values - spread * violations(records)
