"""Checks of the files of a search that may have been damaged or edited by hand.

keras_tuner restores a trial from whatever is in its file; a wrong type then ends the search much
later, and a trial of another id writes to another folder. Here the types are checked first.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import keras_tuner as kt

from tfnas.search_space.json_records import check_types

_Status = kt.engine.trial.TrialStatus
_STATUSES = (_Status.RUNNING, _Status.INVALID, _Status.COMPLETED, _Status.FAILED)
_MOST_RUNGS = 64  # more than a search can have
_PLAIN = (str, int, float, type(None))  # types of the values of hyperparameters


@dataclasses.dataclass
class _TrialFile:
    """What the file of a trial holds."""

    trial_id: str
    status: str
    score: float | None
    best_step: float | None
    message: str | None
    hyperparameters: dict[str, Any]
    metrics: dict[str, dict[str, Any]]


@dataclasses.dataclass
class _OwnState:
    """The part of it that is tfnas' own."""

    runs: int
    crashes: int
    ended: int | None
    parent: str | None
    continues: str | None
    rung: int | None


@dataclasses.dataclass
class _Metric:
    direction: str
    observations: list[dict[str, Any]]


@dataclasses.dataclass
class _Observation:
    value: list[float]
    step: float


def check_trial_file(state: Mapping[str, Any], trial_id: str, own_key: str) -> None:
    """Checks the content of a trial's file.

    Args:
        state: The content.
        trial_id: The id that the trial's folder has.
        own_key: The key of tfnas' own state.

    Raises:
        ValueError: A type is wrong, or the id is that of another folder.
        KeyError: A key is missing.
    """
    names = [field.name for field in dataclasses.fields(_TrialFile)]
    check_types(_TrialFile, {name: state[name] for name in names})
    if state["trial_id"] != trial_id:
        raise ValueError(
            f"trial_id must be the folder's, {trial_id!r}, got {state['trial_id'][:80]!r}"
        )
    if state["status"] not in _STATUSES:
        raise ValueError(f"status must be one of {', '.join(_STATUSES)}, got {state['status']!r}")
    for metric in state["metrics"]["metrics"].values():
        check_types(_Metric, metric)
        for observation in metric["observations"]:
            check_types(_Observation, observation)
    _check_values(state["hyperparameters"]["values"])
    _check_own(state.get(own_key, {}))


def _check_values(values: Any) -> None:
    if not isinstance(values, dict):
        raise ValueError(f"values must be a JSON object, got {type(values).__name__}")
    for name, value in values.items():
        if not isinstance(value, _PLAIN):
            raise ValueError(f"{name} must be a number or text, got {type(value).__name__}")


def _check_own(own: Any) -> None:
    if not isinstance(own, dict):
        raise ValueError(f"the state of tfnas must be a JSON object, got {type(own).__name__}")
    check_types(_OwnState, own)
    for name in ("runs", "crashes", "ended"):
        if (own.get(name) or 0) < 0:
            raise ValueError(f"{name} must be at least 0, got {own[name]}")
    for name in ("parent", "continues"):
        other = own.get(name)
        if other is not None and not (other.isascii() and other.isdigit()):
            raise ValueError(f"{name} must be the id of a trial, got {other[:80]!r}")
    if own.get("continues") is not None and not 1 <= own["rung"] <= _MOST_RUNGS:
        raise ValueError(f"rung must be from 1 to {_MOST_RUNGS}, got {own['rung']}")


def check_oracle_state(state: Mapping[str, Any]) -> None:
    """Checks the content of oracle.json.

    Args:
        state: The content.

    Raises:
        ValueError: A type is wrong.
        KeyError: A key is missing.
    """
    seed = state["seed"]
    if not isinstance(seed, int) or isinstance(seed, bool) or seed < 0:
        raise ValueError(f"seed must be a whole number >= 0, got {str(seed)[:80]}")
    if "hyperparameters" in state:
        _check_values(state["hyperparameters"]["values"])


def check_tuner_state(state: Mapping[str, Any]) -> None:
    """Checks the content of the tuner's own file.

    Args:
        state: The content.

    Raises:
        ValueError: A type is wrong.
    """
    ratio, epochs = state.get("target_ratio"), state.get("epochs")
    number = isinstance(ratio, int | float) and not isinstance(ratio, bool)
    if ratio is not None and not (number and ratio > 0):
        raise ValueError(f"target_ratio must be a number above 0, got {str(ratio)[:80]}")
    whole = isinstance(epochs, int) and not isinstance(epochs, bool)
    if epochs is not None and not (whole and epochs > 0):
        raise ValueError(f"epochs must be a whole number >= 1, got {str(epochs)[:80]}")
