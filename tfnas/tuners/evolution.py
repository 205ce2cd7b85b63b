"""Aging evolution: keep the youngest, breed the best of a few."""

from __future__ import annotations

from typing import Any

import keras_tuner as kt
import numpy as np

from tfnas.architecture import Architecture
from tfnas.spaces.hypermodel import SpaceHyperModel
from tfnas.spaces.space import SearchSpace
from tfnas.tuners.oracle import SpaceOracle
from tfnas.tuners.tuner import REWARD, MeasuredTuner, as_hypermodel


class EvolutionOracle(SpaceOracle):
    """Aging evolution ("regularized evolution"), algorithm 1 of the paper.

    The first `population_size` trials are random. After that the population is the last
    `population_size` trials that ended well; the best of `tournament_size` of them,
    drawn at random, is mutated.

    Args:
        space: The search space.
        objective: As keras_tuner takes it, but a single one.
        max_trials: Number of trials.
        seed: Seed of all proposals.
        population_size: P of the paper, at least 1.
        tournament_size: S of the paper, from 1 to `population_size`.
        **kwargs: keras_tuner's further arguments of an Oracle.

    Raises:
        ValueError: An argument is outside its rule; the message names it.

    References:
        Real et al., "Regularized Evolution for Image Classifier Architecture Search",
        AAAI 2019.
    """

    def __init__(
        self,
        space: SearchSpace,
        objective: Any = None,
        max_trials: int | None = 20,
        seed: int | None = None,
        population_size: int = 8,
        tournament_size: int = 3,
        **kwargs: Any,
    ):
        if not isinstance(population_size, int) or population_size < 1:
            raise ValueError(
                f"population_size must be a whole number >= 1, got {population_size!r}"
            )
        if not isinstance(tournament_size, int) or not 1 <= tournament_size <= population_size:
            raise ValueError(
                f"tournament_size must be from 1 to population_size ({population_size}), "
                f"got {tournament_size!r}"
            )
        super().__init__(space, objective, max_trials, seed, **kwargs)
        self.population_size = population_size
        self.tournament_size = tournament_size

    def propose(self, rng: np.random.Generator) -> Architecture:
        """Returns a random architecture at first, then a mutation of a good one."""
        population = self.completed()[-self.population_size :]
        if len(self.trials) < self.population_size or not population:
            return self.space.sample(rng)
        size = min(self.tournament_size, len(population))
        drawn = [population[i] for i in rng.choice(len(population), size, replace=False)]
        best = max if self.objective.direction == "max" else min
        return self.space.mutate(self.architecture(best(drawn, key=lambda t: t.score)), rng)


class EvolutionTuner(MeasuredTuner):
    """Searches by aging evolution for small, fast, accurate `.tflite` files.

    Example:
        >>> import tfnas
        >>> split = tfnas.data.load("digits")
        >>> space = tfnas.MobileNetV2Space(split.input_shape, 10, "microcontroller")
        >>> tuner = tfnas.EvolutionTuner(space, max_trials=8, directory="runs", seed=0)
        >>> tuner.search(  # doctest: +SKIP
        ...     split.x_train, split.y_train, epochs=3,
        ...     validation_data=(split.x_val, split.y_val))
        >>> front = tuner.pareto_front()

    Args:
        hypermodel: A search space such as :class:`tfnas.MobileNetV2Space`, or its
            `hypermodel(optimizer=..., loss=...)`.
        objective: "reward" (the default: accuracy x (latency/target)^exponent, measured
            on the file), or anything that a trial reports: "file_accuracy",
            "latency_ratio", "size_bytes", "val_accuracy" and so on, as keras_tuner
            takes objectives.
        max_trials: Number of trials.
        seed: Seed of proposals and trainings.
        population_size: P of the paper.
        tournament_size: S of the paper.
        hyperparameters: As for keras_tuner.
        tune_new_entries: As for keras_tuner.
        allow_new_entries: As for keras_tuner.
        max_retries_per_trial: As for keras_tuner.
        max_consecutive_failed_trials: As for keras_tuner.
        **kwargs: `mode`, `target_latency_ms` (or `target_latency_ratio`),
            `latency_exponent`, `threads` and `rounds` of :class:`MeasuredTuner`;
            `directory`, `project_name`, `overwrite`, `optimizer`, `loss`, `metrics`,
            `executions_per_trial`, `max_model_size` and so on of `keras_tuner.Tuner`.

    Raises:
        ValueError: An argument is outside its rule; the message names it.

    References:
        Real et al., "Regularized Evolution for Image Classifier Architecture Search",
        AAAI 2019; Tan et al., "MnasNet", CVPR 2019.
    """

    def __init__(
        self,
        hypermodel: SearchSpace | SpaceHyperModel,
        objective: Any = None,
        max_trials: int = 20,
        seed: int | None = None,
        population_size: int = 8,
        tournament_size: int = 3,
        hyperparameters: kt.HyperParameters | None = None,
        tune_new_entries: bool = True,
        allow_new_entries: bool = True,
        max_retries_per_trial: int = 0,
        max_consecutive_failed_trials: int = 3,
        **kwargs: Any,
    ):
        hypermodel = as_hypermodel(hypermodel)
        oracle = EvolutionOracle(
            hypermodel.space,
            objective=_directed(objective),
            max_trials=max_trials,
            seed=seed,
            population_size=population_size,
            tournament_size=tournament_size,
            hyperparameters=hyperparameters,
            tune_new_entries=tune_new_entries,
            allow_new_entries=allow_new_entries,
            max_retries_per_trial=max_retries_per_trial,
            max_consecutive_failed_trials=max_consecutive_failed_trials,
        )
        super().__init__(oracle, hypermodel, **kwargs)


_DIRECTIONS = {
    REWARD: "max",
    "file_accuracy": "max",
    **dict.fromkeys(
        ("latency_ratio", "latency_ms", "size_bytes", "gzip_bytes", "macs", "parameters"), "min"
    ),
}


def _directed(objective: Any) -> Any:
    """Our own metrics know their direction; keras_tuner knows the others'."""
    objective = REWARD if objective is None else objective
    if isinstance(objective, str) and objective in _DIRECTIONS:
        return kt.Objective(objective, _DIRECTIONS[objective])
    return objective
