"""Random search: the yardstick."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from tfnas.nas.oracle import SpaceOracle
from tfnas.nas.trial_records import Proposal
from tfnas.nas.tuner import MeasuredTuner, oracle_arguments
from tfnas.search_space.search_space import SearchSpace


class RandomOracle(SpaceOracle):
    """Proposes random points, none twice.

    Args:
        space: The search space; None: what keras_tuner's hypermodel declares.
        objective: As keras_tuner takes it; several are compared by Pareto dominance.
        max_trials: Number of trials.
        seed: Seed of all proposals.
        limits: Metric -> bound that must be kept.
        **kwargs: keras_tuner's further arguments of an Oracle.

    Raises:
        ValueError: An argument is outside its rule; the message names it.
    """

    def __init__(
        self,
        space: SearchSpace | None = None,
        objective: Any = None,
        max_trials: int | None = 20,
        seed: int | None = None,
        limits: Mapping[str, float] | None = None,
        **kwargs: Any,
    ):
        super().__init__(space, objective, max_trials, seed, limits, **kwargs)

    def propose(self, rng: np.random.Generator) -> Proposal:
        """Returns a random arch."""
        return Proposal(self.space.sample(rng))


class RandomTuner(MeasuredTuner):
    """Tries random architectures, measured as the other tuners measure theirs.

    Example:
        >>> import tfnas
        >>> space = tfnas.MobileNetV2Space((8, 8, 1), 10, "microcontroller")
        >>> tuner = tfnas.RandomTuner(space, max_trials=8, directory="runs",
        ...                           project_name="random", seed=0)

    Args:
        hypermodel: As for :class:`tfnas.EvolutionTuner`, as all others.
        objective: What is searched for.
        max_trials: Number of trials.
        seed: Seed of proposals and trainings.
        **kwargs: As for :class:`tfnas.EvolutionTuner`.

    Raises:
        ValueError: An argument is outside its rule; the message names it.
    """

    def __init__(
        self,
        hypermodel: Any = None,
        objective: Any = None,
        max_trials: int = 20,
        seed: int | None = None,
        **kwargs: Any,
    ):
        oracle = RandomOracle(
            max_trials=max_trials, seed=seed, **oracle_arguments(hypermodel, objective, kwargs)
        )
        super().__init__(oracle, hypermodel, **kwargs)
