"""The surrogate of several objectives: what a proposal adds to the hypervolume of the Pareto front.

Each objective has surrogates of its own. The hypervolume is the mean, over random directions from
the reference point, of how far the front reaches in a direction (to the power of the number of
objectives). So the expected gain of a proposal is a mean over directions and over draws of its
predicted objectives, for any number of objectives.

References:
    Zhang and Golovin, "Random Hypervolume Scalarizations for Provable Multi-Objective Black Box
    Optimization", ICML 2020.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tfnas.nas.search_state import SearchState
from tfnas.nas.surrogate.ensemble import (
    FittedExamples,
    SurrogateEnsemble,
)
from tfnas.nas.surrogate.ensemble_screening import EnsembleScreening
from tfnas.nas.surrogate.gaussian_process import Surrogate
from tfnas.nas.surrogate.screening_interface import (
    first_best,
    fitted_records,
    penalized,
)
from tfnas.nas.trial_records import Proposal

_DRAWS = 16  # of the predicted objectives
_DIRECTIONS = 64
_WORST = 0.1  # quantile of the objectives that the reference point is below
_BELOW = 0.2  # how far, as a fraction of the distance to the best


class WeightedScreening(EnsembleScreening):
    """Chooses the largest expected gain of hypervolume of several objectives.

    Args are those of :class:`~tfnas.nas.surrogate.ensemble_screening.EnsembleScreening`.
    """

    def forget(self) -> None:
        """Drops the surrogates and their settings."""
        super().forget()
        self._ensembles: list[SurrogateEnsemble] = []
        self._ready: tuple[tuple[int, int], _Gain | None] = ((-1, -1), None)

    def best_of(
        self, search: SearchState, proposals: Sequence[Proposal], rng: np.random.Generator
    ) -> Proposal:
        """Returns the proposal of the largest gain; `rng` draws directions and objectives."""
        turn = len(search.learning_records), search.num_started
        if self._ready[0] != turn:
            self._ready = (turn, _Gain(self._surrogates(search), rng))
        gain = self._ready[1]
        assert gain is not None
        return proposals[first_best(gain(self.offered(search, proposals)))]

    def _surrogates(self, search: SearchState) -> list[Surrogate]:
        """The surrogate of each objective whose turn it is."""
        records = search.learning_records
        count = len(records[0].losses)
        if not self._ensembles:
            self._ensembles = [SurrogateEnsemble(self.members) for _ in range(count)]
        found = []
        for objective, ensemble in enumerate(self._ensembles):

            def examples(size: int, objective: int = objective) -> FittedExamples:
                chosen = fitted_records(records[:size])
                matrix = self.matrix(search, chosen)
                assert self._features is not None
                return FittedExamples(matrix, penalized(chosen, objective), self._features.groups)

            found.append(ensemble.member(search.num_started, len(records), examples))
        if search.pending:
            pending = self.running(search)
            found = [surrogate.believing(pending) for surrogate in found]
        return found


class _Gain:
    """The expected gain of hypervolume, for fixed directions and draws."""

    def __init__(self, surrogates: Sequence[Surrogate], rng: np.random.Generator) -> None:
        self._surrogates = surrogates
        means = np.stack([surrogate.fitted_means() for surrogate in surrogates], 1)
        worst, best = np.quantile(means, _WORST, axis=0), means.max(0)
        self._reference = worst - _BELOW * (best - worst)
        self._span = np.maximum(best - self._reference, 1e-12)
        directions = np.abs(rng.normal(size=(_DIRECTIONS, len(surrogates)))) + 1e-9
        self._directions = directions / np.linalg.norm(directions, axis=1, keepdims=True)
        self._draws = rng.normal(size=(_DRAWS, len(surrogates)))
        self._reached = self._reach(means).max(0)

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Returns the gains of features, (m,)."""
        predicted = [surrogate.predict(x) for surrogate in self._surrogates]
        means, deviations = (np.stack(parts, 1) for parts in zip(*predicted, strict=True))
        drawn = means[None] + deviations[None] * self._draws[:, None]
        reach = self._reach(drawn.reshape(-1, means.shape[1])).reshape(_DRAWS, len(means), -1)
        gains = np.maximum(reach - self._reached, 0.0).mean((0, 2))
        return gains + 1e-9 * ((means - self._reference) / self._span).sum(1)

    def _reach(self, values: np.ndarray) -> np.ndarray:
        """How far values reach in each direction, (n, directions)."""
        heights = np.maximum(values - self._reference, 0.0) / self._span
        reach: np.ndarray = (heights[:, None] / self._directions[None]).min(-1)
        return reach ** values.shape[1]
