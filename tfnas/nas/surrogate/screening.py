"""Surrogate-assisted search: a surrogate chooses among the proposals of a sampler.

The sampler generates several proposals by its own operators. Gaussian processes that were fitted to
the measured trials (:mod:`.gaussian_process`, :mod:`.ensemble`) predict what each of them would
improve, and the best one is tried. Before there are enough trials it is the proposal that is
farthest from all earlier ones, so that few trials show much. Trials that are still running count as
if they had ended as predicted, so that trials at the same time differ.

:class:`ImprovementScreening` is for one objective,
:class:`~tfnas.nas.surrogate.hypervolume_screening.WeightedScreening` for several.

References:
    Ginsbourger et al., "Kriging Is Well-Suited to Parallelize Optimization", 2010 (running trials).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tfnas.nas.objectives import Objectives
from tfnas.nas.search_state import SearchState
from tfnas.nas.surrogate.ensemble import (
    MIN_RECORDS,
    FittedExamples,
    SurrogateEnsemble,
)
from tfnas.nas.surrogate.ensemble_screening import EnsembleScreening
from tfnas.nas.surrogate.gaussian_process import Surrogate, log_expected_improvement
from tfnas.nas.surrogate.hypervolume_screening import WeightedScreening
from tfnas.nas.surrogate.screening_interface import (
    FirstProposal,
    Screening,
    first_best,
    fitted_records,
    penalized,
)
from tfnas.nas.trial_records import Proposal, TrialRecord

__all__ = [
    "MIN_RECORDS",
    "FirstProposal",
    "ImprovementScreening",
    "Screening",
    "WeightedScreening",
    "default_screening",
]

_TRUSTED_FRACTION = 0.25  # fraction of a residual that is attributed to the architecture, not noise


class ImprovementScreening(EnsembleScreening):
    """Chooses the largest expected improvement of the first objective.

    Args are those of :class:`~tfnas.nas.surrogate.ensemble_screening.EnsembleScreening`.
    """

    def forget(self) -> None:
        """Drops the surrogates and their settings."""
        super().forget()
        self._ensemble = SurrogateEnsemble(self.members)
        self._ready: tuple[tuple[int, int], Surrogate | None, float] = ((-1, -1), None, 0.0)

    def best_of(
        self, search: SearchState, proposals: Sequence[Proposal], rng: np.random.Generator
    ) -> Proposal:
        """Returns the proposal of the largest expected improvement."""
        turn = len(search.learning_records), search.num_started
        if self._ready[0] != turn:
            fitted = self._surrogate(search, search.num_started)
            if search.pending:
                fitted = fitted.believing(self.running(search))
            self._ready = (turn, fitted, float(fitted.fitted_means().max()))
        _, surrogate, best = self._ready
        assert surrogate is not None
        mean, deviation = surrogate.predict(self.offered(search, proposals))
        return proposals[first_best(log_expected_improvement(mean, deviation, best))]

    def means(self, search: SearchState, queries: Sequence[TrialRecord]) -> np.ndarray | None:
        """Returns the predictions of the surrogate whose turn it is; None: too few records."""
        if len(search.learning_records) < MIN_RECORDS:
            return None
        return self._surrogate(search, search.num_started).means(self.matrix(search, queries))

    def estimates(self, search: SearchState, queries: Sequence[TrialRecord]) -> np.ndarray | None:
        """Returns values between the measurements and the predictions of all surrogates.

        The difference between both is either noise or a property of the architecture that the
        surrogates don't know. One measurement can't tell them apart, so a quarter of it counts.
        """
        records = search.learning_records
        if len(records) < MIN_RECORDS:
            return None
        matrix, total = self.matrix(search, records), np.zeros(len(records))
        for turn, member in enumerate(self.members):
            means = self._surrogate(search, turn).means(matrix)
            measured = member.scale(penalized(records))
            believed = means + _TRUSTED_FRACTION * (measured - means)
            total += believed / (float(np.std(believed)) or 1.0)
        found = dict(zip((record.trial_id for record in records), total, strict=True))
        if not all(query.trial_id in found for query in queries):
            return None
        return np.array([found[query.trial_id] for query in queries])

    def rank_correlation(self, search: SearchState) -> float | None:
        """Returns Spearman's rank correlation; each trial is predicted from all others.

        The predictions are the sum of those of all surrogates.
        """
        from scipy.stats import spearmanr

        count = len(search.learning_records)
        if count < MIN_RECORDS:
            return None
        measured = penalized(fitted_records(search.learning_records))
        left = sum(self._surrogate(search, turn).left_out() for turn in range(len(self.members)))
        if np.ptp(measured) == 0 or np.ptp(left) == 0:
            return 0.0
        return float(spearmanr(measured, left).statistic)

    def _surrogate(self, search: SearchState, turn: int) -> Surrogate:
        self.features(search, search.learning_records[0].architecture)

        def examples(count: int) -> FittedExamples:
            records = fitted_records(search.learning_records[:count])
            matrix = self.matrix(search, records)
            assert self._features is not None
            return FittedExamples(matrix, penalized(records), self._features.groups)

        return self._ensemble.member(turn, len(search.learning_records), examples)


def default_screening(
    objectives: Objectives, children: int, warmup: int = MIN_RECORDS
) -> Screening:
    """Returns the surrogate of a search.

    Args:
        objectives: Its objectives.
        children: Number of proposals to choose from; 1: no surrogate.
        warmup: Number of trials at the start that are chosen by their distances alone.
    """
    if children == 1:
        return FirstProposal()
    kind = ImprovementScreening if len(objectives.names) == 1 else WeightedScreening
    return kind(children, warmup=warmup)
