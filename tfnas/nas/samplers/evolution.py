"""Evolutionary search: aging evolution with one objective, NSGA-II with several."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from tfnas.nas.objectives import ObjectiveLike
from tfnas.nas.samplers.pareto_selection import tournament
from tfnas.nas.surrogate.screening import ScreenedOracle
from tfnas.nas.trial_records import Proposal, TrialRecord, ranked
from tfnas.nas.tuner import MeasuredTuner, oracle_arguments
from tfnas.runtime.argument_rules import check_count
from tfnas.search_space.search_space import SearchSpace

_MORE_MUTATIONS = 0.5  # probability of each further mutation of a child if there is a surrogate


class EvolutionOracle(ScreenedOracle):
    """Aging evolution ("regularized evolution", algorithm 1 of the paper), or NSGA-II.

    The first `population_size` trials are random. Later, with one objective, the population is the
    last `population_size` trials that ended well; with several it is the best of all trials
    by Pareto front and crowding distance. The winner of a tournament of `tournament_size` random
    members is mutated, with the probability `crossover` after a crossover with the winner of
    another tournament. A surrogate chooses among `children` children generated in this way.

    Args:
        space: The search space; None: the hyperparameters that keras_tuner's hypermodel declares.
        objective: As in keras_tuner; of several the Pareto front is searched for.
        max_trials: Number of trials.
        seed: Seed of all proposals.
        population_size: P of the paper, at least 1.
        tournament_size: S of the paper, from 1 to `population_size`.
        children: Number of children that the surrogate chooses from; 1: no surrogate.
        crossover: Probability of a crossover; None: 0.5 with several objectives, else 0.
        limits: Metric -> bound to keep.
        **kwargs: Further arguments of keras_tuner's Oracle.

    Raises:
        ValueError: An argument is outside its rule; the message names it.

    References:
        Real et al., "Regularized Evolution for Image Classifier Architecture Search",
        AAAI 2019. Deb et al., "NSGA-II", 2002. Sun et al., "Surrogate-Assisted Evolutionary
        Deep Learning Using an End-to-End Random Forest-based Performance Predictor", 2020
        (screening of children).
    """

    def __init__(
        self,
        space: SearchSpace | None = None,
        objective: ObjectiveLike = None,
        max_trials: int | None = 20,
        seed: int | None = None,
        population_size: int = 16,
        tournament_size: int = 8,
        children: int = 24,
        crossover: float | None = None,
        limits: Mapping[str, float] | None = None,
        **kwargs: Any,
    ):
        check_count("population_size", population_size, 1)
        if not isinstance(tournament_size, int) or not 1 <= tournament_size <= population_size:
            raise ValueError(
                f"tournament_size must be from 1 to population_size ({population_size}), "
                f"got {tournament_size!r}"
            )
        if crossover is not None and not 0.0 <= crossover <= 1.0:
            raise ValueError(f"crossover must be in [0, 1], got {crossover!r}")
        super().__init__(
            space,
            objective,
            max_trials,
            seed,
            limits,
            children=children,
            num_initial=population_size,
            **kwargs,
        )
        self.population_size = population_size
        self.tournament_size = tournament_size
        several = len(self.objectives.names) > 1
        self.crossover = crossover if crossover is not None else 0.5 * several
        self.population: list[TrialRecord] = []
        self._ranked: tuple[int, np.ndarray] = (-1, np.zeros(0, int))

    def learn(self, record: TrialRecord) -> None:
        """Adds a record and removes the oldest one (with several objectives the worst one)."""
        self.population.append(record)
        if len(self.objectives.names) == 1:
            self.population = self.population[-self.population_size :]
        elif len(self.population) > self.population_size:
            survivors = set(ranked(self.population)[: self.population_size].tolist())
            self.population = [e for i, e in enumerate(self.population) if i in survivors]

    def forget(self) -> None:
        """Empties the population, whose records are of a lower rung."""
        super().forget()
        self.population, self._ranked = [], (-1, np.zeros(0, int))

    def propose(self, rng: np.random.Generator) -> Proposal:
        """Returns a random architecture in the initial trials, then a child of good ones."""
        if self.num_started < self.population_size or not self.population:
            return Proposal(self.space.sample(rng))
        parent = self._parent(rng)
        arch = parent.architecture
        if self.crossover and rng.random() < self.crossover:
            arch = self.space.crossover(arch, self._parent(rng).architecture, rng)
            if arch.network != parent.architecture.network:
                return Proposal(self._mutate(arch, rng, at_least_once=False), parent.trial_id)
        return Proposal(self._mutate(arch, rng, at_least_once=True), parent.trial_id)

    def _mutate(self, arch: Any, rng: np.random.Generator, at_least_once: bool) -> Any:
        """One mutation, and perhaps more if there is a surrogate."""
        if at_least_once:
            arch = self.space.mutate(arch, rng)
        while self.children > 1 and rng.random() < _MORE_MUTATIONS:
            arch = self.space.mutate(arch, rng)
        return arch

    def _parent(self, rng: np.random.Generator) -> TrialRecord:
        """The winner of a tournament, by the surrogate's predictions if there is one."""
        if self._ranked[0] != len(self.learning_records):
            self._ranked = (len(self.learning_records), self._ranking())
        return self.population[tournament(self._ranked[1], self.tournament_size, rng)]

    def _ranking(self) -> np.ndarray:
        if not self.has_surrogate:
            return ranked(self.population)
        means = self.screening.means(self.learning_records, self.population)
        return np.lexsort((-means, np.array([record.violation for record in self.population])))


class EvolutionTuner(MeasuredTuner):
    """Searches for small, fast and accurate `.tflite` files by evolution.

    Example:
        >>> import tfnas
        >>> split = tfnas.data.load("digits")
        >>> space = tfnas.MobileNetV2Space(split.input_shape, 10, "microcontroller")
        >>> tuner = tfnas.EvolutionTuner(space, ["file_accuracy", "latency_ratio"],
        ...                              max_trials=8, directory="runs", seed=0)
        >>> tuner.search(  # doctest: +SKIP
        ...     split.x_train, split.y_train, epochs=3,
        ...     validation_data=(split.x_val, split.y_val))
        >>> front = tuner.pareto_front()

    Args:
        hypermodel: A search space such as :class:`tfnas.MobileNetV2Space`, its
            `hypermodel(optimizer=..., loss=...)`, or any keras_tuner HyperModel or
            model-building function.
        objective: "reward" (the default of a search space: accuracy x
            (latency/target)^exponent, measured on the file), or any metric of a trial
            ("file_accuracy", "latency_ratio", "size_bytes", "val_accuracy" and so on), as in
            keras_tuner; of a list the Pareto front is searched for.
        max_trials: Number of trials.
        seed: Seed of proposals and trainings.
        population_size: P of the paper.
        tournament_size: S of the paper.
        children: Number of children that a surrogate chooses from; 1: no surrogate.
        crossover: Probability of a crossover; None: 0.5 with several objectives, else 0.
        **kwargs: `limits`; `halving=3` (and `min_epochs`): trials start with few epochs, and the
            best third is trained longer (:mod:`tfnas.nas.successive_halving`); `mode`,
            `target_latency_ms` (or `target_latency_ratio`), `latency_exponent`, `threads`,
            `rounds`, `executor` and other arguments of
            :class:`~tfnas.nas.tuner.MeasuredTuner`; arguments of keras_tuner's Oracle
            (`hyperparameters`, `max_retries_per_trial`, ...) and of its Tuner (`directory`,
            `project_name`, `overwrite`, `executions_per_trial`, ...).

    Raises:
        ValueError: An argument is outside its rule; the message names it.

    References:
        Real et al., "Regularized Evolution for Image Classifier Architecture Search",
        AAAI 2019; Deb et al., "NSGA-II", 2002; Tan et al., "MnasNet", CVPR 2019.
    """

    def __init__(
        self,
        hypermodel: Any = None,
        objective: ObjectiveLike = None,
        max_trials: int = 20,
        seed: int | None = None,
        population_size: int = 16,
        tournament_size: int = 8,
        children: int = 24,
        crossover: float | None = None,
        **kwargs: Any,
    ):
        oracle = EvolutionOracle(
            max_trials=max_trials,
            seed=seed,
            population_size=population_size,
            tournament_size=tournament_size,
            children=children,
            crossover=crossover,
            **oracle_arguments(hypermodel, objective, kwargs),
        )
        super().__init__(oracle, hypermodel, **kwargs)
