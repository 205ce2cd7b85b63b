"""The size that the file of a recipe will have, before anything is trained for it.

A file's bytes depend on the widths of its layers and hardly on the values of its weights. So the
planner of `compress` lands under a limit in seconds, not in trainings.
"""

from __future__ import annotations

import dataclasses
import math
import pathlib
from typing import TYPE_CHECKING

from tfnas.compression.budget import CandidateCosts
from tfnas.compression.device_costs import Target
from tfnas.compression.known_file import KnownFile
from tfnas.compression.post_training_file import post_training_file
from tfnas.compression.recipe import Recipe
from tfnas.compression.technique_context import Context
from tfnas.compression.technique_row import run_row
from tfnas.measure.measure import ACTIVATION_BYTES
from tfnas.measure.profile import profile
from tfnas.quantization.quantize_aware import quantize_aware_partly
from tfnas.runtime.store import Record
from tfnas.tflite.artifact import Artifact
from tfnas.tflite.conversion_error import ConversionError
from tfnas.tflite.convert import to_tflite

if TYPE_CHECKING:
    import keras

FORMAT = 1  # of the record of a size


def untrained_size(
    recipe: Recipe, context: Context, folder: pathlib.Path, target: Target
) -> KnownFile | None:
    """Returns the costs of a recipe's file without its training; quality and latency are NaN.

    A job that was killed reads what it found before, so that it takes the same steps again.

    Args:
        recipe: The recipe, with `untrained` set.
        context: The original, its task and data.
        folder: Folder of the job.
        target: The device of the files.

    Returns:
        The costs; None where a technique or the converter refuses the model.
    """
    fitted = "" if target.fit_for is None else f"_{target.fit_for}"
    place = folder / "sizes" / f"{recipe.key}{fitted}"
    record = Record(place / "record.json", "size", FORMAT)
    if record.exists():
        found = record.read()
        costs = None if found["costs"] is None else _costs(**found["costs"])
        file = None
    else:
        context.progress.phase(f"{recipe}: {recipe.why}")
        try:
            file, costs = _measured(recipe, context, target)
        except (ConversionError, ValueError) as error:  # a refusal, as of a candidate
            context.progress.phase(f"{recipe}: not possible: {error}")
            file, costs = None, None
        place.mkdir(parents=True, exist_ok=True)
        record.write({"costs": None if costs is None else _kept(costs)})
        if file is not None:
            file.save(place / "model.tflite")
    if costs is None:
        return None
    if target.metrics:
        file = file or Artifact.load(place / "model.tflite")
        costs = target.costs(costs, file, place)
    context.progress.phase(f"  {recipe}: {costs.bytes:,} bytes")
    return KnownFile(recipe, costs)


def _measured(recipe: Recipe, context: Context, target: Target) -> tuple[Artifact, CandidateCosts]:
    model = context.original
    untrained = context.replace(checkpoints=None)
    for number, step in enumerate(recipe.steps):
        names = tuple(each.technique for each in recipe.steps[:number])
        row = [dataclasses.replace(step.step(), epochs=0)]
        model = run_row(model, row, untrained.replace(before=names))[0].model
    file = target.fitted(_file(model, recipe, context), context.progress.phase)
    before, after = profile(context.original), profile(model)
    memory = after.peak_activation_bytes(ACTIVATION_BYTES.get(file.mode, 4))
    macs = after.macs / max(1, before.macs)
    return file, _costs(file.size, file.gzip_size, macs, memory)


def _file(model: keras.Model, recipe: Recipe, context: Context) -> Artifact:
    if recipe.aware:
        aware = quantize_aware_partly(model, recipe.mode, context.calibration())
        return to_tflite(aware, recipe.mode)
    return post_training_file(model, recipe.mode, context)


def _costs(bytes: int, gzip_bytes: int, macs: float, memory: int) -> CandidateCosts:
    return CandidateCosts(math.nan, bytes, gzip_bytes, math.nan, macs, memory)


def _kept(costs: CandidateCosts) -> dict[str, float]:
    return {name: getattr(costs, name) for name in ("bytes", "gzip_bytes", "macs", "memory")}
