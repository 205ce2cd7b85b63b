"""The oracle of tfnas' tuners: it creates and ends trials, and survives a kill at any moment.

The oracle itself proposes nothing and keeps no file:

    samplers/        propose architectures and learn from results
    proposals        drops proposals that were tried before or break a limit
    trial_store      the files of the trials, from which a search is resumed
    stored_oracle    what is kept of a search, and how it is restored
    oracle           the life of a trial: created, retried, ended, recorded

Each proposal has a random generator of its own, seeded by the seed and the number of trials, so
that a resumed search proposes what the uninterrupted one would have proposed.
"""

from __future__ import annotations

import collections
import copy
import math
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import keras_tuner as kt
import numpy as np

from tfnas.nas.chief.trial_messages import read_failure
from tfnas.nas.fit_results import check_reported, plain_metrics
from tfnas.nas.keras_tuner_private import synchronized
from tfnas.nas.objectives import ObjectiveLike, Objectives, ParetoObjective, objective_of
from tfnas.nas.proposals import ProposalFilter
from tfnas.nas.samplers.random_search import RandomSampler
from tfnas.nas.samplers.sampler import Sampler
from tfnas.nas.stored_oracle import StoredOracle
from tfnas.nas.successive_halving import Halving
from tfnas.nas.trial_failures import too_many_failures
from tfnas.nas.trial_records import TrialRecord, ranked
from tfnas.runtime.argument_rules import check_count
from tfnas.search_space.architecture import Architecture
from tfnas.search_space.hyperparameters import HyperParameterSpace
from tfnas.search_space.search_space import SearchSpace

_Status = kt.engine.trial.TrialStatus


class SpaceOracle(StoredOracle):
    """An oracle whose sampler proposes architectures of a search space.

    Args:
        sampler: The sampler; it is copied. None: random search.
        space: The search space; None: the hyperparameters that keras_tuner's hypermodel declares.
        objective: As in keras_tuner. Several objectives are not summed up: trials are compared
            by Pareto dominance, and the score of a trial is the value of its first objective.
        max_trials: Number of trials; None: no limit.
        seed: Seed of all proposals, a whole number; None: a random one.
        limits: Metric -> bound to keep; see :class:`tfnas.nas.objectives.Limit`.
        halving: The rungs of successive halving; None: all trials have the same epochs.
        **kwargs: Further arguments of keras_tuner's Oracle.

    Raises:
        ValueError: An argument is outside its rule; the message names it.
    """

    def __init__(
        self,
        sampler: Sampler | None = None,
        space: SearchSpace | None = None,
        objective: ObjectiveLike = None,
        max_trials: int | None = 20,
        seed: int | None = None,
        limits: Mapping[str, float] | None = None,
        halving: Halving | None = None,
        **kwargs: Any,
    ):
        check_count("max_trials", max_trials, 1, optional=True)
        if sampler is not None and not isinstance(sampler, Sampler):
            raise ValueError(
                f"sampler must be a tfnas.nas.samplers.sampler.Sampler, got {sampler!r}"
            )
        self.halving = halving or Halving()
        objective = objective_of(objective)
        if not isinstance(objective, ParetoObjective):
            super().__init__(objective=objective, max_trials=max_trials, seed=seed, **kwargs)
        else:
            super().__init__(max_trials=max_trials, seed=seed, **kwargs)
            self.objective = objective
        if seed is not None:  # keras_tuner treats a seed of 0 as None
            self.set_seed(seed)
        self.objectives = Objectives.of(self.objective, limits)
        self.sampler = copy.deepcopy(sampler) if sampler is not None else RandomSampler()
        self.sampler.begin(self.objectives)
        self.proposals = ProposalFilter()
        self.surrogate_features: Callable[[Any], np.ndarray] | None = None
        """Returns features of an architecture for a surrogate, (features,), beside its
        decisions."""
        self.records: list[TrialRecord] = []
        """Records of the trials that ended well, in the order of their ends. With halving, only
        the trial of the highest rung is kept of each architecture."""
        self.learning_records: list[TrialRecord] = []
        """Records that the search learns from: all, or with halving those of one rung."""
        self._space: Any = space
        self._declared = -1
        self.lost_workers = collections.Counter()

    # ---- the space

    @property
    def space(self) -> Any:
        """The search space; it grows when the hypermodel declares further hyperparameters."""
        if self._declared < 0 and self._space is not None:
            return self._space
        if self._declared != len(self.hyperparameters.space):
            self._declared = len(self.hyperparameters.space)
            self._space = HyperParameterSpace(self.hyperparameters.space)
        return self._space

    def architecture(self, trial: kt.engine.trial.Trial) -> Any:
        """Returns the architecture of a trial, or the values of its hyperparameters."""
        return self.space.from_values(trial.hyperparameters.values)

    def encode(self, arch: Architecture) -> np.ndarray:
        """Returns the features of an architecture, (features,), for a surrogate.

        They are its decisions and its `surrogate_features`.

        Args:
            arch: The architecture.
        """
        if self.surrogate_features is None:
            return self.space.encode(arch)
        return np.concatenate([self.space.encode(arch), self.surrogate_features(arch)])

    # ---- results

    @property
    def num_started(self) -> int:
        """Number of architectures whose trials were started."""
        return len(self.trials) - len(self.halving.continues)

    @property
    def pending(self) -> list[Any]:
        """Architectures of the trials that are running."""
        running = [t for t in self.trials.values() if t.status == _Status.RUNNING]
        return [self.architecture(trial) for trial in running]

    @property
    def failed(self) -> list[Any]:
        """Architectures of the trials that failed, as those that broke a limit."""
        ended = (_Status.FAILED, _Status.INVALID)
        failed = [t for t in self.trials.values() if t.status in ended]
        return [self.architecture(t) for t in failed if t.hyperparameters.values]

    def completed(self) -> list[kt.engine.trial.Trial]:
        """Returns the trials of :attr:`records`."""
        return [self.trials[record.trial_id] for record in self.records]

    def get_best_trials(self, num_trials: int = 1) -> list[kt.engine.trial.Trial]:
        """Returns the best trials: those that keep the limits first, then by objective.

        With several objectives the Pareto front comes first, its least crowded members leading.

        Args:
            num_trials: Number of trials.
        """
        order = ranked(self.records)[:num_trials]
        found = [self.trials[self.records[i].trial_id] for i in order]
        if len(found) < num_trials:
            completed = {trial.trial_id for trial in found}
            found += [trial for trial in self.trials.values() if trial.trial_id not in completed]
        return found[:num_trials]

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
        feasible = [record for record in self.records if record.violation == 0] or self.records
        estimates = None
        if self.halving.eta is None:
            estimates = self.sampler.screening.estimates(self, feasible)
        if estimates is None:
            return self.get_best_trials(1)[0]
        return self.trials[feasible[int(np.argmax(estimates))].trial_id]

    def rank_correlation(self) -> float | None:
        """Returns Spearman's rank correlation of measurements and the surrogate's predictions.

        Each trial is predicted from all others (leave-one-out). None: there are too few trials,
        several objectives or no surrogate.
        """
        return self.sampler.screening.rank_correlation(self)

    # ---- the life of a trial

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        """Returns the values of a new trial, in the form that keras_tuner expects.

        They are those of a promoted trial, or else of an architecture that was not tried yet.
        """
        if (source := self.halving.promotable()) is not None:
            self.halving.promote(trial_id, source)
            values = dict(self.trials[source].hyperparameters.values)
            return {"status": _Status.RUNNING, "values": values}
        rng = np.random.default_rng([self.seed, len(self.trials)])
        proposal = self.proposals.next_proposal(self, self.sampler, rng)
        if proposal is None:
            return {"status": _Status.STOPPED, "values": None}
        self.proposals.register(trial_id, proposal.architecture)
        self.store.history(trial_id).parent = proposal.parent
        return {"status": _Status.RUNNING, "values": self.space.values(proposal.architecture)}

    @synchronized
    def create_trial(self, tuner_id: str) -> kt.engine.trial.Trial:
        """Creates a trial, as keras_tuner does; a retry begins without results."""
        is_retry = bool(self.retry_queue) and tuner_id not in self.ongoing_trials
        trial = super().create_trial(tuner_id)
        if is_retry:
            trial.metrics.metrics.clear()  # keras_tuner would keep the metrics of the earlier run
            trial.message = None
            self.save_trial(trial)
        return trial

    @synchronized
    def update_trial(
        self, trial_id: str, metrics: Mapping[str, float], step: int = 0
    ) -> kt.engine.trial.Trial:
        """Adds metrics to a trial, as keras_tuner does; they are written when the trial ends."""
        trial = self.trials[trial_id]
        metrics = {**plain_metrics(metrics), **self.halving.metrics(trial_id)}
        check_reported(metrics, self.objectives.names)
        directions = dict(zip(self.objectives.names, self.objectives.directions, strict=True))
        for name, value in metrics.items():
            if not trial.metrics.exists(name):
                trial.metrics.register(name, direction=directions.get(name))
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "All-NaN")  # score_trial reports it
                trial.metrics.update(name, value, step=step)
        return trial

    def score_trial(self, trial: kt.engine.trial.Trial) -> None:
        """Scores a trial by its first objective; NaN if any objective is not finite."""
        values: dict[str, float] = {}
        for name in self.objectives.names:
            history = trial.metrics.get_history(name)
            observed = [value for step in history for value in step.value]
            if not any(math.isfinite(value) for value in observed):
                last = observed[-1] if observed else None
                trial.score = math.nan
                trial.message = f"{name} must be a finite number, got {last}"
                return
            values[name] = trial.metrics.get_best_value(name)
        first = self.objectives.names[0]
        trial.score, trial.best_step = values[first], trial.metrics.get_best_step(first)

    @synchronized
    def end_trial(self, trial: kt.engine.trial.Trial) -> None:
        """Ends a trial, as keras_tuner does; if its file can't be written only the trial fails."""
        trial_id = trial.trial_id
        if trial.status != _Status.COMPLETED and trial.message is None:
            trial.message = read_failure(self.trial_folder(trial_id))
        num_ended = len(self.end_order)
        try:
            super().end_trial(trial)
        except OSError as error:
            failed = self.trials[trial_id]
            failed.status, failed.message = _Status.FAILED, f"its result can't be written: {error}"
            self.forget_ongoing(trial_id)
            try:
                self.save_trial(failed)
            except OSError:
                warnings.warn(f"trial {trial_id} failed: {failed.message}", stacklevel=2)
            self.check_consecutive_failures()
            return
        ended = self.trials[trial_id]
        if len(self.end_order) > num_ended and ended.status == _Status.COMPLETED:
            self.add_record(ended)

    def add_record(self, trial: kt.engine.trial.Trial) -> None:
        """Learns from a trial that ended well."""
        tracked = trial.metrics
        names = self.objectives.all_names
        metrics = {n: tracked.get_best_value(n) for n in names if tracked.exists(n)}
        record = TrialRecord(
            trial.trial_id,
            self.architecture(trial),
            self.objectives.violation(metrics),
            self.objectives.losses(metrics),
            self.halving.parent(trial.trial_id, self.parent),
        )
        self.proposals.register(trial.trial_id, record.architecture)
        source = self.halving.continues.get(trial.trial_id)
        if source is not None:
            self.records = [other for other in self.records if other.trial_id != source]
        self.records.append(record)
        new_records, is_new_rung = self.halving.add(record, self.sampler.min_records)
        if is_new_rung:
            self.learning_records = []
            self.sampler.forget()
        for new_record in new_records:
            self.learning_records.append(new_record)
            self.sampler.learn(self, new_record)

    def check_consecutive_failures(self) -> None:
        """Ends the search after too many consecutive failures; the last one is written first."""
        found = too_many_failures(self.trials, self.end_order, self.max_consecutive_failed_trials)
        if found is not None:
            last, message = found
            self.save_trial(last)
            self.save()
            raise RuntimeError(message)
