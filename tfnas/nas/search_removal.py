"""Removal of an earlier search: its own files, and nothing else in its folder."""

from __future__ import annotations

import contextlib
import os
import pathlib
import re
import shutil

from tfnas.nas.latency_prediction import FILE as LATENCY_MODEL
from tfnas.nas.supernet.supernet_files import ALONE, FINALIST, SCORES, SHARED_WEIGHTS
from tfnas.nas.supernet.supernet_files import FOLDER as SUPERNET
from tfnas.runtime.files import sweep_parts

_FILES = ("oracle.json", "tuner0.json", LATENCY_MODEL)
_OF_SUPERNET = (SHARED_WEIGHTS, SCORES, ALONE, FINALIST.format("*"))
_TRIAL = re.compile(r"trial_[0-9a-f]+")


def remove_search(folder: pathlib.Path) -> None:
    """Removes the files of a search, of keras_tuner's too; other files in its folder stay.

    keras_tuner would remove the whole folder, which may be the user's working folder.

    Args:
        folder: The folder `directory/project_name` of the search.
    """
    for path in folder.iterdir():
        is_trial = _TRIAL.fullmatch(path.name) and (path / "trial.json").is_file()
        if is_trial and not path.is_symlink():
            shutil.rmtree(path)
    own_id = os.environ.get("KERASTUNER_TUNER_ID")
    for name in (*_FILES, *([f"{own_id}.json"] if own_id else [])):
        with contextlib.suppress(FileNotFoundError):
            (folder / name).unlink()
    supernet = folder / SUPERNET
    for pattern in _OF_SUPERNET:
        for path in supernet.glob(pattern):
            path.unlink()
    with contextlib.suppress(OSError):  # there is none, or it holds other files too
        supernet.rmdir()
    sweep_parts(folder)
