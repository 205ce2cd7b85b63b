"""The part of an oracle that keeps its trials in files, and is restored from them.

What ended a run of the search decides about the trials that were running. One that was interrupted
is tried again, however often that happens; one that ended its process by itself twice fails.
"""

from __future__ import annotations

import collections
import contextlib
import functools
import math
import pathlib
import warnings
from typing import Any

import keras_tuner as kt

from tfnas.nas.keras_tuner_private import HookedOracle, synchronized
from tfnas.nas.objectives import Objectives
from tfnas.nas.proposals import ProposalFilter
from tfnas.nas.successive_halving import Halving
from tfnas.nas.trial_store import ENDED, TrialStore
from tfnas.runtime.crash_report import crash_reason
from tfnas.runtime.store import DAMAGE
from tfnas.search_space.hyperparameters import HyperParameterSpace

_Status = kt.engine.trial.TrialStatus
_ATTEMPTS = 2  # a trial that crashes the process so often fails
_MOST_LOST = 5  # as does one whose worker is ended from outside so often in one run of the search


class StoredOracle(HookedOracle):
    """An oracle whose trials are kept in files; subclasses create, score and learn from them."""

    objectives: Objectives
    halving: Halving
    proposals: ProposalFilter
    lost_workers: collections.Counter[str]
    """Trial -> how often its worker was ended from outside."""

    @functools.cached_property
    def store(self) -> TrialStore:
        """The files of the trials."""
        return TrialStore(pathlib.Path(self.project_folder))

    def retries(self, trial_id: str) -> int:
        """Returns how often an earlier run of a trial failed."""
        return int(self.run_times[trial_id])

    def parent(self, trial_id: str) -> str | None:
        """Returns the id of the trial whose architecture was changed to get that of a trial."""
        history = self.store.histories.get(trial_id)
        return None if history is None else history.parent

    def architecture(self, trial: kt.engine.trial.Trial) -> Any:
        """Returns the architecture of a trial."""
        raise NotImplementedError

    def add_record(self, trial: kt.engine.trial.Trial) -> None:
        """Learns from a trial that ended well."""
        raise NotImplementedError

    # ---- deaths

    @synchronized
    def worker_died(self, trial_id: str, reason: str, crashed: bool | None) -> None:
        """Queues a trial whose worker died for a retry; after its second crash the trial fails.

        Args:
            trial_id: The trial.
            reason: Message of the trial if it fails.
            crashed: Whether the trial ended the worker. False: the worker was ended from outside,
                which is no failure of the trial, however often (up to a bound) it happens. None:
                this trial, or another one of the worker.
        """
        trial, history = self.trials[trial_id], self.store.history(trial_id)
        self.forget_ongoing(trial_id)
        history.crashes += crashed is True
        self.lost_workers[trial_id] += crashed is False
        if history.crashes >= _ATTEMPTS or self.lost_workers[trial_id] >= _MOST_LOST:
            trial.status, trial.message = _Status.FAILED, reason
            self.end_order.append(trial_id)
            self.save_trial(trial)
            self.check_consecutive_failures()
        else:
            self.retry_queue.append(trial_id)
            self.save_trial(trial)

    # ---- the files

    def save(self) -> None:
        """Writes the oracle's own file atomically, if it has changed."""
        hyperparameters = self.hyperparameters.get_config()
        self.store.write_oracle({"hyperparameters": hyperparameters, "seed": self.seed})

    def save_trial(self, trial: kt.engine.trial.Trial) -> None:
        """Writes the file of a trial."""
        trial_id = trial.trial_id
        runs, promotion = int(self.run_times[trial_id]), self.halving.state_of(trial_id)
        self.store.write(trial, runs, promotion)

    def reload(self) -> None:
        """Restores the search from the files of its trials."""
        try:
            state = self.store.read_oracle()
            hyperparameters = kt.HyperParameters.from_config(state["hyperparameters"])
            HyperParameterSpace(hyperparameters.space)  # checks them
            self.hyperparameters = hyperparameters
            self.set_seed(state["seed"])
        except (OSError, *DAMAGE) as error:
            warnings.warn(
                f"{self.store.oracle_path} can't be read ({error}): the seed and the search space "
                "of the call are used instead",
                stacklevel=2,
            )
        self.trials.clear()
        for trial, promotion in self.store.read(self.hyperparameters, self._check_read):
            self.trials[trial.trial_id] = trial
            self.run_times[trial.trial_id] = self.store.history(trial.trial_id).runs
            self.halving.restore(trial.trial_id, promotion)
        self.start_order = list(self.trials)
        self.end_order = self.store.end_order()
        self._requeue()
        for trial in self.trials.values():
            if trial.hyperparameters.values:
                self.proposals.register(trial.trial_id, self.architecture(trial))
        for trial_id in self.end_order:
            if self.trials[trial_id].status == _Status.COMPLETED:
                self.add_record(self.trials[trial_id])

    def _check_read(self, trial: kt.engine.trial.Trial) -> None:
        """Checks that the search can use a trial that was read."""
        if trial.status == _Status.COMPLETED:
            if trial.score is None:
                raise ValueError("score must be a number in a completed trial, got None")
            for name in self.objectives.names:
                value = trial.metrics.get_best_value(name)
                if value is None or not math.isfinite(value):
                    raise ValueError(f"{name} must be a finite number, got {value}")
        if trial.status == _Status.COMPLETED or trial.hyperparameters.values:
            hash(self.architecture(trial).network)

    def _requeue(self) -> None:
        """Queues running trials for a retry; those that crashed the process twice fail.

        A trial whose process was interrupted or killed is no failure: it is tried again.
        """
        for trial_id, trial in reversed(self.trials.items()):  # keras_tuner pops the last one
            if trial.status in ENDED:
                continue
            history, report = self.store.history(trial_id), self.store.crash_report(trial_id)
            reason = crash_reason(report)
            if reason is not None:
                history.crashes += 1
                with contextlib.suppress(OSError):
                    report.unlink(missing_ok=True)  # first: no crash counts twice
            if history.crashes >= _ATTEMPTS:
                trial.status = _Status.FAILED
                trial.message = f"the process ended in it {history.crashes} times: {reason}"
                self.end_order.append(trial_id)
            else:
                self.retry_queue.append(trial_id)
            if reason is not None:
                self.save_trial(trial)
