"""A lock on the folder of a job: two jobs in one folder would destroy each other's files.

The lock is the system's own (`flock`) on a file in the folder: it ends with its process, however
that ends. A process that the owner has forked does not hold it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import pathlib
import time
from collections.abc import Iterator

try:
    import fcntl
except ImportError:  # Windows has no such locks
    fcntl = None  # type: ignore[assignment]

NAME = ".owner.lock"
_DIGITS = 20  # of a process id, at most
_TRIES, _PAUSE = 3, 0.05  # s: `check_has_no_owner` of another process holds a lock for a moment
_HELD: set[int] = set()  # descriptors of the locks of this process


@contextlib.contextmanager
def owner_of(folder: pathlib.Path, kind: str = "search") -> Iterator[None]:
    """Locks the folder of a job while the context is open.

    A folder that nothing can be written into needs no lock, and gets none.

    Args:
        folder: The folder; a missing one is created.
        kind: The kind of job, for the error message.

    Raises:
        RuntimeError: Another job has locked it; the message names the folder, and its process.
    """
    if fcntl is None:
        yield
        return
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = _locked(folder, kind)
    if descriptor is None:
        yield
        return
    _HELD.add(descriptor)
    try:
        yield
    finally:
        if descriptor in _HELD:  # else this process was forked: the lock is its parent's
            _HELD.discard(descriptor)
            with contextlib.suppress(OSError):  # while it is locked: it is nobody else's
                (folder / NAME).unlink()
            os.close(descriptor)


def check_has_no_owner(folder: pathlib.Path, kind: str = "search") -> None:
    """Refuses a folder that another job has locked, before anything is loaded or created.

    Args:
        folder: The folder; it need not exist.
        kind: The kind of job, for the error message.

    Raises:
        RuntimeError: Another job has locked it.
    """
    if fcntl is None:
        return
    try:
        file = (folder / NAME).open("rb")
    except OSError:  # nobody has locked it
        return
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise _refusal(folder, kind, file.read(_DIGITS)) from error


def _locked(folder: pathlib.Path, kind: str) -> int | None:
    """Returns the descriptor of the locked file; None where it can't be created."""
    assert fcntl is not None
    path, tries = folder / NAME, 0
    while True:
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
                return None
            raise
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_same(descriptor, path):
                os.truncate(descriptor, 0)
                os.write(descriptor, str(os.getpid()).encode())
                return descriptor
        except BlockingIOError as error:
            owner = os.pread(descriptor, _DIGITS, 0)
            os.close(descriptor)
            tries += 1
            if tries == _TRIES:
                raise _refusal(folder, kind, owner) from error
            time.sleep(_PAUSE)
            continue
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)  # its owner has just removed it


def _is_same(descriptor: int, path: pathlib.Path) -> bool:
    """Whether an open file is still the one at a path."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return False
    return os.path.samestat(os.fstat(descriptor), found)


def _refusal(folder: pathlib.Path, kind: str, owner: bytes) -> RuntimeError:
    process = f" (process {owner.decode()})" if owner.isdigit() else ""
    return RuntimeError(
        f"directory {str(folder)!r} belongs to a {kind} that is running{process}: wait for it, or "
        f"choose another directory{' or project_name' if kind == 'search' else ''}"
    )


def _let_go() -> None:
    """In a process that was forked: its parent's locks are not its own."""
    for descriptor in _HELD:
        with contextlib.suppress(OSError):
            os.close(descriptor)
    _HELD.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go)
