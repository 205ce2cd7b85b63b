"""The keyword arguments of a tuner that are keras_tuner's own, and the check of their names."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Mapping
from typing import Any, TypedDict

import keras
import keras_tuner as kt

from tfnas.runtime.argument_rules import did_you_mean


class KerasTunerArguments(TypedDict, total=False):
    """The arguments of keras_tuner's Oracle and Tuner that tfnas' tuners take as they are.

    Args:
        hyperparameters: Hyperparameters that are declared in advance, or override the hypermodel's.
        tune_new_entries: Whether hyperparameters beyond `hyperparameters` are searched.
        allow_new_entries: Whether the hypermodel may declare further hyperparameters.
        max_retries_per_trial: Number of retries of a trial that crashed.
        max_consecutive_failed_trials: Number of failed trials in a row that end the search.
        directory: Folder of the results.
        project_name: Name of the search's folder in `directory`.
        overwrite: Whether an earlier search in the folder is removed; else it is resumed.
        tuner_id: Name of this tuner.
        executions_per_trial: Number of trainings of each trial; the objective is their mean.
        max_model_size: Largest number of parameters of a model; a larger one fails its trial.
        optimizer: Optimizer instead of the hypermodel's.
        loss: Loss instead of the hypermodel's.
        metrics: Metrics instead of the hypermodel's.
        distribution_strategy: A `tf.distribute.Strategy` that each trial runs under.
        logger: Ignored, as by keras_tuner.
    """

    hyperparameters: kt.HyperParameters | None
    tune_new_entries: bool
    allow_new_entries: bool
    max_retries_per_trial: int
    max_consecutive_failed_trials: int
    directory: str | os.PathLike[str] | None
    project_name: str | None
    overwrite: bool
    tuner_id: str | None
    executions_per_trial: int
    max_model_size: int | None
    optimizer: str | keras.optimizers.Optimizer | None
    loss: str | keras.losses.Loss | None
    metrics: list[str | keras.metrics.Metric] | None
    distribution_strategy: Any
    logger: Any


_ORACLE = (
    "hyperparameters",
    "tune_new_entries",
    "allow_new_entries",
    "max_retries_per_trial",
    "max_consecutive_failed_trials",
)


def split_arguments(arguments: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns the arguments of keras_tuner's Oracle, and those of its Tuner.

    Args:
        arguments: Keyword arguments of a tuner.
    """
    oracle = {name: value for name, value in arguments.items() if name in _ORACLE}
    return oracle, {name: value for name, value in arguments.items() if name not in _ORACLE}


def check_names(
    names: Iterable[str], own: Iterable[str], records: Mapping[str, type | object]
) -> None:
    """Checks the names of a tuner's keyword arguments.

    Example:
        >>> check_names(["overwrit"], ["seed"], {})
        Traceback (most recent call last):
        ValueError: unknown argument 'overwrit': did you mean 'overwrite'?

    Args:
        names: The names.
        own: Names of the tuner's other arguments.
        records: Argument -> the dataclass (or an instance) that it takes.

    Raises:
        ValueError: A name is unknown; the message names the nearest right one, or the argument
            whose field it is.
    """
    known = [*own, *KerasTunerArguments.__annotations__]
    for name in names:
        if name in known:
            continue
        for argument, record in records.items():
            kind = record if isinstance(record, type) else type(record)
            if dataclasses.is_dataclass(kind) and name in _fields(kind):
                raise ValueError(
                    f"unknown argument {name!r}: did you mean "
                    f"{argument}=tfnas.{kind.__name__}({name}=...)?"
                )
        raise ValueError(f"unknown argument {name!r}: {did_you_mean(name, known)}")


def _fields(kind: type) -> list[str]:
    return [field.name for field in dataclasses.fields(kind)]
