"""A lock on the folder of a search: two searches in one folder would destroy each other."""

from __future__ import annotations

import contextlib
import pathlib
from collections.abc import Iterator

try:
    import fcntl
except ImportError:  # Windows has no such locks
    fcntl = None  # type: ignore[assignment]

_NAME = ".owner.lock"


@contextlib.contextmanager
def owner_of(folder: pathlib.Path) -> Iterator[None]:
    """Locks a search folder; the lock is released when the process ends, however it ends.

    Args:
        folder: The folder; a missing one is created.

    Raises:
        RuntimeError: Another search has locked it.
    """
    if fcntl is None:
        yield
        return
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / _NAME).open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise RuntimeError(
                f"directory {str(folder)!r} belongs to a search that is running: wait for it, or "
                "choose another directory or project_name"
            ) from error
        yield
