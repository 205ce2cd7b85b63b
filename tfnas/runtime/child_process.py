"""A process of Python beside this one that runs calls, may die in them, and ends with this one.

It is started as `python -c`, not forked (TensorFlow does not survive that) and not spawned by
:mod:`multiprocessing` (which runs the caller's script again). What a call has started is killed
with it: on Linux all of it, by a guardian (:mod:`tfnas.runtime.guardian`), which is the process
that is started here; elsewhere its process group.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import subprocess
import sys
import time
import weakref
from collections.abc import Iterable, Mapping
from typing import IO, Any

import cloudpickle

from tfnas.runtime.guardian import is_supported as guardians_are_supported
from tfnas.runtime.worker import BEGAN, CALL, HEADER, RETURNED

START_SECONDS = 600.0  # for the imports of a call, on a busy machine
_POLL_SECONDS = 0.1  # between two looks at whether the process lives
_CLOSE_SECONDS = 10.0
_CHUNK = 2**20  # bytes
# Only `sys` is imported before the path is set. The package is found by its folder, not by the
# path: another tfnas may be installed.
_START = """\
import sys
sys.path[:] = {paths!r}
from importlib import machinery, util
spec = machinery.PathFinder.find_spec("tfnas", [{root!r}])
sys.modules["tfnas"] = util.module_from_spec(spec)
spec.loader.exec_module(sys.modules["tfnas"])
from tfnas.runtime.guardian import guard
guard({connection}, {life})
from tfnas.runtime.worker import serve
serve({connection}, {life}, {folder!r})
"""


class ProcessDied(RuntimeError):
    """The process crashed, or was killed, during a call.

    Args:
        message: How it ended.
        status: Its exit status, negative for a signal; None: it was killed here.
    """

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class TookTooLong(ProcessDied):
    """The process was killed since a call exceeded its time."""


class ChildProcess:
    """A process that runs one call after the other; for one thread at a time.

    Args:
        paths: Its `sys.path`; see :func:`import_paths`.
        folder: Its current folder.
        environment: Variables that it gets beside those of this process.
        output: The file that takes what it writes to stdout and stderr; None: those of this
            process.
        options: Options of the interpreter.
    """

    def __init__(
        self,
        paths: Iterable[str],
        folder: str,
        *,
        environment: Mapping[str, str] | None = None,
        output: IO[bytes] | None = None,
        options: Iterable[str] = (),
    ) -> None:
        self._number, self._unread, self._answered = 0, bytearray(), True
        self._messages, theirs = socket.socketpair()
        life, self._life = os.pipe()
        root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
        code = _START.format(
            paths=list(paths), root=root, connection=theirs.fileno(), life=life, folder=folder
        )
        found = filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))
        variables = {**os.environ, "PYTHONPATH": os.pathsep.join(found), **(environment or {})}
        try:
            self.process = subprocess.Popen(
                [sys.executable, *options, "-P", "-c", code],
                pass_fds=(theirs.fileno(), life),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=variables,
                start_new_session=True,
            )
        except BaseException:
            self.forget()
            raise
        finally:
            theirs.close()
            os.close(life)
        _CHILDREN.add(self)

    def alive(self) -> bool:
        """Returns whether it runs."""
        return self.process.poll() is None

    @property
    def interrupted(self) -> bool:
        """Whether an exception of this process, as of a signal's handler, ended the last call.

        What the call leaves in the connection is then unknown: the process is of no more use.
        """
        return not self._answered

    def call(self, payload: bytes, timeout: float | None = None) -> Any:
        """Runs a call.

        Args:
            payload: The pickled function, arguments and keyword arguments.
            timeout: Longest duration of the call in s, without what it imports; None: no limit.

        Returns:
            Its result.

        Raises:
            ProcessDied: The process ended in the call.
            TookTooLong: The call took longer, and the process was killed.
            BaseException: What the call raised.
        """
        self._number += 1
        self._answered = False
        deadline = None if timeout is None else time.monotonic() + START_SECONDS
        self._send(HEADER.pack(self._number, CALL, len(payload)), deadline)
        self._send(payload, deadline)
        while True:
            number, kind, size = HEADER.unpack(self._read(HEADER.size, deadline))
            content = self._read(size, deadline)
            if number != self._number:  # of an earlier call
                continue
            if kind != BEGAN:
                break
            deadline = None if timeout is None else time.monotonic() + timeout
        self._answered = True
        result = cloudpickle.loads(content)
        if kind != RETURNED:
            raise result
        return result

    def _send(self, content: bytes, deadline: float | None) -> None:
        left = memoryview(content)
        while left:
            died = not self.alive()
            if not self._is_ready(select.POLLOUT):
                self._check(died, deadline)
                continue
            try:
                left = left[self._messages.send(left, socket.MSG_DONTWAIT) :]
            except OSError as error:
                self._check_own(error)

    def _read(self, count: int, deadline: float | None) -> bytes:
        while len(self._unread) < count:
            died = not self.alive()  # before reading: what it wrote last is there then
            chunk = None
            if self._is_ready(select.POLLIN):
                try:
                    chunk = self._messages.recv(_CHUNK, socket.MSG_DONTWAIT)
                except OSError as error:
                    self._check_own(error)
            if chunk == b"":
                raise self._death()
            self._unread += chunk or b""
            self._check(died and not chunk, deadline)
        found = bytes(self._unread[:count])
        del self._unread[:count]
        return found

    def _is_ready(self, event: int) -> bool:
        """Waits a little for the connection.

        Not by a time limit of the socket: its TimeoutError would look like that of a user's signal
        handler, which has to end the call.
        """
        if self._messages.fileno() < 0:
            raise self._death()
        waiting = select.poll()
        waiting.register(self._messages, event)
        return bool(waiting.poll(1000 * _POLL_SECONDS))

    def _check_own(self, error: OSError) -> None:
        """Raises what an error of the connection means, or the error where it is the user's."""
        if isinstance(error, TimeoutError):
            raise error
        if not isinstance(error, BlockingIOError):  # else another thread was faster
            raise self._death() from error

    def _check(self, died: bool, deadline: float | None) -> None:
        if died:
            raise self._death()
        if deadline is not None and time.monotonic() > deadline:
            self.kill()
            raise TookTooLong("the process took too long and was killed")

    def _death(self) -> ProcessDied:
        """Kills what is left of it, and says how it ended."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(1)  # the connection ends a little earlier than the process
        self.kill()
        code = self.process.returncode
        if code >= 0:
            return ProcessDied(f"ended with status {code}", code)
        name = signal.Signals(-code).name if -code in signal.valid_signals() else "unknown"
        return ProcessDied(f"ended by signal {-code} ({name})", code)

    def kill(self) -> None:
        """Kills it, and all that its calls have started. It may be called in any thread."""
        if guardians_are_supported():
            self.process.terminate()  # the guardian kills what is below it, then it ends
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(_CLOSE_SECONDS)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def close(self) -> None:
        """Lets it end by itself, as it does between two calls, and kills what is left."""
        with contextlib.suppress(OSError):
            self._messages.shutdown(socket.SHUT_RDWR)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(_CLOSE_SECONDS)
        self.kill()
        self.forget()

    def forget(self) -> None:
        """Closes this process' ends of the connection; a process that was forked does only this."""
        _CHILDREN.discard(self)
        self._messages.close()
        if self._life >= 0:
            os.close(self._life)
            self._life = -1


_CHILDREN: weakref.WeakSet[ChildProcess] = weakref.WeakSet()


def _forget_all() -> None:
    """In a process that was forked: the children are those of its parent, and end with that."""
    for child in list(_CHILDREN):
        child.forget()
        child.process.returncode = 0  # else Popen would warn that they run


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_all)


def import_paths(current_folder: bool) -> list[str]:
    """Returns the folders that a child may import from: those of this process.

    Args:
        current_folder: Whether the current folder, if this process imports from it, is among them:
            then it is the last one, so that no file in it takes the place of a library.
    """
    here = os.path.realpath(os.getcwd())
    others = [path for path in sys.path if path and os.path.realpath(path) != here]
    return [*others, here] if current_folder and len(others) < len(sys.path) else others
