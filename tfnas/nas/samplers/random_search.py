"""Random search, the baseline of the other algorithms."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from tfnas.nas.objectives import ObjectiveLike
from tfnas.nas.oracle import SpaceOracle
from tfnas.nas.trial_records import Proposal
from tfnas.nas.tuner import MeasuredTuner, oracle_arguments
from tfnas.search_space.search_space import SearchSpace


class RandomOracle(SpaceOracle):
    """Proposes random architectures, each at most once.

    Args:
        space: The search space; None: the hyperparameters that keras_tuner's hypermodel declares.
        objective: As in keras_tuner; several are compared by Pareto dominance.
        max_trials: Number of trials.
        seed: Seed of all proposals.
        limits: Metric -> bound to keep.
        **kwargs: Further arguments of keras_tuner's Oracle.

    Raises:
        ValueError: An argument is outside its rule; the message names it.
    """

    def __init__(
        self,
        space: SearchSpace | None = None,
        objective: ObjectiveLike = None,
        max_trials: int | None = 20,
        seed: int | None = None,
        limits: Mapping[str, float] | None = None,
        **kwargs: Any,
    ):
        super().__init__(space, objective, max_trials, seed, limits, **kwargs)

    def propose(self, rng: np.random.Generator) -> Proposal:
        """Returns a random architecture."""
        return Proposal(self.space.sample(rng))


class RandomTuner(MeasuredTuner):
    """Searches for small, fast and accurate `.tflite` files by random search.

    Example:
        >>> import tfnas
        >>> space = tfnas.MobileNetV2Space((8, 8, 1), 10, "microcontroller")
        >>> tuner = tfnas.RandomTuner(space, max_trials=8, directory="runs",
        ...                           project_name="random", seed=0)

    Args:
        hypermodel: As for :class:`tfnas.EvolutionTuner`.
        objective: As for :class:`tfnas.EvolutionTuner`.
        max_trials: Number of trials.
        seed: Seed of proposals and trainings.
        **kwargs: As for :class:`tfnas.EvolutionTuner`.

    Raises:
        ValueError: An argument is outside its rule; the message names it.
    """

    def __init__(
        self,
        hypermodel: Any = None,
        objective: ObjectiveLike = None,
        max_trials: int = 20,
        seed: int | None = None,
        **kwargs: Any,
    ):
        oracle = RandomOracle(
            max_trials=max_trials, seed=seed, **oracle_arguments(hypermodel, objective, kwargs)
        )
        super().__init__(oracle, hypermodel, **kwargs)
