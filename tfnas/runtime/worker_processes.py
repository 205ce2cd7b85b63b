"""Runs trials in worker processes: one that crashes or hangs does not end the search.

An executor of :mod:`concurrent.futures`. Each worker process
(:class:`~tfnas.runtime.child_process.ChildProcess`) runs one call after the other and is restarted
when it crashed; a call that exceeds the timeout is killed with its process. Workers, and all that
their calls have started, end with this process, however it ends.
"""

from __future__ import annotations

import concurrent.futures
import os
import queue
import threading
from collections.abc import Callable
from typing import Any

import cloudpickle

from tfnas.runtime.argument_rules import check_count
from tfnas.runtime.child_process import ChildProcess, ProcessDied, TookTooLong, import_paths


class TrialDied(RuntimeError):
    """The worker process crashed, or was killed, during a call."""


class TrialProcesses(concurrent.futures.Executor):
    """Runs calls in worker processes that may crash.

    Example:
        >>> import tfnas
        >>> with tfnas.TrialProcesses(workers=1, timeout=60) as executor:
        ...     print(executor.submit(pow, 2, 5).result())
        32
        >>> config = tfnas.TunerConfig(executor=lambda: tfnas.TrialProcesses(workers=2))

    Args:
        workers: Number of processes.
        timeout: Longest duration of a call, in seconds; None: no limit. What the worker imports
            before the call does not count.

    Raises:
        ValueError: An argument is outside its rule.

    References:
        The interface is that of `concurrent.futures.Executor`.
    """

    def __init__(self, workers: int = 1, timeout: float | None = None) -> None:
        check_count("workers", workers, 1)
        if timeout is not None and not timeout > 0:
            raise ValueError(f"timeout must be above 0 seconds, got {timeout!r}")
        self._max_workers, self._timeout = workers, timeout
        self._calls: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._live: set[ChildProcess] = set()
        self._closed = False

    def submit(
        self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any
    ) -> concurrent.futures.Future[Any]:
        """Schedules a call in a worker; its future raises :class:`TrialDied` if the worker crashes.

        Example:
            >>> with TrialProcesses() as executor:
            ...     executor.submit(max, 3, 4).result()
            4

        Args:
            fn: The function to call.
            *args: Its positional arguments, which must pickle.
            **kwargs: Its keyword arguments.

        Returns:
            The future of the call's result.

        Raises:
            RuntimeError: The executor was shut down.
        """
        if self._closed:
            raise RuntimeError("submit must come before shutdown")
        future: concurrent.futures.Future[Any] = concurrent.futures.Future()
        self._calls.put((future, cloudpickle.dumps((fn, args, kwargs))))
        if len(self._threads) < self._max_workers:
            thread = threading.Thread(target=self._serve, daemon=True)
            self._threads.append(thread)
            thread.start()
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Stops the workers.

        Example:
            >>> executor = TrialProcesses()
            >>> executor.shutdown()

        Args:
            wait: Whether to wait for running calls; else they are killed.
            cancel_futures: Whether pending calls are canceled.
        """
        self._closed = True
        if cancel_futures:
            while not self._calls.empty():
                call = self._calls.get()
                if call is not None:
                    call[0].cancel()
        for _ in self._threads:
            self._calls.put(None)
        if not wait:
            for worker in list(self._live):
                worker.kill()
        for thread in self._threads:
            thread.join()

    def _serve(self) -> None:
        """Sends calls to one worker process, and restarts it when it crashed."""
        worker: ChildProcess | None = None
        while (call := self._calls.get()) is not None:
            future, payload = call
            if not future.set_running_or_notify_cancel():
                continue
            try:
                if worker is None:
                    worker = ChildProcess(import_paths(current_folder=True), os.getcwd())
                    self._live.add(worker)
                future.set_result(self._run(worker, payload))
            except BaseException as error:  # raised by the call, or the crash of the worker
                future.set_exception(error)
            if worker is not None and not worker.alive():
                self._close(worker)
                worker = None
        if worker is not None:
            self._close(worker)

    def _run(self, worker: ChildProcess, payload: bytes) -> Any:
        try:
            return worker.call(payload, self._timeout)
        except TookTooLong as error:
            raise TrialDied(
                f"the trial took longer than {self._timeout:g} s and was ended"
            ) from error
        except ProcessDied as error:
            raise TrialDied(f"the process of the trial {error}") from error

    def _close(self, worker: ChildProcess) -> None:
        self._live.discard(worker)
        worker.close()
