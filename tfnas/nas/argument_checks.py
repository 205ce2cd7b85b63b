"""Checks of arguments of a tuner that depend on each other."""

from __future__ import annotations

from typing import Any

import numpy as np

from tfnas.compression.trial_compression import technique_of
from tfnas.distillation.distiller import Distiller
from tfnas.distillation.output_checks import check_model
from tfnas.search_space.compression_choices import CompressionSpace
from tfnas.search_space.hypermodel import CompressedHyperModel, SpaceHyperModel


def with_compression(hypermodel: Any, compression: CompressionSpace | None) -> Any:
    """Returns a hypermodel that also chooses the compression.

    Args:
        hypermodel: A keras_tuner hypermodel or model-building function.
        compression: Choices of the compression; None returns the hypermodel itself.

    Raises:
        ValueError: `compression` goes with a search space or with no hypermodel.
    """
    if compression is None:
        return hypermodel
    if hypermodel is None or isinstance(hypermodel, SpaceHyperModel):
        raise ValueError(
            "compression of a search space must be an argument of the space, as in "
            "tfnas.MobileNetV2Space(..., compression=...), got it in the config of the tuner"
        )
    return CompressedHyperModel(hypermodel, compression)


def check_techniques(hypermodel: Any) -> None:
    """Checks the further techniques of a compression and their amounts.

    Args:
        hypermodel: The hypermodel of a tuner.

    Raises:
        ValueError: There is no such technique, or it has no such amount, or makes integers of
            another number format than the files may have.
    """
    choices = _compression_of(hypermodel)
    if choices is None:
        return
    for name, amounts in choices.more:
        try:
            own = technique_of(name)
            for amount in filter(None, amounts):
                settings = own.for_amount(amount, brief=True)
                if own.final and settings.mode not in choices.modes:
                    raise ValueError(
                        f"{name} {amount:g} needs {settings.mode} among the modes, got "
                        f"{', '.join(choices.modes)}"
                    )
        except ValueError as error:
            raise ValueError(f"more of the compression: {error}") from error


def _compression_of(hypermodel: Any) -> CompressionSpace | None:
    if isinstance(hypermodel, SpaceHyperModel):
        return getattr(hypermodel.space, "compression", None)
    return getattr(hypermodel, "choices", None)


def check_teacher(hypermodel: Any, teacher: Any) -> None:
    """Checks that there is a teacher if and only if a choice of compression distills.

    Args:
        hypermodel: The hypermodel of a tuner.
        teacher: A Keras model, several, or None.

    Raises:
        ValueError: The teacher is missing, not needed, no Keras model, or doesn't fit the networks
            of the search space.
    """
    choices = _compression_of(hypermodel)
    may_distill = choices is not None and any(choices.distill)
    if not may_distill:
        if teacher is not None:
            raise ValueError(
                "teacher needs a compression that may distill, such as "
                "tfnas.CompressionSpace(distill=(False, True)), got none"
            )
        return
    if teacher is None:
        raise ValueError("teacher must be given if the compression may distill, got None")
    for model in teacher if isinstance(teacher, list | tuple) else [teacher]:
        check_model("teacher", model)
    if isinstance(hypermodel, SpaceHyperModel):
        space = hypermodel.space
        Distiller(teacher, space.build(space.sample(np.random.default_rng(0))))  # checks the shapes
