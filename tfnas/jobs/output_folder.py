"""The folder that a job writes into, created before the long work."""

from __future__ import annotations

import contextlib
import os
import pathlib
from collections.abc import Iterator


@contextlib.contextmanager
def output_folder(directory: str | os.PathLike[str]) -> Iterator[pathlib.Path]:
    """Creates a folder for results; removes it again where the job fails and wrote nothing.

    Args:
        directory: The folder; it may exist.

    Yields:
        The folder.

    Raises:
        ValueError: The folder can't be created, or nothing can be written into it.
    """
    folder = pathlib.Path(directory)
    missing = [part for part in (folder, *folder.parents) if not part.exists()]
    create_folder(folder)
    try:
        yield folder
    except BaseException:
        with contextlib.suppress(OSError):  # one that holds files stays
            for part in missing:
                part.rmdir()
        raise


def create_folder(directory: str | os.PathLike[str]) -> pathlib.Path:
    """Creates a folder for results.

    Args:
        directory: The folder; it may exist.

    Returns:
        The folder.

    Raises:
        ValueError: The folder can't be created, or nothing can be written into it.
    """
    folder = pathlib.Path(directory)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(
            f"directory must be a folder that exists or can be created, got {str(folder)!r}: "
            f"{error.strerror}"
        ) from error
    if not os.access(folder, os.W_OK):
        raise ValueError(f"directory must be a writable folder, got {str(folder)!r}")
    return folder
