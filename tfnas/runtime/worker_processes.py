"""Runs trials in worker processes: one that crashes or hangs does not end the search.

An executor of :mod:`concurrent.futures`. Each worker process runs one call after the other
and is restarted when it crashed; a call that exceeds the timeout is killed with its process.
Workers are started as `python -m tfnas.runtime.worker`, not forked (TensorFlow does not
survive that) and not spawned by :mod:`multiprocessing` (which runs the caller's script
again).
"""

from __future__ import annotations

import concurrent.futures
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Callable
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any

import cloudpickle

from tfnas.runtime.argument_rules import check_count


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
        timeout: Longest duration of a call, in seconds; None: no limit.

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
        self._live: set[subprocess.Popen[bytes]] = set()
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
            for process in list(self._live):
                process.kill()
        for thread in self._threads:
            thread.join()

    def _serve(self) -> None:
        """Sends calls to one worker process, and restarts it when it crashed."""
        worker: _Worker | None = None
        while (call := self._calls.get()) is not None:
            future, payload = call
            if not future.set_running_or_notify_cancel():
                continue
            if worker is None or worker.process.poll() is not None:
                worker = _Worker()
                self._live.add(worker.process)
            try:
                future.set_result(worker.run(payload, self._timeout))
            except BaseException as error:  # raised by the call, or the crash of the worker
                future.set_exception(error)
            if worker.process.poll() is not None:
                self._live.discard(worker.process)
        if worker is not None:
            worker.close()
            self._live.discard(worker.process)


class _Worker:
    """A worker process and the pipe to it."""

    def __init__(self) -> None:
        self.connection, worker_end = Pipe()
        assert isinstance(worker_end, Connection)
        descriptor = worker_end.fileno()
        os.set_inheritable(descriptor, True)
        command = [sys.executable, "-m", "tfnas.runtime.worker", str(descriptor), os.getcwd()]
        paths = os.pathsep.join(path for path in sys.path if path)
        environment = {**os.environ, "PYTHONPATH": paths}
        self.process = subprocess.Popen(command, pass_fds=(descriptor,), env=environment)
        worker_end.close()

    def run(self, payload: bytes, timeout: float | None) -> Any:
        try:
            self.connection.send_bytes(payload)
            if not self.connection.poll(timeout):
                self.process.kill()
                self.process.wait()
                raise TrialDied(f"the trial took longer than {timeout:g} s and was ended")
            succeeded, result = cloudpickle.loads(self.connection.recv_bytes())
        except (EOFError, OSError) as error:
            code = self.process.wait()
            how = f"by signal {-code}" if code < 0 else f"with status {code}"
            raise TrialDied(f"the process of the trial ended {how}") from error
        if not succeeded:
            raise result
        return result

    def close(self) -> None:
        self.connection.close()  # the worker then ends by itself
        try:
            self.process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
