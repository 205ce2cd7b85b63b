"""The reasons of failures, which workers of keras_tuner's chief leave in their trial's folder."""

from __future__ import annotations

import pathlib

from tfnas.runtime.files import write_atomically

_NAME = "failure.txt"


def write_failure(folder: str, message: str) -> None:
    """Writes the reason of a failure.

    Args:
        folder: Folder of the trial.
        message: The reason.
    """
    write_atomically(pathlib.Path(folder) / _NAME, message)


def read_failure(folder: str) -> str | None:
    """Returns the reason of a failure and removes its file; None: there is no file.

    Args:
        folder: Folder of the trial.
    """
    path = pathlib.Path(folder) / _NAME
    if not path.exists():
        return None
    text = path.read_text()
    path.unlink()
    return text
