"""The part that all of tfnas' oracles share: what was tried, kept so that no kill can tear it.

keras_tuner writes its files in place; a kill in between leaves half a file and a search that
can't be resumed. Here every trial has one file, `trial.json`, that is replaced whole, once
when the trial begins and once when it ends. That file is the truth: order of ends, retries
and queue are read back from the trials, so that nothing is written twice and a trial costs
the same however many there were before. `oracle.json` holds the search space and the seed.

A random generator is made from the seed and the number of trials, so that a resumed search
proposes what it would have proposed.
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

from tfnas.nas.chief.trial_messages import message_of
from tfnas.nas.objectives import Objectives, ParetoObjective, objective_of
from tfnas.nas.successive_halving import Halving
from tfnas.nas.trial_records import Entry, Proposal, ranked
from tfnas.runtime.argument_rules import check_count
from tfnas.runtime.files import write_atomically
from tfnas.search_space.hyperparameters import HyperParameterSpace
from tfnas.search_space.search_space import SearchSpace

_Status = kt.engine.trial.TrialStatus
INFEASIBLE = "infeasible: "  # begins the message of a trial that broke a limit untrained
_OWN = "tfnas"  # our part of trial.json
_ATTEMPTS = 2  # times that a trial may take the process down


def _synchronized(function: Callable[..., Any]) -> Callable[..., Any]:
    """keras_tuner's lock, which is given back also where the function raises."""
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
    """An oracle that proposes points of a search space. A subclass gives :meth:`propose`.

    Args:
        space: The search space; None: what keras_tuner's hypermodel declares.
        objective: As keras_tuner takes it. Several are never added up: trials are compared
            by Pareto dominance, and a trial's score is its first objective's value.
        max_trials: Number of trials.
        seed: Seed of all proposals, a whole number; None draws one.
        limits: Metric -> bound that must be kept; see :class:`tfnas.nas.objectives.Limit`.
        halving: One in so many trials of a rung goes on with more epochs; see
            :mod:`tfnas.nas.successive_halving`. None: all trials have the same epochs.
        min_epochs: Epochs of the lowest rung, at least.
        **kwargs: keras_tuner's further arguments of an Oracle.

    Raises:
        ValueError: An argument is outside its rule; the message names it.
    """

    _PROPOSALS = 100
    _STEPS = 10_000
    _KNOWN_STEPS = 50  # where each step asks for costs, which may take a model to be built

    def __init__(
        self,
        space: SearchSpace | None = None,
        objective: Any = None,
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
        if seed is not None:  # keras_tuner takes 0 for "none given"
            self.seed = self._seed_state = seed
        self.objectives = Objectives.of(self.objective, limits)
        self.known_costs: Callable[[Any], Mapping[str, float]] | None = None
        """Metrics of a point that are known without a trial; proposals outside of the limits
        are dropped."""
        self.known_features: Callable[[Any], np.ndarray] | None = None
        """Numbers that a surrogate sees of a point beside its decisions."""
        self._space: Any = space
        self._declared = -1
        self._tried: dict[Any, str] = {}
        self._networks: dict[str, Any] = {}
        self._unfit: set[Any] = set()
        self._entries: list[Entry] = []
        self._evidence: list[Entry] = []
        self._parents: dict[str, str] = {}
        self._begun: dict[str, int] = {}
        self._ends: dict[str, int] = {}
        self._written = ""

    # ---- what a subclass gives

    def propose(self, rng: np.random.Generator) -> Proposal:
        """Returns what to try next; it may have been tried before."""
        raise NotImplementedError

    def learn(self, entry: Entry) -> None:
        """Hears of each entry of :attr:`evidence`, in the order of their ends, also on reload."""

    def forget(self) -> None:
        """Hears that :attr:`evidence` begins anew, with the entries of a higher rung."""

    def choose(self, proposals: list[Proposal], rng: np.random.Generator) -> Proposal:
        """Returns the one of several untried proposals to try."""
        return proposals[0]

    @property
    def wanted(self) -> int:
        """How many untried proposals :meth:`choose` chooses from."""
        return 1

    @property
    def enough(self) -> int:
        """Trials of a higher rung with which the search learns from it."""
        return 1

    # ---- the space

    @property
    def space(self) -> Any:
        """The search space; it grows where the hypermodel declares more."""
        if self._declared < 0 and self._space is not None:
            return self._space
        if self._declared != len(self.hyperparameters.space):
            self._declared = len(self.hyperparameters.space)
            self._space = HyperParameterSpace(self.hyperparameters.space)
        return self._space

    def architecture(self, trial: kt.engine.trial.Trial) -> Any:
        """Returns the architecture, or the point, that a trial tried."""
        return self.space.from_values(trial.hyperparameters.values)

    # ---- proposing

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        """Returns the values of a trial that was not tried yet, or goes on, for keras_tuner."""
        if (source := self.halving.promotable()) is not None:
            self.halving.begin(trial_id, source)
            values = dict(self.trials[source].hyperparameters.values)
            return {"status": _Status.RUNNING, "values": values}
        rng = np.random.default_rng([self.seed, len(self.trials)])
        proposal = None
        if len(self._tried) < self.space.size:
            proposal = self._fitting(rng) or self._walk(rng)
        if proposal is None and self.known_costs is not None and not self._entries:
            raise RuntimeError(
                f"limits {', '.join(map(str, self.objectives.limits))} can't be kept by any of "
                f"{len(self._unfit)} architectures that were looked at"
            )
        if proposal is None:
            return {"status": _Status.STOPPED, "values": None}
        self._note(trial_id, proposal.point)
        if proposal.parent is not None:
            self._parents[trial_id] = proposal.parent
        return {"status": _Status.RUNNING, "values": self.space.values(proposal.point)}

    def _fitting(self, rng: np.random.Generator) -> Proposal | None:
        """What is chosen, unless it is known to break a limit: costs are asked for it alone."""
        asked = 0
        while asked < self._PROPOSALS and (found := self._untried(rng)):
            while found:
                proposal, asked = self.choose(found, rng), asked + 1
                if self._fits(proposal.point):
                    return proposal
                found.remove(proposal)
        return None

    def _untried(self, rng: np.random.Generator) -> list[Proposal]:
        """Different proposals that were not tried, none known to break a limit."""
        found: dict[Any, Proposal] = {}
        in_vain = 0
        while len(found) < self.wanted and in_vain < self._PROPOSALS:
            proposal = self.propose(rng)
            network, in_vain = proposal.point.network, in_vain + 1
            if not (network in self._tried or network in found or network in self._unfit):
                found[network], in_vain = proposal, 0
        return list(found.values())

    def _walk(self, rng: np.random.Generator) -> Proposal | None:
        """A random walk away from what is known; None where it leads nowhere."""
        point = self.propose(rng).point
        asks = self.known_costs is not None and bool(self.objectives.limits)
        for _ in range(self._KNOWN_STEPS if asks else self._STEPS):
            point = self.space.mutate(point, rng)
            if point.network not in self._tried and self._fits(point):
                return Proposal(point)
        return None

    def _note(self, trial_id: str, point: Any) -> None:
        """A trial's point is tried; it may have grown by what the trial declared."""
        before = self._networks.get(trial_id)
        if before is not None and self._tried.get(before) == trial_id:
            del self._tried[before]
        self._networks[trial_id] = point.network
        self._tried[point.network] = trial_id

    def _fits(self, point: Any) -> bool:
        if self.known_costs is None or not self.objectives.limits:
            return True
        if (
            point.network not in self._unfit
            and self.objectives.violation(self.known_costs(point)) > 0
        ):
            self._unfit.add(point.network)
        return point.network not in self._unfit

    # ---- what was found

    @property
    def entries(self) -> list[Entry]:
        """The trials that ended well, in the order of their ends.

        With halving, of each architecture the trial of the highest rung.
        """
        return self._entries

    @property
    def evidence(self) -> list[Entry]:
        """The entries that the search learns from: all, or with halving those of one rung."""
        return self._evidence

    @property
    def begun(self) -> int:
        """Number of architectures that were begun."""
        return len(self.trials) - len(self.halving.continues)

    def completed(self) -> list[kt.engine.trial.Trial]:
        """Returns the trials of :attr:`entries`."""
        return [self.trials[entry.trial_id] for entry in self._entries]

    def retries(self, trial_id: str) -> int:
        """Returns how often a trial was run before and failed."""
        return int(self._run_times[trial_id])

    def parent(self, trial_id: str) -> str | None:
        """Returns the id of the trial that a trial's architecture was made from."""
        return self._parents.get(trial_id)

    def get_best_trials(self, num_trials: int = 1) -> list[kt.engine.trial.Trial]:
        """Returns the best trials: within the limits before outside, then by objective.

        With several objectives the Pareto front comes first, its ends and least crowded
        members before the others.
        """
        order = ranked(self._entries)[:num_trials]
        found = [self.trials[self._entries[i].trial_id] for i in order]
        if len(found) < num_trials:
            known = {trial.trial_id for trial in found}
            found += [trial for trial in self.trials.values() if trial.trial_id not in known]
        return found[:num_trials]

    # ---- the life of a trial

    @_synchronized
    def create_trial(self, tuner_id: str) -> kt.engine.trial.Trial:
        """keras_tuner's; a trial that begins again is counted on disk."""
        again = bool(self._retry_queue) and tuner_id not in self.ongoing_trials
        trial = super().create_trial(tuner_id)
        if again:
            trial.metrics.metrics.clear()  # else keras_tuner takes an earlier run's for this one's
            trial.message = None
            self._begun[trial.trial_id] = self._begun.get(trial.trial_id, 0) + 1
            self._save_trial(trial)
        return trial

    @_synchronized
    def update_trial(
        self, trial_id: str, metrics: Mapping[str, float], step: int = 0
    ) -> kt.engine.trial.Trial:
        """keras_tuner's; what a running trial reports is kept in memory until it ends."""
        trial = self.trials[trial_id]
        metrics = {**metrics, **self.halving.metrics(trial_id)}
        self._check_objective_found(metrics)
        directions = dict(zip(self.objectives.names, self.objectives.directions, strict=True))
        for name, value in metrics.items():
            if not trial.metrics.exists(name):
                trial.metrics.register(name, direction=directions.get(name))
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "All-NaN")  # score_trial says so in words
                trial.metrics.update(name, value, step=step)
        return trial

    def score_trial(self, trial: kt.engine.trial.Trial) -> None:
        """Scores a trial by the first objective; NaN where any objective is no number."""
        told: dict[str, float] = {}
        for name in self.objectives.names:
            history = trial.metrics.get_history(name)
            seen = [value for step in history for value in step.value]
            if not any(math.isfinite(value) for value in seen):
                trial.score = math.nan
                trial.message = f"{name} must be a finite number, got {seen[-1] if seen else None}"
                return
            told[name] = trial.metrics.get_best_value(name)
        first = self.objectives.names[0]
        trial.score, trial.best_step = told[first], trial.metrics.get_best_step(first)

    @_synchronized
    def end_trial(self, trial: kt.engine.trial.Trial) -> None:
        """keras_tuner's; a file that can't be written fails the trial, not the search."""
        trial_id = trial.trial_id
        if trial.status != _Status.COMPLETED and trial.message is None:
            trial.message = message_of(self._get_trial_dir(trial_id))
        ended = len(self.end_order)
        try:
            super().end_trial(trial)
        except OSError as error:
            own = self.trials[trial_id]
            own.status, own.message = _Status.FAILED, f"its result can't be written: {error}"
            self._forget_ongoing(trial_id)
            try:
                self._save_trial(own)
            except OSError:
                warnings.warn(f"trial {trial_id} failed: {own.message}", stacklevel=2)
            self._check_consecutive_failures()
            return
        own = self.trials[trial_id]
        if len(self.end_order) > ended and own.status == _Status.COMPLETED:
            self._completed(own)

    def _completed(self, trial: kt.engine.trial.Trial) -> None:
        tracked = trial.metrics
        names = {*self.objectives.names, *(limit.name for limit in self.objectives.limits)}
        metrics = {n: tracked.get_best_value(n) for n in names if tracked.exists(n)}
        entry = Entry(
            trial.trial_id,
            self.architecture(trial),
            self.objectives.violation(metrics),
            self.objectives.losses(metrics),
            self.halving.parent(trial.trial_id, self._parents),
        )
        self._note(trial.trial_id, entry.point)
        source = self.halving.continues.get(trial.trial_id)
        if source is not None:
            self._entries = [known for known in self._entries if known.trial_id != source]
        self._entries.append(entry)
        news, anew = self.halving.ended(entry, self.enough)
        if anew:
            self._evidence = []
            self.forget()
        for known in news:
            self._evidence.append(known)
            self.learn(known)

    @_synchronized
    def lost(self, trial_id: str, reason: str, alone: bool) -> None:
        """Takes back a trial whose worker died: it is tried again, but not a third time.

        Args:
            trial_id: The trial.
            reason: What happened.
            alone: Whether it was this trial for certain; else it is tried again for free.
        """
        trial = self.trials[trial_id]
        self._forget_ongoing(trial_id)
        if not alone:
            self._begun[trial_id] -= 1
        if alone and self._begun[trial_id] - self._run_times[trial_id] >= _ATTEMPTS:
            trial.status, trial.message = _Status.FAILED, reason
            self.end_order.append(trial_id)
            self._save_trial(trial)
            self._check_consecutive_failures()
        else:
            self._retry_queue.append(trial_id)
            self._save_trial(trial)

    def for_worker(self, trial: kt.engine.trial.Trial) -> SpaceOracle:
        """Returns a copy that knows a trial and its parent alone, to be sent to a worker."""
        twin = copy.copy(self)
        kept = (trial.trial_id, self.parent(trial.trial_id))
        twin.trials = {name: self.trials[name] for name in kept if name is not None}
        twin.ongoing_trials, twin._retry_queue, twin.tuner_ids = {}, [], set()
        twin.start_order, twin.end_order, twin._entries, twin._evidence = [], [], [], []
        twin.halving = self.halving.for_worker(trial.trial_id)
        twin._tried, twin._networks, twin._tried_so_far, twin._unfit = {}, {}, set(), set()
        twin._begun, twin._ends = {}, {}
        twin._id_to_hash = collections.defaultdict(lambda: None)
        twin._run_times = collections.defaultdict(int, {kept[0]: self._run_times[kept[0]]})
        twin._parents = {k: v for k, v in self._parents.items() if k == trial.trial_id}
        twin.known_costs = twin.known_features = None
        return twin

    def know(
        self, trial_id: str, kept: Mapping[str, Any], trials: Mapping[str, kt.engine.trial.Trial]
    ) -> None:
        """Makes this a worker's oracle, which knows one trial and proposes nothing.

        Args:
            trial_id: The trial.
            kept: Our part of its file.
            trials: The trial and its parent.
        """
        self.trials, self._run_times[trial_id] = dict(trials), int(kept.get("runs", 0))
        if kept.get("parent") is not None:
            self._parents[trial_id] = str(kept["parent"])
        self.halving.restore(trial_id, kept)

    def _forget_ongoing(self, trial_id: str) -> None:
        for tuner_id, ongoing in list(self.ongoing_trials.items()):
            if ongoing.trial_id == trial_id:
                del self.ongoing_trials[tuner_id]

    def _check_consecutive_failures(self) -> None:
        """keras_tuner's rule, on the last trials alone, and with the failure kept on disk.

        A trial that broke a limit before any training is no failure of the set-up.
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
        """Returns what no trial's file tells."""
        return {"hyperparameters": self.hyperparameters.get_config(), "seed": self.seed}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Restores what :meth:`get_state` gave."""
        config = state["hyperparameters"]
        self.hyperparameters = kt.HyperParameters.from_config(config)
        self.seed = self._seed_state = state["seed"]

    def save(self) -> None:
        """Writes the oracle's own file, whole or not at all, where it would change."""
        text = json.dumps(self.get_state())
        if text != self._written:
            write_atomically(self._get_oracle_fname(), text)
            self._written = text

    def _save_trial(self, trial: kt.engine.trial.Trial) -> None:
        trial_id = trial.trial_id
        begun = self._begun.setdefault(trial_id, 1)
        ended = trial.status in (_Status.COMPLETED, _Status.FAILED)
        own: dict[str, Any] = {"begun": begun, "runs": int(self._run_times[trial_id])}
        if ended:
            own["ended"] = self._ends.setdefault(trial_id, len(self._ends))
        if trial_id in self._parents:
            own["parent"] = self._parents[trial_id]
        own |= self.halving.kept(trial_id)
        path = os.path.join(self._get_trial_dir(trial_id), "trial.json")
        # A trial that runs is lost with the machine anyway; of what has ended nothing may be.
        write_atomically(path, json.dumps({**trial.get_state(), _OWN: own}), sync=ended)

    def reload(self) -> None:
        """Restores the search from the files of its trials."""
        path = pathlib.Path(self._get_oracle_fname())
        try:
            self.set_state(json.loads(path.read_text()))
        except (OSError, ValueError, KeyError, TypeError) as error:
            warnings.warn(
                f"{path} can't be read ({error}): seed and search space are taken from the "
                "call instead",
                stacklevel=2,
            )
        self.trials.clear()
        folders = sorted(path.parent.glob("trial_*"), key=_number)
        if folders and not (folders[-1] / "trial.json").exists():
            folders.pop()  # killed before its file was there: it never began
        for folder in folders:
            trial, own = self._read_trial(folder)
            trial_id = trial.trial_id
            self.trials[trial_id] = trial
            self._begun[trial_id] = int(own.get("begun", 1))
            self._run_times[trial_id] = int(own.get("runs", 0))
            if own.get("parent") is not None:
                self._parents[trial_id] = str(own["parent"])
            self.halving.restore(trial_id, own)
            if trial.status in (_Status.COMPLETED, _Status.FAILED):
                self._ends[trial_id] = int(own.get("ended", len(self._ends)))
        self.start_order = list(self.trials)
        self.end_order = sorted(self._ends, key=self._ends.__getitem__)
        self._requeue()
        for trial in self.trials.values():
            if trial.hyperparameters.values:
                self._note(trial.trial_id, self.architecture(trial))
        for trial_id in self.end_order:
            if self.trials[trial_id].status == _Status.COMPLETED:
                self._completed(self.trials[trial_id])

    def _read_trial(self, folder: pathlib.Path) -> tuple[kt.engine.trial.Trial, dict[str, Any]]:
        """A trial and our part of its file; a failed one where the file can't be read."""
        try:
            state = json.loads((folder / "trial.json").read_text())
            return kt.engine.trial.Trial.from_state(state), state.get(_OWN, {})
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            trial = kt.engine.trial.Trial(
                self.hyperparameters.copy(), folder.name.removeprefix("trial_"), _Status.FAILED
            )
            trial.hyperparameters.values = {}
            trial.message = f"its file can't be read: {error}"
            return trial, {}

    def _requeue(self) -> None:
        """What was running goes again, but not what took the process down twice."""
        for trial_id, trial in reversed(self.trials.items()):  # keras_tuner takes the last first
            if trial.status in (_Status.COMPLETED, _Status.FAILED):
                continue
            failed_runs = self._run_times[trial_id]
            if trial.status == _Status.RUNNING and self._begun[trial_id] - failed_runs >= _ATTEMPTS:
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
