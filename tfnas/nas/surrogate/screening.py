"""Surrogate-assisted search: a surrogate chooses among the proposals of a sampler.

The sampler generates several proposals by its own operators. A Gaussian process that was fitted to
the measured trials (:mod:`.gaussian_process`) predicts their expected improvement, and the best one
is tried. :class:`ImprovementScreening` is for one objective. :class:`WeightedScreening` is for
several: each choice uses a random weighting of them, so that the choices together spread along the
Pareto front.

A surrogate of your own is a subclass of :class:`Screening`, an argument of a sampler.

References:
    Knowles, "ParEGO: A Hybrid Algorithm with On-Line Landscape Approximation", IEEE
    Transactions on Evolutionary Computation 2006, equation 2 (augmented Tchebycheff).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tfnas.nas.objectives import Objectives
from tfnas.nas.search_state import SearchState
from tfnas.nas.surrogate.gaussian_process import Surrogate, expected_improvement
from tfnas.nas.trial_records import Proposal, TrialRecord
from tfnas.runtime.argument_rules import check_count

MAX_RECORDS = 256  # trials that a surrogate is fitted to
MIN_RECORDS = 4  # trials that a surrogate needs
_RHO = 0.05  # weight of the sum in the augmented Tchebycheff function
_TRUSTED_FRACTION = 0.5  # fraction of a residual that is attributed to the architecture, not noise
_MAX_VIOLATION = 10.0


class Screening:
    """The interface of surrogates: they choose a proposal and predict results.

    Args:
        children: Number of proposals to choose from, at least 1.

    Raises:
        ValueError: The number is outside its rule.
    """

    def __init__(self, children: int = 24) -> None:
        check_count("children", children, 1)
        self.children = children
        self._vectors: dict[str, np.ndarray] = {}

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
            The estimates, (m,), larger is better; None: it can't estimate.
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
        self._vectors = {}

    def matrix(self, search: SearchState, records: Sequence[TrialRecord]) -> np.ndarray:
        """Returns the features of records, (records, features).

        Args:
            search: The search so far.
            records: The records.
        """
        for record in records:
            if record.trial_id not in self._vectors:
                self._vectors[record.trial_id] = search.encode(record.architecture)
        return np.stack([self._vectors[record.trial_id] for record in records])


class FirstProposal(Screening):
    """No surrogate: the first proposal is tried."""

    def __init__(self) -> None:
        super().__init__(children=1)

    def choose(
        self, search: SearchState, proposals: Sequence[Proposal], rng: np.random.Generator
    ) -> Proposal:
        """Returns the first proposal."""
        return proposals[0]


class ImprovementScreening(Screening):
    """Chooses the largest expected improvement of the first objective.

    Args:
        children: Number of proposals to choose from, at least 1.

    Raises:
        ValueError: The number is outside its rule.
    """

    def __init__(self, children: int = 24) -> None:
        super().__init__(children)
        self.forget()

    def forget(self) -> None:
        """Drops the surrogate and its settings."""
        super().forget()
        self._settings: tuple[int, tuple[float, float]] = (0, (1.0, 1.0))
        self._last: tuple[int, Surrogate | None, list[TrialRecord]] = (-1, None, [])

    def choose(
        self, search: SearchState, proposals: Sequence[Proposal], rng: np.random.Generator
    ) -> Proposal:
        """Returns the proposal of the largest expected improvement."""
        if len(proposals) == 1 or len(search.learning_records) < MIN_RECORDS:
            return proposals[0]
        surrogate, fitted_on = self.fit(search)
        return _most_improving(search, proposals, surrogate, self.matrix(search, fitted_on))

    def fit(self, search: SearchState) -> tuple[Surrogate, list[TrialRecord]]:
        """Fits a surrogate of the first objective to the records of a search.

        Its length scale and noise are optimized again each time the number of records has grown by
        a fifth, on the records at that point, so that they are the same after a reload.

        Args:
            search: The search so far.

        Returns:
            The surrogate and the records that it was fitted to.
        """
        records = search.learning_records
        count = len(records)
        if self._last[0] != count:
            refit_count = _refit_count(count)
            if self._settings[0] != refit_count:
                early = _subset(records[:refit_count])
                optimized = Surrogate(self.matrix(search, early), _penalized(early))
                self._settings = (refit_count, optimized.settings)
            fitted_on = _subset(records)
            matrix = self.matrix(search, fitted_on)
            fitted = Surrogate(matrix, _penalized(fitted_on), self._settings[1])
            self._last = (count, fitted, fitted_on)
        surrogate = self._last[1]
        assert surrogate is not None
        return surrogate, self._last[2]

    def means(self, search: SearchState, queries: Sequence[TrialRecord]) -> np.ndarray | None:
        """Returns the surrogate's predictions; None: there are too few records."""
        if len(search.learning_records) < MIN_RECORDS:
            return None
        return self.fit(search)[0].means(self.matrix(search, queries))

    def estimates(self, search: SearchState, queries: Sequence[TrialRecord]) -> np.ndarray | None:
        """Returns values between the measurements and the surrogate's predictions.

        The difference between both is either noise or a property of the architecture that the
        surrogate doesn't know. One measurement can't tell them apart, so half of it counts.
        """
        means = self.means(search, queries)
        if means is None:
            return None
        return means + _TRUSTED_FRACTION * (_penalized(queries) - means)

    def rank_correlation(self, search: SearchState) -> float | None:
        """Returns Spearman's rank correlation; each trial is predicted from all others."""
        if len(search.learning_records) < MIN_RECORDS:
            return None
        return self.fit(search)[0].rank_correlation()


class WeightedScreening(Screening):
    """Chooses the largest expected improvement of a random weighting of several objectives."""

    def choose(
        self, search: SearchState, proposals: Sequence[Proposal], rng: np.random.Generator
    ) -> Proposal:
        """Returns the proposal of the largest expected improvement; `rng` draws the weights."""
        records = search.learning_records
        if len(proposals) == 1 or len(records) < MIN_RECORDS:
            return proposals[0]
        fitted_on = _subset(records)
        weights = rng.dirichlet(np.ones(len(records[0].losses)))
        matrix = self.matrix(search, fitted_on)
        surrogate = Surrogate(matrix, _scalarized(fitted_on, weights))
        return _most_improving(search, proposals, surrogate, matrix)


def default_screening(objectives: Objectives, children: int) -> Screening:
    """Returns the surrogate of a search.

    Args:
        objectives: Its objectives.
        children: Number of proposals to choose from; 1: no surrogate.
    """
    if children == 1:
        return FirstProposal()
    kind = ImprovementScreening if len(objectives.names) == 1 else WeightedScreening
    return kind(children)


def _most_improving(
    search: SearchState, proposals: Sequence[Proposal], surrogate: Surrogate, fitted_on: np.ndarray
) -> Proposal:
    """The proposal of the largest expected improvement over the best fitted record."""
    encoded = np.stack([search.encode(proposal.architecture) for proposal in proposals])
    mean, deviation = surrogate.predict(encoded)
    best = float(surrogate.means(fitted_on).max())
    return proposals[int(np.argmax(expected_improvement(mean, deviation, best)))]


def _refit_count(count: int) -> int:
    """The largest of 4, 5, 6, 8, 10, 12, 15, 18, ... up to `count`."""
    refit_count = MIN_RECORDS
    while (following := max(refit_count + 1, int(1.2 * refit_count))) <= count:
        refit_count = following
    return min(refit_count, count)


def _subset(records: Sequence[TrialRecord]) -> list[TrialRecord]:
    """All records; if there are too many, the latest ones and the best of the others."""
    if len(records) <= MAX_RECORDS:
        return list(records)
    older = sorted(records[: -MAX_RECORDS // 2], key=lambda e: (e.violation, e.losses))
    return [*older[: MAX_RECORDS // 2], *records[-MAX_RECORDS // 2 :]]


def _penalized(records: Sequence[TrialRecord]) -> np.ndarray:
    """The first objective, larger is better, less a penalty for broken limits."""
    values = -np.array([record.losses[0] for record in records])
    spread = float(np.ptp(values)) or 1.0
    return values - spread * _violations(records)


def _violations(records: Sequence[TrialRecord]) -> np.ndarray:
    return np.array([min(record.violation, _MAX_VIOLATION) for record in records])


def _scalarized(records: Sequence[TrialRecord], weights: np.ndarray) -> np.ndarray:
    """The augmented Tchebycheff function of several objectives, larger is better."""
    losses = np.array([record.losses for record in records])
    low, spread = losses.min(0), np.ptp(losses, axis=0)
    weighted = weights * (losses - low) / np.where(spread > 0, spread, 1.0)
    return -(weighted.max(1) + _RHO * weighted.sum(1)) - _violations(records)
