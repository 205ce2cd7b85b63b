"""Keeps what TensorFlow's native code writes to stderr out of the terminal.

Its messages go around Python to descriptor 2, and its level of logging is read once, when it is
imported. So descriptor 2 leads to `grep` for a while, which passes on what is no such message.
`grep` is a process of its own for two reasons: native code that fills a pipe while it holds
Python's lock would wait forever for a reader in this process, and after a crash the last words,
which say why, still reach the terminal.

Nothing is hidden where the logger "tfnas" takes DEBUG, or where there is no `grep`.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import sys
import threading
import time
from collections.abc import Iterator

_LOG = logging.getLogger(__name__)
# Information, warnings and errors; a fatal message (F) is the last word of a crash.
MESSAGES = (
    "^[IWE][0-9]{4} [0-9]{2}:[0-9]{2}:",
    "^[0-9]{4}-[0-9]{2}-[0-9]{2} [0-9:.]+: [IWE] ",
    "^WARNING: All log messages before absl::InitializeLog",
    "^To enable the following instructions:",
    "^INFO: .*(TensorFlow Lite|XNNPACK)",
    "^fully_quantize: [0-9]",
)
_PATIENCE = 1.0  # seconds for grep's last lines; a child of the caller's may keep it alive


@contextlib.contextmanager
def native_messages_hidden() -> Iterator[None]:
    """Hides the messages of native code while any thread is inside; other lines come a bit later.

    Example:
        >>> with native_messages_hidden():
        ...     pass  # what a converter writes to descriptor 2 stays out of the terminal
    """
    with _HIDDEN:
        yield


class _Hidden:
    """Descriptor 2, as long as any thread is inside."""

    def __init__(self) -> None:
        self._lock, self._inside = threading.Lock(), 0
        self._terminal: int | None = None
        self._filter: int | None = None

    def __enter__(self) -> None:
        with self._lock:
            if not self._inside and not _LOG.isEnabledFor(logging.DEBUG):
                self._begin()
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside and self._terminal is not None:
                self._end(self._terminal)

    def _begin(self) -> None:
        program = shutil.which("grep")
        if program is None or not hasattr(os, "posix_spawn"):
            return
        try:
            terminal = os.dup(2)
        except OSError:  # the process has no stderr
            return
        _flush()
        reader, writer = os.pipe()
        try:
            self._filter = _started(program, reader)
            os.dup2(writer, 2)
            self._terminal = terminal
        except OSError as error:  # no more processes: the messages are shown
            os.close(terminal)
            _LOG.debug("native messages are shown: %s", error)
        finally:
            os.close(reader)
            os.close(writer)

    def _end(self, terminal: int) -> None:
        _flush()
        os.dup2(terminal, 2)  # grep reads the end of its input
        os.close(terminal)
        if self._filter is not None:
            _wait(self._filter)
        self._terminal = self._filter = None

    def forget(self) -> None:
        """In a process that was forked: the filter is that of its parent."""
        if self._terminal is not None:
            os.dup2(self._terminal, 2)
            os.close(self._terminal)
        self.__init__()  # type: ignore[misc]  # a thread of the parent may hold the lock


def _started(program: str, reader: int) -> int:
    """Starts `grep` between a pipe and descriptor 2; keys of the terminal do not end it."""
    patterns = [part for pattern in MESSAGES for part in ("-e", pattern)]
    return os.posix_spawn(
        program,
        [program, "-v", "-E", *patterns],
        {**os.environ, "LC_ALL": "C"},  # lines of any bytes
        file_actions=[(os.POSIX_SPAWN_DUP2, reader, 0), (os.POSIX_SPAWN_DUP2, 2, 1)],
        setpgroup=0,
    )


def _wait(process: int) -> None:
    end = time.monotonic() + _PATIENCE
    with contextlib.suppress(ChildProcessError):  # someone else has waited for it
        while os.waitpid(process, os.WNOHANG)[0] == 0 and time.monotonic() < end:
            time.sleep(0.001)


def _flush() -> None:
    with contextlib.suppress(OSError, ValueError, AttributeError):
        sys.stderr.flush()


_HIDDEN = _Hidden()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_HIDDEN.forget)
