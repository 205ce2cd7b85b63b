"""Files that others made: what is checked before anything reads them.

A path may lead to a pipe that never ends, an archive may be small on the disk only, and its names
may lead out of it. See docs/decisions/0030.
"""

from __future__ import annotations

import errno
import os
import pathlib
import stat
import zipfile
from typing import IO

# What an archive may expand to, whatever its own size; beyond, this many bytes for each of its own.
# Deflate packs zeros 1,032 times, data that somebody trains on far less.
FREE_BYTES = 2**30
MOST_EXPANSION = 200
_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def open_regular(path: str | os.PathLike[str]) -> IO[bytes]:
    """Opens a file for reading, and nothing that only looks like one: a pipe, a device, a folder.

    Example:
        >>> open_regular("/dev/null")
        Traceback (most recent call last):
          ...
        ValueError: '/dev/null' must be a regular file, got a device

    Args:
        path: The file; symbolic links are followed.

    Returns:
        The open file.

    Raises:
        ValueError: It is something else.
        OSError: There is no such file, or it can't be opened.
    """
    flags = os.O_RDONLY | getattr(os, "O_BINARY", 0)
    # Opening a pipe waits for a writer, unless it is told not to.
    flags |= getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0)
    try:
        descriptor = os.open(path, flags)
    except OSError as error:
        if error.errno == errno.ENXIO:  # a socket
            raise ValueError(f"{os.fspath(path)!r} must be a regular file, got a socket") from error
        raise
    try:
        mode = os.fstat(descriptor).st_mode
        if not stat.S_ISREG(mode):
            kind = next((text for test, text in _KINDS if test(mode)), "something else")
            raise ValueError(f"{os.fspath(path)!r} must be a regular file, got {kind}")
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def read_regular(path: str | os.PathLike[str]) -> bytes:
    """Returns the bytes of a file, as :func:`open_regular` opens it.

    Args:
        path: The file.

    Raises:
        ValueError: It is no regular file.
        OSError: There is no such file, or it can't be read.
    """
    with open_regular(path) as stream:
        return stream.read()


def check_archive(file: str | os.PathLike[str] | IO[bytes]) -> None:
    """Checks a zip archive before anything is unpacked.

    Args:
        file: The archive, as a path or open for reading.

    Raises:
        ValueError: A name leads out of the archive, or comes twice; a part is encrypted, or no
            plain file; or all of it expands beyond what its size lets expect, or beyond memory.
        zipfile.BadZipFile: It is no archive.
    """
    with zipfile.ZipFile(file) as archive:
        parts = archive.infolist()
    seen = set()
    for part in parts:
        name = part.filename
        if _leads_out(name):
            raise ValueError(f"an archive must hold names inside of it, got {name[:200]!r}")
        if name in seen:
            raise ValueError(f"an archive must hold each name once, got {name[:200]!r} twice")
        seen.add(name)
        if part.flag_bits & 1:
            raise ValueError(f"an archive must not be encrypted, got {name[:200]!r} that is")
        if stat.S_ISLNK(part.external_attr >> 16):
            raise ValueError(f"an archive must hold plain files, got the link {name[:200]!r}")
    stored = sum(part.compress_size for part in parts)
    check_expansion(sum(part.file_size for part in parts), stored, "an archive")


def check_expansion(size: int, stored: int, what: str) -> None:
    """Checks that what a file expands to is in proportion, and fits into this machine's memory.

    Args:
        size: Bytes of what is read from it.
        stored: Bytes that the file has.
        what: What the message calls it.

    Raises:
        ValueError: It is more than 1 GiB and more than 200 times the file, or more than memory.
    """
    if size > FREE_BYTES and size > MOST_EXPANSION * stored:
        raise ValueError(
            f"{what} must expand to at most {MOST_EXPANSION} times its size, got {size:,} bytes "
            f"from {stored:,}"
        )
    memory = _memory()
    if memory and size > memory:
        raise ValueError(f"{what} must fit into memory, {memory:,} bytes, got {size:,} bytes")


def _memory() -> int | None:
    """Bytes of this machine's memory; None where the system does not say."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return None


def _leads_out(name: str) -> bool:
    paths = (pathlib.PurePosixPath(name), pathlib.PureWindowsPath(name))
    return "\0" in name or any(
        path.is_absolute() or path.anchor or ".." in path.parts for path in paths
    )
