"""The folder of a job of `compress`: whose it is, and what an earlier call left there."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import pathlib
import shutil
from typing import Any

import numpy as np

from tfnas.compression.training_settings import TrainingSettings
from tfnas.data.datasets import DataSplit
from tfnas.reports import compress_report
from tfnas.runtime.files import model_digest, write_atomically
from tfnas.search_space.architecture import parse_json_object

PRODUCTS = (*compress_report.FILES, "best.tflite", "saved_model")
RECIPES = 3  # counts up whenever a recipe of the same name makes something else


def empty(folder: pathlib.Path) -> None:
    """Removes a job; what is no job's folder is left alone.

    Args:
        folder: The folder, which need not exist.

    Raises:
        ValueError: It holds something, and no job.
    """
    if not folder.is_dir() or not any(folder.iterdir()):
        return
    if not (folder / "job.json").exists():
        raise ValueError(f"directory must be a job's folder to overwrite it, got {str(folder)!r}")
    shutil.rmtree(folder)


def set_aside(folder: pathlib.Path) -> None:
    """What an earlier call ended with, perhaps for another budget, leaves its place.

    The report, which is written last, tells that it came to its end; what a call that was killed
    had begun to write goes. A move that was killed is ended.

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


def claim(folder: pathlib.Path, model: Any, split: DataSplit, settings: TrainingSettings) -> None:
    """Writes what a folder is for, or checks that it is for this job.

    The budget, its device and the effort (with its epochs) may change: what is made stays good.

    Args:
        folder: The folder, made where there is none.
        model: The model that is compressed.
        split: Its data, as the job uses them.
        settings: How steps train.

    Raises:
        ValueError: It is another job's, or something else's.
    """
    asked = json.loads(json.dumps(dataclasses.asdict(settings)))
    job = {
        "recipes": RECIPES,
        "model": model_digest(model),
        "settings": {k: v for k, v in asked.items() if k != "epochs"},
        "data": f"{split.name}, {len(split.x_train)} images, {_digest(split)}",
    }
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"directory must be a folder, got {str(folder)!r}, which is a file")
    path = folder / "job.json"
    if not path.exists():
        taken = [name for name in (*PRODUCTS, "earlier") if (folder / name).exists()]
        if taken:
            raise ValueError(
                f"directory must be a folder of its own, got {str(folder)!r}, which holds "
                f"{', '.join(taken)} of something else"
            )
        write_atomically(path, json.dumps(job, indent=1))
        return
    before = parse_json_object(path.read_text(), "job")
    if before.get("recipes") != RECIPES:
        raise ValueError(
            f"directory {str(folder)!r} holds a job of another version of tfnas, whose recipes "
            "meant something else; take another folder, or overwrite it"
        )
    for name, value in job.items():
        if before.get(name) != value:
            raise ValueError(
                f"directory {str(folder)!r} holds a job of another {name}: {before.get(name)!r}, "
                f"got {value!r}; take another folder, or overwrite it"
            )


def _digest(split: DataSplit) -> str:
    found = hashlib.sha256()
    for part in ("train", "val", "test"):
        for name in (f"x_{part}", f"y_{part}"):
            found.update(np.ascontiguousarray(getattr(split, name)).data)
    return found.hexdigest()[:16]
