"""The results of a trial: what `HyperModel.fit` and `Tuner.run_trial` may return.

The rules are keras_tuner's (`validate_trial_results`): a `keras.callbacks.History`, a dictionary of
metrics, a number, or a list of one of these, with the objective in it. Wrong results are errors of
the program, not of a trial, so they end the search at its first trial.
"""

from __future__ import annotations

import numbers
from collections.abc import Collection, Mapping
from typing import Any

import keras
import keras_tuner as kt
import numpy as np

from tfnas.nas.keras_tuner_private import validate_results
from tfnas.nas.metric_directions import KNOWN_DIRECTIONS
from tfnas.nas.objectives import Objectives
from tfnas.runtime.argument_rules import did_you_mean

UNSPECIFIED = "default_objective"  # keras_tuner's name of an objective that is None
_FIT = "HyperModel.fit()"


def check_results(results: object, objective: kt.Objective, names: Collection[str]) -> None:
    """Checks what `HyperModel.fit` returned, as keras_tuner does.

    Args:
        results: What it returned.
        objective: The objective of the oracle.
        names: Names of all objectives that `fit` must report.

    Raises:
        FatalTypeError: It is none of the types that keras_tuner takes, or a metric is no number.
        FatalValueError: An objective is not in it.
    """
    for each in results if isinstance(results, list) else [results]:
        reported = each.history if isinstance(each, keras.callbacks.History) else each
        if isinstance(reported, Mapping) and UNSPECIFIED not in names:
            check_reported(reported, names)
        validate_results(each, objective, _FIT)
        if isinstance(each, Mapping):
            plain_metrics(each)


def check_reported(metrics: Collection[str], names: Collection[str]) -> None:
    """Checks that a trial reports its objectives.

    Args:
        metrics: Names of the metrics that it reports.
        names: Names of the objectives.

    Raises:
        FatalValueError: One is missing; the message has the nearest one that is there.
    """
    for name in names:
        if name not in metrics:
            raise kt.errors.FatalValueError(
                f"objective must be a metric that the trials report ({', '.join(metrics)}), got "
                f"{name!r}: {did_you_mean(name, metrics)}"
            )


def epochs_of_results(results: object, objectives: Objectives) -> dict[str, list[float]]:
    """Returns the metrics by epoch that `HyperModel.fit` reported, where files are measured.

    The objectives that tfnas measures on the file need not be among them.

    Args:
        results: A History, or a dictionary of metrics; their values count as one epoch.
        objectives: The objectives of the search.

    Raises:
        FatalTypeError: It returned something else.
        FatalValueError: An objective that is not measured on the file is missing.
    """
    if isinstance(results, keras.callbacks.History):
        history = results.history
    elif isinstance(results, Mapping):
        history = {name: [_number(name, value)] for name, value in results.items()}
    else:
        raise kt.errors.FatalTypeError(
            f"{_FIT} must return a keras.callbacks.History or a dictionary of metrics if files "
            f"are measured (objective {', '.join(objectives.names)}), got {results!r}"
        )
    check_reported({*history, *KNOWN_DIRECTIONS}, objectives.names)
    return history


def plain_metrics(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Returns metrics as Python numbers, which a trial's file can hold.

    Args:
        metrics: Value by name of the metric; NumPy's and TensorFlow's scalars are converted.

    Raises:
        FatalTypeError: A value is no number.
    """
    return {name: _number(name, value) for name, value in metrics.items()}


def _number(name: str, value: Any) -> float:
    if isinstance(value, numbers.Real):
        return float(value)
    try:
        array = np.asarray(value)
        if array.size == 1 and array.dtype.kind in "fiub":
            return float(array.reshape(()))
    except (TypeError, ValueError):
        pass
    raise kt.errors.FatalTypeError(f"metric {name!r} must be a number, got {value!r}")
