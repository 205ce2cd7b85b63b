"""The folder of a job of `compress`: which job it belongs to, and files of an earlier call."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import pathlib
import shutil
from typing import TYPE_CHECKING

import numpy as np

from tfnas.compression.training_settings import TrainingSettings
from tfnas.data.datasets import DataSplit
from tfnas.reports import compress_report
from tfnas.runtime.files import model_digest, write_atomically
from tfnas.search_space.json_records import parse_json_object

if TYPE_CHECKING:
    import keras

PRODUCTS = (*compress_report.FILES, "best.tflite", "saved_model")
RECIPES = 3  # increased whenever a recipe of the same name means something else


def remove_job(folder: pathlib.Path) -> None:
    """Removes the folder of a job, and no other folder.

    Args:
        folder: The folder, which need not exist.

    Raises:
        ValueError: The folder holds files, but no job.
    """
    if not folder.is_dir() or not any(folder.iterdir()):
        return
    if not (folder / "job.json").exists():
        raise ValueError(f"directory must be a job's folder to overwrite it, got {str(folder)!r}")
    shutil.rmtree(folder)


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
    folder: pathlib.Path, model: keras.Model, split: DataSplit, settings: TrainingSettings
) -> None:
    """Writes which job a folder belongs to, or checks that it belongs to this one.

    The budget, its device and the effort (with its epochs) may change: candidates stay valid.

    Args:
        folder: The folder; a missing one is created.
        model: The model before compression.
        split: The data, divided as the job uses it.
        settings: How steps are trained.

    Raises:
        ValueError: The folder belongs to another job, or holds other files.
    """
    fields = json.loads(json.dumps(dataclasses.asdict(settings)))
    job = {
        "recipes": RECIPES,
        "model": model_digest(model),
        "settings": {k: v for k, v in fields.items() if k != "epochs"},
        "data": f"{split.name}, {len(split.x_train)} images, {_digest(split)}",
    }
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"directory must be a folder, got {str(folder)!r}, which is a file")
    path = folder / "job.json"
    if not path.exists():
        existing = [name for name in (*PRODUCTS, "earlier") if (folder / name).exists()]
        if existing:
            raise ValueError(
                f"directory must be a folder of its own, got {str(folder)!r}, which holds "
                f"{', '.join(existing)} of something else"
            )
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


def _digest(split: DataSplit) -> str:
    digest = hashlib.sha256()
    for part in ("train", "val", "test"):
        for name in (f"x_{part}", f"y_{part}"):
            digest.update(np.ascontiguousarray(getattr(split, name)).data)
    return digest.hexdigest()[:16]
