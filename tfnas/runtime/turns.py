"""Processes of one user take turns at what only one can use at a time, such as a phone."""

from __future__ import annotations

import contextlib
import hashlib
import os
import pathlib
import tempfile
from collections.abc import Iterator

try:
    import fcntl
except ImportError:  # Windows has no such locks
    fcntl = None  # type: ignore[assignment]


@contextlib.contextmanager
def turn_at(name: str) -> Iterator[None]:
    """Waits until no other process of this user is inside with the same name.

    The lock is the system's own and ends with its process. Where there is none, as on Windows or
    where nothing can be written, nothing is waited for.

    Example:
        >>> with turn_at("phone 1"):
        ...     pass  # no other trial measures on it

    Args:
        name: What is used.
    """
    descriptor = _opened(lock_file(name))
    if descriptor is None or fcntl is None:
        yield
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def lock_file(name: str) -> pathlib.Path:
    """Returns the path of the file that is locked.

    Args:
        name: What is used.
    """
    user = os.getuid() if hasattr(os, "getuid") else 0
    digest = hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()[:16]
    return pathlib.Path(tempfile.gettempdir()) / f"tfnas-{user}-{digest}.lock"


def _opened(path: pathlib.Path) -> int | None:
    """Returns a descriptor of the file, which is never followed elsewhere; None: it can't be."""
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
    with contextlib.suppress(OSError):
        return os.open(path, flags, 0o600)
    return None
