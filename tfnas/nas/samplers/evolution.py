"""Evolutionary search: aging evolution with one objective, NSGA-II with several."""

from __future__ import annotations

import dataclasses

import numpy as np

from tfnas.nas.objectives import Objectives
from tfnas.nas.samplers.population import (
    AgingSurvival,
    BestSelection,
    EveryoneSurvival,
    ParetoSurvival,
    Selection,
    Survival,
    TournamentSelection,
)
from tfnas.nas.samplers.sampler import Sampler
from tfnas.nas.samplers.variation import Crossover, DecisionMutation, GroupCrossover, Mutation
from tfnas.nas.search_state import SearchState
from tfnas.nas.surrogate.screening import MIN_RECORDS, Screening, default_screening
from tfnas.nas.trial_records import Proposal, TrialRecord, ranked
from tfnas.runtime.argument_rules import check_count

_FURTHER = 0.5  # probability of each further mutation of a child if there is a surrogate
_WARMUP = 8  # random trials at the start if there is a surrogate
_INITIAL = 24  # random proposals of which the farthest is tried, in the warm-up
_REFINEMENTS = 2  # times that a surrogate's choice is repeated among proposals near it


@dataclasses.dataclass(kw_only=True, eq=False)
class EvolutionSampler(Sampler):
    """Evolution with a surrogate, aging evolution, or NSGA-II.

    By default a surrogate chooses each trial among `children` proposals: children of the trials
    that it predicts to be the best. Children of the chosen one follow, as long as one of them is
    better.

    With `children=1` there is no surrogate. With one objective that is aging evolution
    ("regularized evolution", algorithm 1 of the paper): the population is the last trials that
    ended well, and the winner of a tournament is mutated. With several it is NSGA-II: the
    population is the best ones by Pareto front and crowding distance.

    Example:
        >>> import tfnas
        >>> sampler = tfnas.EvolutionSampler(population_size=8, tournament_size=3, children=1)
        >>> space = tfnas.MobileNetV2Space((8, 8, 1), 10, "microcontroller")
        >>> tuner = tfnas.EvolutionTuner(space, sampler=sampler, directory="runs", seed=0)
        >>> tuner.oracle.sampler.survival
        AgingSurvival()

    Args:
        population_size: P of the paper, at least 1.
        tournament_size: S of the paper, from 1 to `population_size`.
        children: Number of proposals that the surrogate chooses from; 1: no surrogate.
        warmup: Number of random trials at the start; None: `population_size`, with a surrogate 8
            at most.
        fresh: Fraction of the surrogate's proposals that are random, in [0, 1].
        selection: Chooses a parent; None: :class:`TournamentSelection` of `tournament_size`, with
            a surrogate of one objective :class:`BestSelection`.
        survival: Chooses who stays in the population; None: :class:`AgingSurvival` with one
            objective, with a surrogate of it :class:`EveryoneSurvival`, :class:`ParetoSurvival`
            with several.
        mutation: Changes a child; None: :class:`DecisionMutation`, with a surrogate of
            sometimes more than one decision.
        crossover: Mixes two parents; None: :class:`GroupCrossover`, with the probability 0.5 with
            several objectives, else 0.
        surrogate: Chooses among the proposals; None: expected improvement of Gaussian processes
            that take turns, with several objectives of the hypervolume.

    Raises:
        ValueError: An argument is outside its rule; the message names it.

    References:
        Real et al., "Regularized Evolution for Image Classifier Architecture Search",
        AAAI 2019. Deb et al., "NSGA-II", 2002. Sun et al., "Surrogate-Assisted Evolutionary
        Deep Learning Using an End-to-End Random Forest-based Performance Predictor", 2020
        (screening of children).
    """

    population_size: int = 16
    tournament_size: int = 8
    children: int = 64
    warmup: int | None = None
    fresh: float = 0.0
    selection: Selection | None = None
    survival: Survival | None = None
    mutation: Mutation | None = None
    crossover: Crossover | None = None
    surrogate: Screening | None = None

    def __post_init__(self) -> None:
        check_count("population_size", self.population_size, 1)
        size, largest = self.tournament_size, self.population_size
        if not isinstance(size, int) or not 1 <= size <= largest:
            raise ValueError(
                f"tournament_size must be from 1 to population_size ({largest}), got {size!r}"
            )
        check_count("children", self.children, 1)
        check_count("warmup", self.warmup, 1, optional=True)
        if not 0 <= self.fresh <= 1:
            raise ValueError(f"fresh must be in [0, 1], got {self.fresh!r}")
        surrogate = self.surrogate is not None or self.children > 1
        warmup = min(self.population_size, _WARMUP) if surrogate else self.population_size
        self.num_initial = warmup if self.warmup is None else self.warmup
        self.min_records = max(self.num_initial, MIN_RECORDS)
        self.population: list[TrialRecord] = []
        self._ranked: tuple[int, np.ndarray] = (-1, np.zeros(0, int))

    def begin(self, objectives: Objectives) -> None:
        """Fills in the parts that were not passed in.

        Example:
            >>> from tfnas.nas.objectives import Objectives, objective_of
            >>> sampler = EvolutionSampler()
            >>> sampler.begin(Objectives.of(objective_of(["file_accuracy", "size_bytes"])))
            >>> sampler.survival, sampler.crossover
            (ParetoSurvival(), GroupCrossover(probability=0.5))

        Args:
            objectives: The objectives of the search.
        """
        several = len(objectives.names) > 1
        self.screening = self.surrogate or default_screening(
            objectives, self.children, self.num_initial
        )
        screened = self.screening.children > 1
        tournament = TournamentSelection(self.tournament_size)
        alone: Survival = EveryoneSurvival() if screened else AgingSurvival()
        best = BestSelection() if screened and not several else tournament
        self.selection = self.selection or best
        self.survival = self.survival or (ParetoSurvival() if several else alone)
        further = _FURTHER if screened else 0.0
        self.mutation = self.mutation or DecisionMutation(further)
        self.crossover = self.crossover or GroupCrossover(0.5 if several else 0.0)

    def learn(self, search: SearchState, record: TrialRecord) -> None:
        """Adds a record to the population, which then has its largest size at most.

        Example:
            >>> import numpy as np, tfnas
            >>> from tfnas.nas.oracle import SpaceOracle
            >>> from tfnas.nas.trial_records import TrialRecord
            >>> space = tfnas.MobileNetV2Space((8, 8, 1), 10, "microcontroller")
            >>> search = SpaceOracle(EvolutionSampler(), space, "reward", seed=0)
            >>> arch = space.sample(np.random.default_rng(0))
            >>> search.sampler.learn(search, TrialRecord("0", arch, 0.0, (-0.9,), parent=None))
            >>> len(search.sampler.population)
            1

        Args:
            search: The search so far.
            record: The newest record.
        """
        assert self.survival is not None
        self.population = self.survival.survivors([*self.population, record], self.population_size)

    def forget(self) -> None:
        """Empties the population, whose records are of a lower rung.

        Example:
            >>> sampler = EvolutionSampler()
            >>> sampler.forget()
            >>> sampler.population
            []
        """
        super().forget()
        self.population, self._ranked = [], (-1, np.zeros(0, int))

    def propose(self, search: SearchState, rng: np.random.Generator) -> Proposal:
        """Returns a random architecture in the initial trials, later mostly a child of good ones.

        Example:
            >>> import numpy as np, tfnas
            >>> from tfnas.nas.oracle import SpaceOracle
            >>> space = tfnas.MobileNetV2Space((8, 8, 1), 10, "microcontroller")
            >>> search = SpaceOracle(EvolutionSampler(), space, "reward", seed=0)
            >>> proposal = search.sampler.propose(search, np.random.default_rng(0))
            >>> proposal.architecture.input_shape, proposal.parent
            ((8, 8, 1), None)

        Args:
            search: The search so far.
            rng: NumPy's random generator.
        """
        if search.num_started < self.num_initial or not self.population:
            return Proposal(search.space.sample(rng))
        if self.screening.children > 1 and rng.random() < self.fresh:
            return Proposal(search.space.sample(rng))
        assert self.crossover is not None
        assert self.mutation is not None
        parent = self._parent(search, rng)
        arch, at_least = parent.architecture, 1
        if self.crossover.probability and rng.random() < self.crossover.probability:
            parents = arch, self._parent(search, rng).architecture
            arch = self.crossover.cross(search.space, parents, rng)
            at_least = int(arch.network == parent.architecture.network)
        child = self.mutation.mutate(search.space, arch, rng, at_least=at_least)
        return Proposal(child, parent.trial_id)

    def num_proposals(self, search: SearchState) -> int:
        """Returns the number of proposals to choose from; 1 in the first trial.

        Example:
            >>> import tfnas
            >>> from tfnas.nas.oracle import SpaceOracle
            >>> space = tfnas.MobileNetV2Space((8, 8, 1), 10, "microcontroller")
            >>> search = SpaceOracle(EvolutionSampler(), space, "reward", seed=0)
            >>> search.sampler.num_proposals(search)
            1

        Args:
            search: The search so far.
        """
        if search.num_started >= max(self.num_initial, 1):
            return self.screening.children
        chosen = search.num_started > 0 and self.screening.chooses_initial
        return min(self.screening.children, _INITIAL) if chosen else 1

    def num_refinements(self, search: SearchState) -> int:
        """Returns how often a choice is repeated among proposals near it; 0 in the warm-up.

        Example:
            >>> import tfnas
            >>> from tfnas.nas.oracle import SpaceOracle
            >>> space = tfnas.MobileNetV2Space((8, 8, 1), 10, "microcontroller")
            >>> search = SpaceOracle(EvolutionSampler(), space, "reward", seed=0)
            >>> search.sampler.num_refinements(search)
            0

        Args:
            search: The search so far.
        """
        is_warm = search.num_started >= self.num_initial and self.population
        return _REFINEMENTS if is_warm and self.screening.children > 1 else 0

    def _parent(self, search: SearchState, rng: np.random.Generator) -> TrialRecord:
        """The selected member, by the surrogate's predictions if there is one."""
        assert self.selection is not None
        count = len(search.learning_records)
        if self._ranked[0] != count:
            self._ranked = (count, self._ranking(search))
        return self.population[self.selection.select(self._ranked[1], rng)]

    def _ranking(self, search: SearchState) -> np.ndarray:
        means = self.screening.means(search, self.population)
        if means is None:
            return ranked(self.population)
        return np.lexsort((-means, np.array([record.violation for record in self.population])))
