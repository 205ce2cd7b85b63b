"""The folder of a job of `compress`: which job it belongs to, and files of an earlier call."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import pathlib
import shutil
from typing import TYPE_CHECKING

import numpy as np

from tfnas.compression.recipe import STEPS
from tfnas.compression.training_settings import TrainingSettings
from tfnas.data.data_split import DataSplit
from tfnas.jobs.output_folder import output_folder
from tfnas.reports import compress_report
from tfnas.runtime.files import model_digest, write_atomically
from tfnas.search_space.json_records import parse_json_object

if TYPE_CHECKING:
    import keras

PRODUCTS = (*compress_report.FILES, "best.tflite", "saved_model")
JOB = "job.json"
_CANDIDATE = ("model.tflite", "model.keras", "right.npy", "record.json", "device.json")
_OWN = (
    *(*PRODUCTS, "model_analysis.json"),
    *(f"{folder}/{name}" for folder in ("earlier", "earlier.part") for name in PRODUCTS),
    *(f"candidates/*/{name}" for name in _CANDIDATE),
    *(f"models/{step}_*.keras" for step in STEPS),
)  # what a job writes, beside `JOB`
_SHOWN = 5  # names in an error message
RECIPES = 3  # increased whenever a recipe of the same name means something else


def remove_job(folder: pathlib.Path) -> None:
    """Removes the files of a job; other files in its folder stay.

    The folder itself is removed where nothing else is in it.

    Args:
        folder: The folder, which need not exist.

    Raises:
        ValueError: The folder holds files, but no job.
    """
    if not folder.is_dir() or not _names_in(folder):
        return
    if not _holds_job(folder):
        raise ValueError(_refusal(folder))
    for pattern in _OWN:
        _remove_matching(folder, pattern)
    for name in ("candidates/*", "candidates", "models", "earlier", "earlier.part"):
        for path in list(folder.glob(name)):
            _remove_empty(path)
    _remove_matching(folder, JOB)  # last: a removal that was killed can be repeated
    _remove_empty(folder)


def set_aside(folder: pathlib.Path) -> None:
    """Moves the results of an earlier call, perhaps for another budget, to the folder `earlier`.

    The report is written last: where it exists, the earlier call was finished. Results of a call
    that was killed before are removed. A move that was killed is completed.

    Args:
        folder: A job's folder.
    """
    found = [folder / name for name in PRODUCTS if (folder / name).exists()]
    moving, earlier = folder / "earlier.part", folder / "earlier"
    if moving.exists() or compress_report.LAST in [path.name for path in found]:
        moving.mkdir(exist_ok=True)
        for path in found:  # the report first
            path.replace(moving / path.name)
        shutil.rmtree(earlier, ignore_errors=True)
        moving.rename(earlier)
        return
    for path in found:
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def claim(
    folder: pathlib.Path,
    model: keras.Model,
    split: DataSplit,
    settings: TrainingSettings,
    overwrite: bool = False,
) -> None:
    """Writes which job a folder belongs to, or checks that it belongs to this one.

    The budget, its device and the effort (with its epochs) may change: candidates stay valid.

    Args:
        folder: The folder; a missing one is created.
        model: The model before compression.
        split: The data, divided as the job uses it.
        settings: How steps are trained.
        overwrite: Whether the files of a job in the folder are removed first; other files stay.

    Raises:
        ValueError: The folder belongs to another job, holds other files but no job, or can't be
            created.
    """
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"directory must be a folder, got {str(folder)!r}, which is a file")
    if overwrite:
        remove_job(folder)
    elif folder.is_dir() and not _holds_job(folder) and _names_in(folder):
        raise ValueError(_refusal(folder))
    with output_folder(folder):
        _claim(folder, model, split, settings)


def _claim(
    folder: pathlib.Path, model: keras.Model, split: DataSplit, settings: TrainingSettings
) -> None:
    fields = json.loads(json.dumps(dataclasses.asdict(settings)))
    job = {
        "recipes": RECIPES,
        "model": model_digest(model),
        "settings": {k: v for k, v in fields.items() if k != "epochs"},
        "data": f"{split.name}, {len(split.x_train)} images, {_digest(split)}",
    }
    path = folder / JOB
    if not path.exists():
        write_atomically(path, json.dumps(job, indent=1))
        return
    before = parse_json_object(path.read_text(), "job")
    if before.get("recipes") != RECIPES:
        raise ValueError(
            f"directory {str(folder)!r} holds a job of another version of tfnas, whose recipes "
            "had another meaning; choose another folder, or overwrite it"
        )
    for name, value in job.items():
        if before.get(name) != value:
            raise ValueError(
                f"directory {str(folder)!r} holds a job of another {name}: {before.get(name)!r}, "
                f"got {value!r}; choose another folder, or overwrite it"
            )


def _holds_job(folder: pathlib.Path) -> bool:
    try:
        record = json.loads((folder / JOB).read_text())
    except (OSError, ValueError):
        return False
    # "recipes" is not among the keys: jobs of the first version had none.
    return isinstance(record, dict) and {"model", "settings", "data"} <= record.keys()


def _names_in(folder: pathlib.Path) -> list[str]:
    """Returns the names in a folder without what a killed claim leaves."""
    return sorted(p.name for p in folder.iterdir() if not p.match(f".{JOB}.*.part"))


def _refusal(folder: pathlib.Path) -> str:
    names = _names_in(folder)
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return (
        f"directory must be new, empty or the folder of a job of compress, got {str(folder)!r}, "
        f"which holds {', '.join(names[:_SHOWN])}{more}"
    )


def _remove_matching(folder: pathlib.Path, pattern: str) -> None:
    """Removes files or folders, and what a killed write of them left."""
    where, _, name = pattern.rpartition("/")
    stem, suffix = pathlib.Path(name).stem, pathlib.Path(name).suffix
    for form in (name, f".{name}.*.part", f".{stem}.part{suffix}"):
        for path in list(folder.glob(f"{where}/{form}" if where else form)):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()


def _remove_empty(folder: pathlib.Path) -> None:
    with contextlib.suppress(OSError):  # it holds other files
        folder.rmdir()


def _digest(split: DataSplit) -> str:
    digest = hashlib.sha256()
    for part in ("train", "val", "test"):
        for name in (f"x_{part}", f"y_{part}"):
            digest.update(np.ascontiguousarray(getattr(split, name)).data)
    return digest.hexdigest()[:16]
