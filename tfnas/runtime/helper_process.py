"""The helper process: native code that can end its process runs there, where that costs nothing.

TensorFlow's converter and LiteRT's interpreter crash on some models and files. Inside of
:func:`isolated` their calls go through :func:`call` to one process that is started when it is first
needed, stays warm, and ends with this one. What native code prints there is logged here.

See docs/decisions/0046.
"""

from __future__ import annotations

import atexit
import contextlib
import contextvars
import logging
import os
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator
from typing import IO, Any, TypeVar

import cloudpickle

from tfnas.runtime.child_process import ChildProcess, ProcessDied, TookTooLong, import_paths
from tfnas.runtime.crash_report import memory_kills, memory_may_have_run_out

_LOG = logging.getLogger(__name__)
# No accelerator: by default TensorFlow would take all of its memory, and nothing here computes.
_ENVIRONMENT = {"CUDA_VISIBLE_DEVICES": "-1"}
_Result = TypeVar("_Result")


class HelperDied(RuntimeError):
    """The helper process ended, or was ended after the time of the call, and nothing else did.

    Args:
        message: How it ended.
        output: What was printed in the call.
    """

    def __init__(self, message: str, output: str = "") -> None:
        super().__init__(message)
        self.output = output


_requested: contextvars.ContextVar[bool | None] = contextvars.ContextVar("isolated", default=None)


@contextlib.contextmanager
def isolated(enabled: bool = True) -> Iterator[None]:
    """Runs native code that can crash in a helper process while the context is open.

    TensorFlow's converter ends the process on some models, and LiteRT's interpreter on some files
    that tfnas did not convert. In this context that is a :class:`tfnas.ConversionError`, or a
    RuntimeError. Files are the same byte by byte. :func:`tfnas.search`, :func:`tfnas.compress`
    and the `tfnas` command do this by default. The process starts once (some seconds) and needs
    about 0.5 GB of memory. On Windows nothing is isolated: this context changes nothing there, and
    a crash ends the caller. The context is of the thread that opened it: another thread opens its
    own.

    Example:
        >>> import tfnas
        >>> from tfnas.runtime.helper_process import is_isolated
        >>> with tfnas.isolated():  # tfnas.to_tflite(model) in here can't end this process
        ...     is_isolated()
        True

        Where memory is scarce, a job is left without it:

        >>> with tfnas.isolated(False):
        ...     tfnas.compress(model, "digits", {"max_drop": 1.0})  # doctest: +SKIP

    Args:
        enabled: Whether the helper process is used.
    """
    token = _requested.set(bool(enabled))
    try:
        yield
    finally:
        _requested.reset(token)


@contextlib.contextmanager
def isolated_by_default() -> Iterator[None]:
    """As :func:`isolated`, unless the caller has chosen: for jobs."""
    with isolated(True if _requested.get() is None else is_isolated()):
        yield


def is_isolated() -> bool:
    """Returns whether native code that can crash goes to the helper process."""
    return bool(_requested.get()) and os.name == "posix"


def call(function: Callable[..., _Result], *args: object, timeout: float | None = None) -> _Result:
    """Runs a function in the helper process; calls of several threads take turns.

    Args:
        function: A function of a module that can be imported; nothing of the caller's script.
        *args: Plain values and arrays.
        timeout: Longest duration in s; None: no limit.

    Returns:
        Its result.

    Raises:
        HelperDied: The process ended in the call. The next call starts another one. Where somebody
            killed it (SIGKILL, and memory had not run out) the call is tried once more first.
        Exception: What the function raised.
    """
    payload = cloudpickle.dumps((function, args, {}))
    result: _Result = _HELPER.run(payload, timeout)
    return result


class _Helper:
    """The process, and the file that takes what it prints."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: ChildProcess | None = None
        self._output: IO[bytes] | None = None

    def run(self, payload: bytes, timeout: float | None) -> Any:
        with self._lock:
            before = memory_kills()
            try:
                return self._run(payload, timeout)
            except HelperDied as error:
                died = error.__cause__
                killed = isinstance(died, ProcessDied) and died.status == -signal.SIGKILL
                if not killed or memory_may_have_run_out(before):
                    raise
            return self._run(payload, timeout)  # somebody killed it: the call can't be blamed

    def _run(self, payload: bytes, timeout: float | None) -> Any:
        process, output = self._started()
        try:
            return process.call(payload, timeout)
        except ProcessDied as error:
            late = isinstance(error, TookTooLong)
            how = f"did not end within {timeout:g} s" if late else str(error)
            raise HelperDied(how, _printed(output)) from error
        except BaseException as error:
            # Nobody waits for the call any longer.
            if process.interrupted or isinstance(error, KeyboardInterrupt | SystemExit):
                self.stop()
            raise
        finally:
            for line in _printed(output).splitlines():
                _LOG.debug("%s", line)

    def _started(self) -> tuple[ChildProcess, IO[bytes]]:
        """Returns a process that lives, and its output, emptied."""
        if self._process is not None and not self._process.alive():
            self.stop()
        if self._process is None or self._output is None:
            self._output = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115
            self._process = ChildProcess(
                import_paths(current_folder=False),
                os.path.abspath(os.sep),
                environment=_ENVIRONMENT,
                output=self._output,
                options=("-X", "faulthandler"),
            )
        self._output.truncate(0)
        self._output.seek(0)  # the place is shared with the process
        return self._process, self._output

    def stop(self) -> None:
        """Ends the process."""
        if self._process is not None:
            self._process.kill()
            self._process.forget()
        if self._output is not None:
            self._output.close()
        self._process = self._output = None

    def forget(self) -> None:
        """In a process that was forked: the helper process is that of its parent."""
        self.__init__()  # type: ignore[misc]  # a thread of the parent may hold the lock


def _printed(output: IO[bytes]) -> str:
    if output.closed:
        return ""
    size = os.fstat(output.fileno()).st_size
    return os.pread(output.fileno(), size, 0).decode(errors="replace")  # without moving the place


_HELPER = _Helper()
atexit.register(_HELPER.stop)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_HELPER.forget)
