"""The folder of a job of `compress`, and files of an earlier call in it."""

from __future__ import annotations

import dataclasses
import pathlib
import shutil
from typing import TYPE_CHECKING, Any

from tfnas.compression.techniques.registry import techniques
from tfnas.compression.training_curves import FILE
from tfnas.jobs.job_folder import JobFolder
from tfnas.reports import compress_report
from tfnas.runtime.files import model_digest

if TYPE_CHECKING:
    from tfnas.compression.technique_context import Context

PRODUCTS = (*compress_report.FILES, "best.tflite", "saved_model")
_CANDIDATE = (
    "model.tflite",
    "model.keras",
    "values.npy",
    "right.npy",
    "record.json",
    "device.json",
)
_OWN = (
    *(*PRODUCTS, "model_analysis.json", FILE),
    *(f"{folder}/{name}" for folder in ("earlier", "earlier.part") for name in PRODUCTS),
    *(f"candidates/*/{name}" for name in _CANDIDATE),
    *(f"sizes/*/{name}" for name in ("model.tflite", "record.json", "device.json")),
    "training/*/*/*.npz",
)


def compress_folder(path: pathlib.Path) -> JobFolder:
    """Returns the folder of a job of `compress`.

    Args:
        path: The folder; it need not exist.
    """
    models = [f"models/{each.name}_*.keras" for each in techniques()]
    return JobFolder(path, "compress", (*_OWN, *models))


def identity_of(context: Context) -> dict[str, Any]:
    """Returns what makes a job of `compress` the same.

    The budget, its device and the effort (with its epochs) may change: candidates stay valid.

    Args:
        context: The model, its data, and how steps are trained.
    """
    settings = dataclasses.asdict(context.settings)
    del settings["epochs"]
    data = context.data
    return {
        "model": model_digest(context.original),
        "task": context.task.identity(),
        "settings": settings,
        "data": f"{data.name}, {len(data.train)} examples, {data.digest()}",
    }


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
