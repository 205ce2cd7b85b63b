"""Surrogate-assisted search: a surrogate chooses among the proposals of an oracle.

The oracle generates several proposals by its own operators. A Gaussian process that was fitted to
the measured trials (:mod:`.gaussian_process`) predicts their expected improvement, and the best one
is tried. With several objectives each choice uses a random weighting of them, so that the
choices together spread along the Pareto front.

References:
    Knowles, "ParEGO: A Hybrid Algorithm with On-Line Landscape Approximation", IEEE
    Transactions on Evolutionary Computation 2006, equation 2 (augmented Tchebycheff).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras_tuner as kt
import numpy as np

from tfnas.nas.oracle import SpaceOracle
from tfnas.nas.surrogate.gaussian_process import Surrogate, expected_improvement
from tfnas.nas.trial_records import Proposal, TrialRecord
from tfnas.runtime.argument_rules import check_count

MAX_RECORDS = 256  # trials that a surrogate is fitted to
_MIN_RECORDS = 4
_RHO = 0.05  # weight of the sum in the augmented Tchebycheff function
_TRUSTED_FRACTION = 0.5  # fraction of a residual that is attributed to the architecture, not noise
_MAX_VIOLATION = 10.0


class Screening:
    """Chooses among proposals by a surrogate that is fitted to the records of trials.

    Args:
        encode: Function of an architecture that returns its features, (features,).
    """

    def __init__(self, encode: Callable[[Any], np.ndarray]) -> None:
        self._encode = encode
        self._vectors: dict[str, np.ndarray] = {}
        self._settings: tuple[int, tuple[float, float]] = (0, (1.0, 1.0))
        self._last: tuple[int, Surrogate | None, list[TrialRecord]] = (-1, None, [])

    def choose(
        self, proposals: list[Proposal], records: Sequence[TrialRecord], rng: np.random.Generator
    ) -> Proposal:
        """Returns the proposal of the largest expected improvement.

        Args:
            proposals: At least one.
            records: Records of trials; with fewer than 4 the first proposal is returned.
            rng: NumPy's random generator, which draws the weighting of several objectives.
        """
        if len(proposals) == 1 or len(records) < _MIN_RECORDS:
            return proposals[0]
        if len(records[0].losses) == 1:
            surrogate, fitted_on = self.fit(records)
        else:
            fitted_on = _subset(records)
            weights = rng.dirichlet(np.ones(len(records[0].losses)))
            surrogate = Surrogate(self._matrix(fitted_on), _scalarized(fitted_on, weights))
        mean, deviation = surrogate.predict(
            np.stack([self._encode(p.architecture) for p in proposals])
        )
        best = float(surrogate.means(self._matrix(fitted_on)).max())
        return proposals[int(np.argmax(expected_improvement(mean, deviation, best)))]

    def fit(self, records: Sequence[TrialRecord]) -> tuple[Surrogate, list[TrialRecord]]:
        """Fits a surrogate of the first objective.

        Its length scale and noise are optimized again each time the number of records has grown by
        a fifth, on the records at that point, so that they are the same after a reload.

        Returns:
            The surrogate and the records that it was fitted to.
        """
        count = len(records)
        if self._last[0] != count:
            refit_count = _refit_count(count)
            if self._settings[0] != refit_count:
                early = _subset(records[:refit_count])
                optimized = Surrogate(self._matrix(early), _penalized(early))
                self._settings = (refit_count, optimized.settings)
            fitted_on = _subset(records)
            fitted = Surrogate(self._matrix(fitted_on), _penalized(fitted_on), self._settings[1])
            self._last = (count, fitted, fitted_on)
        surrogate = self._last[1]
        assert surrogate is not None
        return surrogate, self._last[2]

    def means(self, records: Sequence[TrialRecord], queries: Sequence[TrialRecord]) -> np.ndarray:
        """Returns the surrogate's predictions of the first objective, larger is better.

        Args:
            records: Records that the surrogate is fitted to.
            queries: Records whose architectures are predicted, (m,).
        """
        return self.fit(records)[0].means(self._matrix(queries))

    def shrunk(self, records: Sequence[TrialRecord], queries: Sequence[TrialRecord]) -> np.ndarray:
        """Returns estimates between the measurements and the surrogate's predictions.

        The difference between both is either noise or a property of the architecture that the
        surrogate doesn't know. One measurement can't tell them apart, so half of it counts.

        Args:
            records: Records that the surrogate is fitted to.
            queries: Records that are estimated, (m,).
        """
        means = self.means(records, queries)
        return means + _TRUSTED_FRACTION * (_penalized(queries) - means)

    def _matrix(self, records: Sequence[TrialRecord]) -> np.ndarray:
        for record in records:
            if record.trial_id not in self._vectors:
                self._vectors[record.trial_id] = self._encode(record.architecture)
        return np.stack([self._vectors[record.trial_id] for record in records])


class ScreenedOracle(SpaceOracle):
    """An oracle with a surrogate that chooses among its proposals.

    Args:
        *args: As for :class:`SpaceOracle`.
        children: Number of proposals that the surrogate chooses from; 1: no surrogate.
        num_initial: Number of trials before the surrogate is used.
        **kwargs: As for :class:`SpaceOracle`.

    Raises:
        ValueError: An argument is outside its rule; the message names it.
    """

    def __init__(self, *args: Any, children: int, num_initial: int, **kwargs: Any) -> None:
        check_count("children", children, 1)
        super().__init__(*args, **kwargs)
        self.children = children
        self._num_initial = num_initial
        self.screening = Screening(self._encode)

    def forget(self) -> None:
        """Drops the surrogate, which knows the records of a lower rung."""
        self.screening = Screening(self._encode)

    def _encode(self, arch: Any) -> np.ndarray:
        """The features of an architecture: its decisions and its `surrogate_features`."""
        if self.surrogate_features is None:
            return self.space.encode(arch)
        return np.concatenate([self.space.encode(arch), self.surrogate_features(arch)])

    @property
    def min_records(self) -> int:
        """As many records as the surrogate needs before it chooses."""
        return max(self._num_initial, _MIN_RECORDS)

    @property
    def num_proposals(self) -> int:
        """Number of proposals that the surrogate chooses from; 1 in the initial trials."""
        return self.children if self.num_started >= max(self._num_initial, 1) else 1

    @property
    def has_surrogate(self) -> bool:
        """Whether there is a surrogate of a single objective."""
        single = len(self.objectives.names) == 1
        return self.children > 1 and single and len(self.learning_records) >= _MIN_RECORDS

    def choose(self, proposals: list[Proposal], rng: np.random.Generator) -> Proposal:
        """Returns the proposal of the largest expected improvement."""
        return self.screening.choose(proposals, self.learning_records, rng)

    def pick(self) -> kt.engine.trial.Trial:
        """Returns the best trial by estimates between its measurement and the surrogate.

        Measurements are noisy, and the best of many is often a lucky one. Without a surrogate, with
        several objectives or with halving (the surrogate knows only one rung) the trial with the
        best measurement is returned.

        Raises:
            ValueError: No trial ended well.
        """
        if not self.records:
            raise ValueError("pick needs a trial that ended well, got none")
        if not self.has_surrogate or self.halving.eta is not None:
            return self.get_best_trials(1)[0]
        feasible = [record for record in self.records if record.violation == 0] or self.records
        estimates = self.screening.shrunk(self.learning_records, feasible)
        return self.trials[feasible[int(np.argmax(estimates))].trial_id]

    def rank_correlation(self) -> float | None:
        """Returns Spearman's rank correlation of measurements and the surrogate's predictions.

        Each trial is predicted from all others (leave-one-out). None: there are too few trials,
        several objectives or no surrogate.
        """
        return (
            self.screening.fit(self.learning_records)[0].rank_correlation()
            if self.has_surrogate
            else None
        )


def _refit_count(count: int) -> int:
    """The largest of 4, 5, 6, 8, 10, 12, 15, 18, ... up to `count`."""
    refit_count = _MIN_RECORDS
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
