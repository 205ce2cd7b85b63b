"""Rules for a tuner's arguments that belong together."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tfnas.distillation.distiller import Distiller
from tfnas.distillation.output_checks import check_model
from tfnas.search_space.compression_choices import CompressionSpace
from tfnas.search_space.hypermodel import CompressedHyperModel, SpaceHyperModel


def check_target(milliseconds: float | None, ratio: float | None) -> None:
    """Raises ValueError unless at most one target is given, and that above 0."""
    if milliseconds is not None and ratio is not None:
        raise ValueError(
            f"target_latency_ms and target_latency_ratio must not both be given, "
            f"got {milliseconds!r} and {ratio!r}"
        )
    for name, value in (("target_latency_ms", milliseconds), ("target_latency_ratio", ratio)):
        if value is not None and not (value > 0 and math.isfinite(value)):
            raise ValueError(f"{name} must be above 0, got {value!r}")


def with_compression(hypermodel: Any, compression: CompressionSpace | None) -> Any:
    """A hypermodel with further choices, where there are some."""
    if compression is None:
        return hypermodel
    if not isinstance(compression, CompressionSpace):
        raise ValueError(f"compression must be a tfnas.CompressionSpace, got {compression!r}")
    if hypermodel is None or isinstance(hypermodel, SpaceHyperModel):
        raise ValueError(
            "compression of a search space must be given to the space, such as "
            "tfnas.MobileNetV2Space(..., compression=...), got it beside one"
        )
    return CompressedHyperModel(hypermodel, compression)


def check_teacher(hypermodel: Any, teacher: Any) -> None:
    """Raises ValueError unless there is a teacher just where something may learn from it."""
    choices = getattr(hypermodel, "choices", None)
    if isinstance(hypermodel, SpaceHyperModel):
        choices = getattr(hypermodel.space, "compression", None)
    wanted = choices is not None and any(choices.distill)
    if not wanted:
        if teacher is not None:
            raise ValueError(
                "teacher goes with a compression that may distill, distill=(False, True), got none"
            )
        return
    if teacher is None:
        raise ValueError("teacher must be given where the compression may distill, got None")
    for model in teacher if isinstance(teacher, list | tuple) else [teacher]:
        check_model("teacher", model)
    if isinstance(hypermodel, SpaceHyperModel):
        space = hypermodel.space
        Distiller(teacher, space.build(space.sample(np.random.default_rng(0))))  # its own rules
