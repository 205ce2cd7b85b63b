"""Trials on any executor of :mod:`concurrent.futures`, while one process owns the oracle.

A worker gets a copy of the tuner with an oracle that knows only its trial, runs the trial as it
would run here (with deterministic operations if they are enabled here), and sends back the trial's
metrics. Files go into the trial's folder, which all machines must share. A worker that dies costs
its trial a retry. If the executor can't tell which of several trials broke it, they are run again
one by one.
"""

from __future__ import annotations

import concurrent.futures
import copy
import pathlib
import re
from typing import Any

import cloudpickle
import keras_tuner as kt

from tfnas.nas.keras_tuner_private import MetricsTracker
from tfnas.nas.search_callbacks import TrialCallbacks
from tfnas.nas.tuner_config import ExecutorFactory
from tfnas.nas.worker_oracle import oracle_of_worker
from tfnas.runtime.crash_report import (
    crash_reason,
    knows_of_memory,
    memory_kills,
    memory_may_have_run_out,
)
from tfnas.runtime.randomness import make_operations_deterministic, operations_are_deterministic
from tfnas.runtime.retracing import retracing_expected
from tfnas.runtime.worker_processes import TrialDied

_Status = kt.engine.trial.TrialStatus
_Broken = concurrent.futures.BrokenExecutor
_KILL, _FROM_OUTSIDE = 9, (1, 2, 15)  # SIGKILL; SIGHUP, SIGINT, SIGTERM


class Engine:
    """Runs a tuner's trials on an executor.

    Args:
        tuner: The tuner; its oracle stays here.
        executor: An executor, or a function that creates one.
        parallel: Number of trials at once; None: the executor's number of workers.
    """

    def __init__(
        self,
        tuner: Any,
        executor: concurrent.futures.Executor | ExecutorFactory,
        parallel: int | None = None,
    ) -> None:
        self.tuner = tuner
        self._factory: ExecutorFactory | None = None
        if hasattr(executor, "submit") and not isinstance(executor, type):
            self._executor: Any = executor
        else:
            self._factory = executor
            self._executor = executor()
        self._owns_executor = self._factory is not None  # then it is shut down here
        self._parallel = parallel or _workers(self._executor)
        # Future -> trial, name of its place, count of memory_kills before it was submitted.
        self._running: dict[concurrent.futures.Future[Any], tuple[Any, str, int | None]] = {}
        self._suspects: set[str] = set()

    def run(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Runs trials until the oracle has no more.

        Args:
            args: Positional arguments of the tuner's `search`.
            kwargs: Its keyword arguments.
        """
        try:
            while True:
                self._submit_trials(args, kwargs)
                if not self._running:
                    return
                done, _ = concurrent.futures.wait(
                    self._running, return_when=concurrent.futures.FIRST_COMPLETED
                )
                order = list(self._running)
                for future in sorted(done, key=order.index):
                    self._collect(future)
        finally:
            for future in self._running:
                future.cancel()
            if self._owns_executor:
                self._executor.shutdown(wait=not self._running, cancel_futures=True)

    def _submit_trials(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        busy = {name for _, name, _ in self._running.values()}
        at_once = 1 if self._suspects else self._parallel
        for number in range(self._parallel):
            name = f"{self.tuner.tuner_id}-{number}"
            if len(self._running) >= at_once:
                return
            if name in busy:
                continue
            self.tuner.pre_create_trial()
            trial = self.tuner.oracle.create_trial(name)
            if trial.status != _Status.RUNNING:
                return
            self.tuner.on_trial_begin(trial)
            tuner = worker_copy(self.tuner, trial)
            payload = cloudpickle.dumps(
                (tuner, trial, args, kwargs, operations_are_deterministic())
            )
            before = memory_kills()
            try:
                future = self._executor.submit(run_in_worker, payload)
            except _Broken:
                self._replace_executor()
                future = self._executor.submit(run_in_worker, payload)
            self._running[future] = (trial, name, before)

    def _collect(self, future: concurrent.futures.Future[Any]) -> None:
        if future not in self._running:
            return  # its executor broke, and the trial was queued again
        trial, _, before = self._running.pop(future)
        try:
            state = future.result()
        except _Broken:
            lost = [trial, *(other for other, *_ in self._running.values())]
            self._running.clear()
            self._replace_executor()
            for other in lost:
                self._died(other.trial_id, "its worker died", None if len(lost) > 1 else True)
            self._suspects |= {other.trial_id for other in lost}
            return
        except kt.errors.FatalError:
            raise
        except Exception as error:  # the worker's, or the executor's own, as Dask's KilledWorker
            is_plain = isinstance(error, TrialDied | OSError | concurrent.futures.CancelledError)
            reason = str(error) if is_plain else f"{type(error).__name__}: {error}"
            crashed = crashed_by_itself(reason, self._report(trial), before)
            self._died(trial.trial_id, reason, crashed)
            self._suspects.discard(trial.trial_id)
            self.tuner.trial_callbacks.trial_ended(self.tuner.oracle.get_trial(trial.trial_id))
            return
        self._suspects.discard(trial.trial_id)
        trial.status, trial.message = state["status"], state["message"]
        trial.hyperparameters = kt.HyperParameters.from_config(state["hyperparameters"])
        trial.metrics = MetricsTracker.from_config(state["metrics"])
        self.tuner.oracle.trials[trial.trial_id].metrics = trial.metrics
        self.tuner.on_trial_end(trial)

    def _died(self, trial_id: str, reason: str, crashed: bool | None) -> None:
        """Reports the death of a worker; a report that it left is believed before all else."""
        own_reason = crash_reason(self.tuner.oracle.store.crash_report(trial_id))
        if own_reason is not None:
            reason, crashed = f"{reason}: {own_reason}", True
        self.tuner.oracle.worker_died(trial_id, reason, crashed)

    def _report(self, trial: Any) -> pathlib.Path:
        return self.tuner.oracle.store.crash_report(trial.trial_id)

    def _replace_executor(self) -> None:
        """Creates another executor, since a broken process pool takes no more calls."""
        broken: Any = self._executor
        if self._factory is not None:
            self._executor = self._factory()
        elif isinstance(broken, concurrent.futures.ProcessPoolExecutor):
            old: Any = broken
            self._executor = concurrent.futures.ProcessPoolExecutor(
                old._max_workers, old._mp_context, old._initializer, old._initargs
            )
        else:
            raise RuntimeError(
                f"executor {type(broken).__name__} broke and can't be created again: pass a "
                "function that creates it instead"
            )
        self._owns_executor = True
        broken.shutdown(wait=False, cancel_futures=True)


def worker_copy(tuner: Any, trial: Any) -> Any:
    """Returns a copy of a tuner whose oracle knows only a trial and its parent."""
    worker = copy.copy(tuner)
    worker.oracle = oracle_of_worker(tuner.oracle, trial)
    worker.config = tuner.config.for_trials()
    worker.latency_predictor = None  # workers propose nothing
    worker.trial_callbacks = TrialCallbacks()
    return worker


@retracing_expected()
def run_in_worker(payload: bytes) -> dict[str, Any]:
    """Runs a trial in a worker.

    Args:
        payload: The pickled tuner, trial, positional and keyword arguments of `search`, and
            whether operations must be deterministic.

    Returns:
        Status, message, hyperparameters and metrics of the trial, as plain values.
    """
    tuner, trial, args, kwargs, deterministic = cloudpickle.loads(payload)
    if deterministic:
        make_operations_deterministic()
    tuner.try_run_and_update_trial(trial, *args, **kwargs)
    own_trial = tuner.oracle.trials[trial.trial_id]
    return {
        "status": trial.status,
        "message": trial.message,
        "hyperparameters": trial.hyperparameters.get_config(),
        "metrics": own_trial.metrics.get_config(),
    }


def crashed_by_itself(reason: str, report: pathlib.Path, memory_kills_before: int | None) -> bool:
    """Returns whether a worker ended by its trial, not by a signal from outside.

    Args:
        reason: Message of :class:`~tfnas.runtime.worker_processes.TrialDied`.
        report: The trial's report of a crash.
        memory_kills_before: The processes that the machine had ended for lack of memory when the
            trial was submitted; None: unknown.
    """
    found = re.search(r"ended by signal (\d+)", reason)
    if found is None:
        return True
    number = int(found[1])
    if number == _KILL:  # of the kernel for lack of memory, or of somebody
        if knows_of_memory(report):
            return crash_reason(report) is not None
        # It ended before the trial began, as in its imports: then there is no report.
        return memory_may_have_run_out(memory_kills_before)
    return number not in _FROM_OUTSIDE


def _workers(executor: Any) -> int:
    """An executor's number of workers."""
    if (count := getattr(executor, "_max_workers", None)) is not None:
        return int(count)
    client = getattr(executor, "_client", None)  # Dask's
    if client is not None:
        return max(1, len(client.scheduler_info(n_workers=-1)["workers"]))
    return 1
