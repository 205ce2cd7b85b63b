"""Evolution: keep the youngest (or, with several objectives, the front), breed the best."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from tfnas.nas.samplers.pareto_selection import tournament
from tfnas.nas.surrogate.screening import ScreenedOracle
from tfnas.nas.trial_records import Proposal, TrialRecord, ranked
from tfnas.nas.tuner import MeasuredTuner, oracle_arguments
from tfnas.runtime.argument_rules import check_count
from tfnas.search_space.search_space import SearchSpace

_MORE_CHANGES = 0.5  # chance that one more decision of a screened child changes


class EvolutionOracle(ScreenedOracle):
    """Aging evolution ("regularized evolution", algorithm 1 of the paper), or NSGA-II.

    The first `population_size` trials are random. After that, with one objective, the
    population is the last `population_size` trials that ended well; with several it is the
    best of all so far by Pareto front and crowding. The best of `tournament_size` members,
    drawn at random, is mutated, with the chance `crossover` after a crossover with
    another such. Of `children` bred in this way a surrogate picks the one to try.

    Args:
        space: The search space; None: what keras_tuner's hypermodel declares.
        objective: As keras_tuner takes it; several are searched for their Pareto front.
        max_trials: Number of trials.
        seed: Seed of all proposals.
        population_size: P of the paper, at least 1.
        tournament_size: S of the paper, from 1 to `population_size`.
        children: Children that a surrogate picks one of; 1: no surrogate.
        crossover: Chance of a crossover; None: 0.5 with several objectives, else 0.
        limits: Metric -> bound that must be kept.
        **kwargs: keras_tuner's further arguments of an Oracle.

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
        objective: Any = None,
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
        """Lets the oldest die, or with several objectives the worst."""
        self.population.append(record)
        if len(self.objectives.names) == 1:
            self.population = self.population[-self.population_size :]
        elif len(self.population) > self.population_size:
            kept = set(ranked(self.population)[: self.population_size].tolist())
            self.population = [e for i, e in enumerate(self.population) if i in kept]

    def forget(self) -> None:
        """The population is of the new rung alone."""
        super().forget()
        self.population, self._ranked = [], (-1, np.zeros(0, int))

    def propose(self, rng: np.random.Generator) -> Proposal:
        """Returns a random arch at first, then a child of good ones."""
        if self.num_started < self.population_size or not self.population:
            return Proposal(self.space.sample(rng))
        parent = self._parent(rng)
        arch = parent.architecture
        if self.crossover and rng.random() < self.crossover:
            arch = self.space.crossover(arch, self._parent(rng).architecture, rng)
            if arch.network != parent.architecture.network:
                return Proposal(self._mutated(arch, rng, once=False), parent.trial_id)
        return Proposal(self._mutated(arch, rng, once=True), parent.trial_id)

    def _mutated(self, arch: Any, rng: np.random.Generator, once: bool) -> Any:
        """One change, and where a surrogate chooses perhaps more."""
        if once:
            arch = self.space.mutate(arch, rng)
        while self.children > 1 and rng.random() < _MORE_CHANGES:
            arch = self.space.mutate(arch, rng)
        return arch

    def _parent(self, rng: np.random.Generator) -> TrialRecord:
        """The best of a tournament; as the surrogate sees them where there is one."""
        if self._ranked[0] != len(self.learning_records):
            self._ranked = (len(self.learning_records), self._ranking())
        return self.population[tournament(self._ranked[1], self.tournament_size, rng)]

    def _ranking(self) -> np.ndarray:
        if not self.has_surrogate:
            return ranked(self.population)
        means = self.screening.means(self.learning_records, self.population)
        return np.lexsort((-means, np.array([record.violation for record in self.population])))


class EvolutionTuner(MeasuredTuner):
    """Searches by evolution for small, fast, accurate `.tflite` files.

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
        objective: "reward" (the default for a space: accuracy x
            (latency/target)^exponent, measured on the file), or anything that a trial
            reports: "file_accuracy", "latency_ratio", "size_bytes", "val_accuracy" and so
            on, as keras_tuner takes objectives; a list: their Pareto front.
        max_trials: Number of trials.
        seed: Seed of proposals and trainings.
        population_size: P of the paper.
        tournament_size: S of the paper.
        children: Children that a surrogate picks one of; 1: no surrogate.
        crossover: Chance of a crossover; None: 0.5 with several objectives, else 0.
        **kwargs: `limits`; `halving=3` (and `min_epochs`): trials begin with few epochs, the
            best third goes on (:mod:`tfnas.nas.successive_halving`); `mode`, `target_latency_ms`
            (or `target_latency_ratio`), `latency_exponent`, `threads`, `rounds`, `executor` and
            so on of :class:`~tfnas.nas.tuner.MeasuredTuner`; keras_tuner's arguments of an
            Oracle (`hyperparameters`, `max_retries_per_trial`, ...) and of a Tuner (`directory`,
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
        objective: Any = None,
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
