"""The base class of tfnas' oracles, whose state survives a kill at any moment.

keras_tuner writes its files in place; a kill in between leaves half a file and a search that
can't be resumed. Here every trial has one file, `trial.json`, which is replaced atomically: once
when the trial begins and once when it ends. On reload the order of ends, the retries and the queue
are restored from these files, so that nothing is stored twice and a trial costs the same however
many came before it. `oracle.json` holds the search space and the seed.

Each proposal has a random generator of its own, seeded by the seed and the number of trials, so
that a resumed search proposes what the uninterrupted one would have proposed.
"""

from __future__ import annotations

import collections
import copy
import functools
import json
import math
import os
import pathlib
import threading
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import keras_tuner as kt
import numpy as np
from keras_tuner.src.engine import oracle as kt_oracle

from tfnas.nas.chief.trial_messages import read_failure
from tfnas.nas.objectives import ObjectiveLike, Objectives, ParetoObjective, objective_of
from tfnas.nas.successive_halving import Halving
from tfnas.nas.trial_records import Proposal, TrialRecord, ranked
from tfnas.runtime.argument_rules import check_count
from tfnas.runtime.files import write_atomically
from tfnas.search_space.hyperparameters import HyperParameterSpace
from tfnas.search_space.search_space import SearchSpace

_Status = kt.engine.trial.TrialStatus
INFEASIBLE = "infeasible: "  # prefix of the message of a trial that breaks a limit before training
_STATE_KEY = "tfnas"  # key of tfnas' own state in trial.json
_ATTEMPTS = 2  # a trial that crashes the process so often fails


def _synchronized(function: Callable[..., Any]) -> Callable[..., Any]:
    """Wraps a method in keras_tuner's lock, which is released also if the method raises."""
    locked = kt.synchronized(function)

    @functools.wraps(function)
    def wrapper(self: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return locked(self, *args, **kwargs)
        except BaseException:
            if kt_oracle.THREADS[self] == threading.current_thread().name:
                kt_oracle.THREADS[self] = None
                kt_oracle.LOCKS[self].release()
            raise

    return wrapper


class SpaceOracle(kt.Oracle):
    """An oracle that proposes architectures of a search space; subclasses implement `propose`.

    Args:
        space: The search space; None: the hyperparameters that keras_tuner's hypermodel declares.
        objective: As in keras_tuner. Several objectives are not summed up: trials are compared
            by Pareto dominance, and the score of a trial is the value of its first objective.
        max_trials: Number of trials.
        seed: Seed of all proposals, a whole number; None: a random one.
        limits: Metric -> bound to keep; see :class:`tfnas.nas.objectives.Limit`.
        halving: Reduction factor of successive halving; see
            :mod:`tfnas.nas.successive_halving`. None: all trials have the same epochs.
        min_epochs: Smallest number of epochs of the lowest rung.
        **kwargs: Further arguments of keras_tuner's Oracle.

    Raises:
        ValueError: An argument is outside its rule; the message names it.
    """

    _PROPOSALS = 100
    _STEPS = 10_000
    _STEPS_WITH_COSTS = 50  # fewer, as the costs of a step may need a model to be built

    def __init__(
        self,
        space: SearchSpace | None = None,
        objective: ObjectiveLike = None,
        max_trials: int | None = None,
        seed: int | None = None,
        limits: Mapping[str, float] | None = None,
        halving: int | None = None,
        min_epochs: int = 1,
        **kwargs: Any,
    ):
        check_count("max_trials", max_trials, 1, optional=True)
        self.halving = Halving(halving, min_epochs)
        objective = objective_of(objective)
        if not isinstance(objective, ParetoObjective):
            super().__init__(objective=objective, max_trials=max_trials, seed=seed, **kwargs)
        else:
            super().__init__(max_trials=max_trials, seed=seed, **kwargs)
            self.objective = objective
        if seed is not None:  # keras_tuner treats a seed of 0 as None
            self.seed = self._seed_state = seed
        self.objectives = Objectives.of(self.objective, limits)
        self.costs_before_trial: Callable[[Any], Mapping[str, float]] | None = None
        """Returns the metrics of an architecture that are known without a trial; proposals whose
        metrics break a limit are dropped."""
        self.surrogate_features: Callable[[Any], np.ndarray] | None = None
        """Returns features of an architecture for a surrogate, (features,), beside its
        decisions."""
        self._space: Any = space
        self._declared = -1
        self._tried: dict[Any, str] = {}
        self._networks: dict[str, Any] = {}
        self._infeasible: set[Any] = set()
        self._records: list[TrialRecord] = []
        self._learning_records: list[TrialRecord] = []
        self._parents: dict[str, str] = {}
        self._starts: dict[str, int] = {}
        self._ends: dict[str, int] = {}
        self._written = ""

    # ---- methods that subclasses override

    def propose(self, rng: np.random.Generator) -> Proposal:
        """Returns an architecture to try next; it may have been tried before.

        Args:
            rng: NumPy's random generator.
        """
        raise NotImplementedError

    def learn(self, record: TrialRecord) -> None:
        """Called with each record of :attr:`learning_records`, in their order, also on reload."""

    def forget(self) -> None:
        """Called when the search starts to learn from a higher rung, with no records yet."""

    def choose(self, proposals: list[Proposal], rng: np.random.Generator) -> Proposal:
        """Returns the proposal to try.

        Args:
            proposals: Proposals that were not tried yet, at least one.
            rng: NumPy's random generator.
        """
        return proposals[0]

    @property
    def num_proposals(self) -> int:
        """Number of proposals that :meth:`choose` chooses from."""
        return 1

    @property
    def min_records(self) -> int:
        """Number of trials of a higher rung from which on the search learns from that rung."""
        return 1

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

    # ---- proposing

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        """Returns the values of a new trial, in the form that keras_tuner expects.

        They are those of a promoted trial, or else of an architecture that was not tried yet.
        """
        if (source := self.halving.promotable()) is not None:
            self.halving.promote(trial_id, source)
            values = dict(self.trials[source].hyperparameters.values)
            return {"status": _Status.RUNNING, "values": values}
        rng = np.random.default_rng([self.seed, len(self.trials)])
        proposal = None
        if len(self._tried) < self.space.size:
            proposal = self._feasible_proposal(rng) or self._random_walk(rng)
        if proposal is None and self.costs_before_trial is not None and not self._records:
            raise RuntimeError(
                f"limits {', '.join(map(str, self.objectives.limits))} must leave a feasible "
                f"architecture, got none among {len(self._infeasible)} proposals"
            )
        if proposal is None:
            return {"status": _Status.STOPPED, "values": None}
        self._register(trial_id, proposal.architecture)
        if proposal.parent is not None:
            self._parents[trial_id] = proposal.parent
        return {"status": _Status.RUNNING, "values": self.space.values(proposal.architecture)}

    def _feasible_proposal(self, rng: np.random.Generator) -> Proposal | None:
        """The first chosen proposal that is not known to break a limit.

        Costs are computed for chosen proposals only.
        """
        checked = 0
        while checked < self._PROPOSALS and (proposals := self._new_proposals(rng)):
            while proposals:
                proposal, checked = self.choose(proposals, rng), checked + 1
                if self._is_feasible(proposal.architecture):
                    return proposal
                proposals.remove(proposal)
        return None

    def _new_proposals(self, rng: np.random.Generator) -> list[Proposal]:
        """Distinct proposals that were not tried and are not known to break a limit."""
        proposals: dict[Any, Proposal] = {}
        repeats = 0
        while len(proposals) < self.num_proposals and repeats < self._PROPOSALS:
            proposal = self.propose(rng)
            network, repeats = proposal.architecture.network, repeats + 1
            if not (network in self._tried or network in proposals or network in self._infeasible):
                proposals[network], repeats = proposal, 0
        return list(proposals.values())

    def _random_walk(self, rng: np.random.Generator) -> Proposal | None:
        """The first new and feasible architecture of a random walk; None if it finds none."""
        arch = self.propose(rng).architecture
        with_costs = self.costs_before_trial is not None and bool(self.objectives.limits)
        for _ in range(self._STEPS_WITH_COSTS if with_costs else self._STEPS):
            arch = self.space.mutate(arch, rng)
            if arch.network not in self._tried and self._is_feasible(arch):
                return Proposal(arch)
        return None

    def _register(self, trial_id: str, arch: Any) -> None:
        """Registers the architecture of a trial as tried.

        It replaces an earlier one of the trial, which may have declared hyperparameters since.
        """
        before = self._networks.get(trial_id)
        if before is not None and self._tried.get(before) == trial_id:
            del self._tried[before]
        self._networks[trial_id] = arch.network
        self._tried[arch.network] = trial_id

    def _is_feasible(self, arch: Any) -> bool:
        if self.costs_before_trial is None or not self.objectives.limits:
            return True
        if (
            arch.network not in self._infeasible
            and self.objectives.violation(self.costs_before_trial(arch)) > 0
        ):
            self._infeasible.add(arch.network)
        return arch.network not in self._infeasible

    # ---- results

    @property
    def records(self) -> list[TrialRecord]:
        """Records of the trials that ended well, in the order of their ends.

        With halving, only the trial of the highest rung is kept of each architecture.
        """
        return self._records

    @property
    def learning_records(self) -> list[TrialRecord]:
        """Records that the search learns from: all, or with halving those of one rung."""
        return self._learning_records

    @property
    def num_started(self) -> int:
        """Number of architectures whose trials were started."""
        return len(self.trials) - len(self.halving.continues)

    def completed(self) -> list[kt.engine.trial.Trial]:
        """Returns the trials of :attr:`records`."""
        return [self.trials[record.trial_id] for record in self._records]

    def retries(self, trial_id: str) -> int:
        """Returns how often an earlier run of a trial failed."""
        return int(self._run_times[trial_id])

    def parent(self, trial_id: str) -> str | None:
        """Returns the id of the trial whose architecture was changed to get that of a trial."""
        return self._parents.get(trial_id)

    def get_best_trials(self, num_trials: int = 1) -> list[kt.engine.trial.Trial]:
        """Returns the best trials: those that keep the limits first, then by objective.

        With several objectives the Pareto front comes first, its least crowded members leading.

        Args:
            num_trials: Number of trials.
        """
        order = ranked(self._records)[:num_trials]
        found = [self.trials[self._records[i].trial_id] for i in order]
        if len(found) < num_trials:
            completed = {trial.trial_id for trial in found}
            found += [trial for trial in self.trials.values() if trial.trial_id not in completed]
        return found[:num_trials]

    # ---- the life of a trial

    @_synchronized
    def create_trial(self, tuner_id: str) -> kt.engine.trial.Trial:
        """Creates a trial, as keras_tuner does; the file of a trial counts how often it starts."""
        is_retry = bool(self._retry_queue) and tuner_id not in self.ongoing_trials
        trial = super().create_trial(tuner_id)
        if is_retry:
            trial.metrics.metrics.clear()  # keras_tuner would keep the metrics of the earlier run
            trial.message = None
            self._starts[trial.trial_id] = self._starts.get(trial.trial_id, 0) + 1
            self._save_trial(trial)
        return trial

    @_synchronized
    def update_trial(
        self, trial_id: str, metrics: Mapping[str, float], step: int = 0
    ) -> kt.engine.trial.Trial:
        """Adds metrics to a trial, as keras_tuner does; they are written when the trial ends."""
        trial = self.trials[trial_id]
        metrics = {**metrics, **self.halving.metrics(trial_id)}
        self._check_objective_found(metrics)
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

    @_synchronized
    def end_trial(self, trial: kt.engine.trial.Trial) -> None:
        """Ends a trial, as keras_tuner does; if its file can't be written only the trial fails."""
        trial_id = trial.trial_id
        if trial.status != _Status.COMPLETED and trial.message is None:
            trial.message = read_failure(self._get_trial_dir(trial_id))
        num_ended = len(self.end_order)
        try:
            super().end_trial(trial)
        except OSError as error:
            failed = self.trials[trial_id]
            failed.status, failed.message = _Status.FAILED, f"its result can't be written: {error}"
            self._forget_ongoing(trial_id)
            try:
                self._save_trial(failed)
            except OSError:
                warnings.warn(f"trial {trial_id} failed: {failed.message}", stacklevel=2)
            self._check_consecutive_failures()
            return
        ended = self.trials[trial_id]
        if len(self.end_order) > num_ended and ended.status == _Status.COMPLETED:
            self._add_record(ended)

    def _add_record(self, trial: kt.engine.trial.Trial) -> None:
        tracked = trial.metrics
        names = {*self.objectives.names, *(limit.name for limit in self.objectives.limits)}
        metrics = {n: tracked.get_best_value(n) for n in names if tracked.exists(n)}
        record = TrialRecord(
            trial.trial_id,
            self.architecture(trial),
            self.objectives.violation(metrics),
            self.objectives.losses(metrics),
            self.halving.parent(trial.trial_id, self._parents),
        )
        self._register(trial.trial_id, record.architecture)
        source = self.halving.continues.get(trial.trial_id)
        if source is not None:
            self._records = [other for other in self._records if other.trial_id != source]
        self._records.append(record)
        new_records, is_new_rung = self.halving.add(record, self.min_records)
        if is_new_rung:
            self._learning_records = []
            self.forget()
        for new_record in new_records:
            self._learning_records.append(new_record)
            self.learn(new_record)

    @_synchronized
    def worker_died(self, trial_id: str, reason: str, certain: bool) -> None:
        """Queues a trial whose worker died for a retry; after its second crash the trial fails.

        Args:
            trial_id: The trial.
            reason: Message of the trial if it fails.
            certain: Whether this trial is known to have caused the crash; if not, the crash isn't
                counted.
        """
        trial = self.trials[trial_id]
        self._forget_ongoing(trial_id)
        if not certain:
            self._starts[trial_id] -= 1
        if certain and self._starts[trial_id] - self._run_times[trial_id] >= _ATTEMPTS:
            trial.status, trial.message = _Status.FAILED, reason
            self.end_order.append(trial_id)
            self._save_trial(trial)
            self._check_consecutive_failures()
        else:
            self._retry_queue.append(trial_id)
            self._save_trial(trial)

    def for_worker(self, trial: kt.engine.trial.Trial) -> SpaceOracle:
        """Returns a copy for a worker, which knows only a trial and its parent."""
        worker = copy.copy(self)
        names = (trial.trial_id, self.parent(trial.trial_id))
        worker.trials = {name: self.trials[name] for name in names if name is not None}
        worker.ongoing_trials, worker._retry_queue, worker.tuner_ids = {}, [], set()
        worker.start_order, worker.end_order = [], []
        worker._records, worker._learning_records = [], []
        worker.halving = self.halving.for_worker(trial.trial_id)
        worker._tried, worker._networks, worker._tried_so_far = {}, {}, set()
        worker._infeasible, worker._starts, worker._ends = set(), {}, {}
        worker._id_to_hash = collections.defaultdict(lambda: None)
        runs = self._run_times[trial.trial_id]
        worker._run_times = collections.defaultdict(int, {trial.trial_id: runs})
        worker._parents = {k: v for k, v in self._parents.items() if k == trial.trial_id}
        worker.costs_before_trial = worker.surrogate_features = None
        return worker

    def adopt_trial(
        self, trial_id: str, state: Mapping[str, Any], trials: Mapping[str, kt.engine.trial.Trial]
    ) -> None:
        """Makes this the oracle of a worker, which knows one trial and proposes nothing.

        Args:
            trial_id: The trial.
            state: tfnas' own state in the file of the trial.
            trials: The trial and its parent, by id.
        """
        self.trials, self._run_times[trial_id] = dict(trials), int(state.get("runs", 0))
        if state.get("parent") is not None:
            self._parents[trial_id] = str(state["parent"])
        self.halving.restore(trial_id, state)

    def _forget_ongoing(self, trial_id: str) -> None:
        for tuner_id, ongoing in list(self.ongoing_trials.items()):
            if ongoing.trial_id == trial_id:
                del self.ongoing_trials[tuner_id]

    def _check_consecutive_failures(self) -> None:
        """Ends the search after too many consecutive failures, as keras_tuner does.

        Only the last trials count, and the last failure is written to disk. A trial that broke a
        limit before training doesn't count as a failure.
        """
        failures = 0
        last: Any = None
        for trial_id in reversed(self.end_order):
            trial = self.trials[trial_id]
            if trial.status != _Status.FAILED:
                break
            if not _is_infeasible(trial):
                failures, last = failures + 1, last or trial
        ended: Any = self.trials[self.end_order[-1]] if self.end_order else None
        if last is ended is not None and failures % self.max_consecutive_failed_trials == 0:
            self._save_trial(last)
            self.save()
            cause = (last.message or "no message").strip().splitlines()[-1]
            raise RuntimeError(f"{failures} trials failed one after the other, the last: {cause}")

    # ---- the files

    def get_state(self) -> dict[str, Any]:
        """Returns the state that is not in the files of the trials."""
        return {"hyperparameters": self.hyperparameters.get_config(), "seed": self.seed}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Restores the state that :meth:`get_state` returned."""
        config = state["hyperparameters"]
        self.hyperparameters = kt.HyperParameters.from_config(config)
        self.seed = self._seed_state = state["seed"]

    def save(self) -> None:
        """Writes the oracle's own file atomically, if it has changed."""
        text = json.dumps(self.get_state())
        if text != self._written:
            write_atomically(self._get_oracle_fname(), text)
            self._written = text

    def _save_trial(self, trial: kt.engine.trial.Trial) -> None:
        trial_id = trial.trial_id
        starts = self._starts.setdefault(trial_id, 1)
        ended = trial.status in (_Status.COMPLETED, _Status.FAILED)
        state: dict[str, Any] = {"begun": starts, "runs": int(self._run_times[trial_id])}
        if ended:
            state["ended"] = self._ends.setdefault(trial_id, len(self._ends))
        if trial_id in self._parents:
            state["parent"] = self._parents[trial_id]
        state |= self.halving.state_of(trial_id)
        path = os.path.join(self._get_trial_dir(trial_id), "trial.json")
        # A power failure costs running trials anyway, but no trial that has ended.
        write_atomically(path, json.dumps({**trial.get_state(), _STATE_KEY: state}), sync=ended)

    def reload(self) -> None:
        """Restores the search from the files of its trials."""
        path = pathlib.Path(self._get_oracle_fname())
        try:
            self.set_state(json.loads(path.read_text()))
        except (OSError, ValueError, KeyError, TypeError) as error:
            warnings.warn(
                f"{path} can't be read ({error}): the seed and the search space of the call are "
                "used instead",
                stacklevel=2,
            )
        self.trials.clear()
        folders = sorted(path.parent.glob("trial_*"), key=_number)
        if folders and not (folders[-1] / "trial.json").exists():
            folders.pop()  # killed before its file was written: it never started
        for folder in folders:
            trial, state = self._read_trial(folder)
            trial_id = trial.trial_id
            self.trials[trial_id] = trial
            self._starts[trial_id] = int(state.get("begun", 1))
            self._run_times[trial_id] = int(state.get("runs", 0))
            if state.get("parent") is not None:
                self._parents[trial_id] = str(state["parent"])
            self.halving.restore(trial_id, state)
            if trial.status in (_Status.COMPLETED, _Status.FAILED):
                self._ends[trial_id] = int(state.get("ended", len(self._ends)))
        self.start_order = list(self.trials)
        self.end_order = sorted(self._ends, key=self._ends.__getitem__)
        self._requeue()
        for trial in self.trials.values():
            if trial.hyperparameters.values:
                self._register(trial.trial_id, self.architecture(trial))
        for trial_id in self.end_order:
            if self.trials[trial_id].status == _Status.COMPLETED:
                self._add_record(self.trials[trial_id])

    def _read_trial(self, folder: pathlib.Path) -> tuple[kt.engine.trial.Trial, dict[str, Any]]:
        """A trial and tfnas' own state of it; a failed trial if its file can't be read."""
        try:
            state = json.loads((folder / "trial.json").read_text())
            return kt.engine.trial.Trial.from_state(state), state.get(_STATE_KEY, {})
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            trial = kt.engine.trial.Trial(
                self.hyperparameters.copy(), folder.name.removeprefix("trial_"), _Status.FAILED
            )
            trial.hyperparameters.values = {}
            trial.message = f"its file can't be read: {error}"
            return trial, {}

    def _requeue(self) -> None:
        """Queues running trials for a retry; those that crashed the process twice fail."""
        for trial_id, trial in reversed(self.trials.items()):  # keras_tuner pops the last one
            if trial.status in (_Status.COMPLETED, _Status.FAILED):
                continue
            crashes = self._starts[trial_id] - self._run_times[trial_id]
            if trial.status == _Status.RUNNING and crashes >= _ATTEMPTS:
                trial.status = _Status.FAILED
                trial.message = f"the process ended in it {_ATTEMPTS} times"
                self.end_order.append(trial_id)
                self._save_trial(trial)
            else:
                self._retry_queue.append(trial_id)


def _is_infeasible(trial: Any) -> bool:
    return INFEASIBLE in (trial.message or "")


def _number(folder: pathlib.Path) -> tuple[int, str]:
    name = folder.name.removeprefix("trial_")
    return (int(name) if name.isdigit() else 0, name)
