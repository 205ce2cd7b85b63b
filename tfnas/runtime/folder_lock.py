"""One owner a search folder: two searches that write into one folder destroy both."""

from __future__ import annotations

import contextlib
import pathlib
from collections.abc import Iterator

try:
    import fcntl
except ImportError:  # no such locks on this system
    fcntl = None  # type: ignore[assignment]

_NAME = ".owner.lock"


@contextlib.contextmanager
def owner_of(folder: pathlib.Path) -> Iterator[None]:
    """Holds a search folder; the lock goes with the process, however it ends.

    Args:
        folder: The folder; it is made where there is none.

    Raises:
        RuntimeError: Another search holds it.
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
