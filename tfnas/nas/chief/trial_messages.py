"""Why a trial failed, from a worker of keras_tuner's chief to the chief: a file of the trial."""

from __future__ import annotations

import pathlib

from tfnas.runtime.files import write_atomically

_NAME = "failure.txt"


def leave_message(folder: str, message: str) -> None:
    """Writes the reason of a failure.

    Args:
        folder: The trial's.
        message: The reason.
    """
    write_atomically(pathlib.Path(folder) / _NAME, message)


def message_of(folder: str) -> str | None:
    """Returns the reason that was left, once; None: none was.

    Args:
        folder: The trial's.
    """
    path = pathlib.Path(folder) / _NAME
    if not path.exists():
        return None
    text = path.read_text()
    path.unlink()
    return text
