"""The store of trials: where an oracle's proposals and their results are kept.

A search with the folder `directory/project_name` has

    oracle.json             the hyperparameters and the seed
    trial_00/trial.json     a trial: proposed values, status, metrics, :class:`TrialHistory`
    trial_01/trial.json     ...

keras_tuner writes its files in place; a kill in between leaves half a file and a search that
can't be resumed. Here each file is replaced atomically: that of a trial once when the trial begins
and once when it ends. On reload everything else (the order of ends, retries, what was proposed
already) follows from these files, so that nothing is stored twice and a trial costs the same
however many came before it.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import keras_tuner as kt

from tfnas.nas.trial_files import check_oracle_state, check_trial_file
from tfnas.runtime.files import write_atomically
from tfnas.runtime.store import DAMAGE, damage_named, read_json_object

_Status = kt.engine.trial.TrialStatus
_KEY = "tfnas"  # key of a history in trial.json, beside those of keras_tuner
_PREFIX = "trial_"
ENDED = (_Status.COMPLETED, _Status.FAILED)


_HISTORY = ("crashes", "runs", "ended", "parent")  # the rest is of successive halving
CRASH = "crash.txt"  # in the folder of a trial that is running


@dataclasses.dataclass
class TrialHistory:
    """How often a trial ran, and where its architecture comes from.

    Args:
        crashes: How often it ended its process; an interruption is no crash.
        runs: How often a run of it ended.
        ended: Its place in the order of ends, from 0; None: it has not ended.
        parent: Id of the trial whose architecture was changed to get its own; None: there is none.
    """

    crashes: int = 0
    runs: int = 0
    ended: int | None = None
    parent: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Returns the history as it is kept in the trial's file."""
        found = {"ended": self.ended, "parent": self.parent, "crashes": self.crashes or None}
        kept = {name: value for name, value in found.items() if value is not None}
        return {"runs": self.runs, **kept}

    @classmethod
    def from_dict(cls, state: Mapping[str, Any]) -> TrialHistory:
        """Returns the history that :meth:`to_dict` described.

        Raises:
            ValueError: A key is unknown.
        """
        if unknown := sorted(set(state) - set(_HISTORY)):
            raise ValueError(f"unknown key in TrialHistory: {', '.join(unknown)}")
        ended, parent = state.get("ended"), state.get("parent")
        return cls(
            int(state.get("crashes", 0)),
            int(state.get("runs", 0)),
            None if ended is None else int(ended),
            None if parent is None else str(parent),
        )


class TrialStore:
    """The files of a search's trials, and the history of each.

    Args:
        folder: The folder of the search.
    """

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder = folder
        self.histories: dict[str, TrialHistory] = {}
        self._num_ended = 0
        self._written = ""  # the text that was last written to oracle.json

    def history(self, trial_id: str) -> TrialHistory:
        """Returns the history of a trial; a new trial has an empty one."""
        return self.histories.setdefault(trial_id, TrialHistory())

    def crash_report(self, trial_id: str) -> pathlib.Path:
        """Returns the file that says why a trial ended its process, if it did.

        See :mod:`tfnas.runtime.crash_report`.
        """
        return self.path(trial_id).with_name(CRASH)

    def end_order(self) -> list[str]:
        """Returns the trials that have ended, in the order of their ends."""
        ended = {name: h.ended for name, h in self.histories.items() if h.ended is not None}
        return sorted(ended, key=ended.__getitem__)

    def write(self, trial: kt.engine.trial.Trial, runs: int, promotion: Mapping[str, Any]) -> None:
        """Writes the file of a trial.

        Args:
            trial: The trial.
            runs: How often a run of it ended.
            promotion: Its state of successive halving; {} for a trial of the lowest rung.
        """
        has_ended = trial.status in ENDED
        history = self.history(trial.trial_id)
        history.runs = runs
        if has_ended and history.ended is None:
            history.ended, self._num_ended = self._num_ended, self._num_ended + 1
        state = {**trial.get_state(), _KEY: {**history.to_dict(), **promotion}}
        # A power failure costs running trials anyway, but no trial that has ended.
        write_atomically(self.path(trial.trial_id), json.dumps(state), sync=has_ended)

    def read(
        self,
        hyperparameters: kt.HyperParameters,
        check: Callable[[kt.engine.trial.Trial], object] = lambda trial: None,
    ) -> list[tuple[kt.engine.trial.Trial, Mapping[str, Any]]]:
        """Reads all trials and their histories.

        Args:
            hyperparameters: The hyperparameters of a trial whose file can't be read. It is a
                failed trial without values.
            check: Called with each trial; a trial that it raises an error for can't be read.

        Returns:
            Trials in the order of their starts, each with its state of successive halving.
        """
        folders = sorted(filter(_is_trial, self.folder.glob("trial_*")), key=_number)
        if folders and not (folders[-1] / "trial.json").exists():
            folders.pop()  # killed before its file was written: it never started
        found = []
        for folder in folders:
            trial, history, state = _read(folder, hyperparameters, check)
            if trial.status not in ENDED:
                history.ended = None
            elif history.ended is None:
                history.ended = self._num_ended
            self._num_ended += history.ended is not None
            self.histories[trial.trial_id] = history
            found.append((trial, state))
        return found

    def read_one(self, trial_id: str) -> Mapping[str, Any]:
        """Reads the history of one trial; returns its state of successive halving.

        Raises:
            ValueError: The trial's file was damaged.
        """
        path = self.path(trial_id)
        with damage_named(path, "trial"):
            content = read_json_object(path, "trial")
            check_trial_file(content, trial_id, _KEY)
            state = content.get(_KEY, {})
        self.histories[trial_id] = _history(state)
        return state

    def write_oracle(self, state: Mapping[str, Any]) -> None:
        """Writes oracle.json, if it has changed.

        Args:
            state: The state that is not in the files of the trials.
        """
        text = json.dumps(state)
        if text != self._written:
            write_atomically(self.oracle_path, text)
            self._written = text

    def read_oracle(self) -> dict[str, Any]:
        """Returns the state in oracle.json.

        Raises:
            OSError: The file can't be read.
            ValueError: It holds something else.
        """
        with damage_named(self.oracle_path, "search"):
            state = read_json_object(self.oracle_path, "search")
            check_oracle_state(state)
        self._written = json.dumps(state)
        return state

    @property
    def oracle_path(self) -> pathlib.Path:
        """The file of the hyperparameters and the seed."""
        return self.folder / "oracle.json"

    def path(self, trial_id: str) -> pathlib.Path:
        """Returns the file of a trial."""
        return self.folder / f"trial_{trial_id}" / "trial.json"


def _history(state: Mapping[str, Any]) -> TrialHistory:
    return TrialHistory.from_dict({key: state[key] for key in _HISTORY if key in state})


def _read(
    folder: pathlib.Path,
    hyperparameters: kt.HyperParameters,
    check: Callable[[kt.engine.trial.Trial], object],
) -> tuple[kt.engine.trial.Trial, TrialHistory, Mapping[str, Any]]:
    """A trial with tfnas' own state of it; a failed trial if its file can't be read."""
    trial_id = folder.name.removeprefix(_PREFIX)
    try:
        state = read_json_object(folder / "trial.json", "trial")
        check_trial_file(state, trial_id, _KEY)
        found, own = kt.engine.trial.Trial.from_state(state), state.get(_KEY, {})
        check(found)
        return found, _history(own), own
    except (OSError, *DAMAGE) as error:
        trial = kt.engine.trial.Trial(hyperparameters.copy(), trial_id, _Status.FAILED)
        trial.hyperparameters.values = {}
        reason = f"{type(error).__name__}: {error}" if isinstance(error, LookupError) else error
        trial.message = f"its file can't be read: {folder / 'trial.json'}: {reason}"
        return trial, TrialHistory(), {}


def _is_trial(folder: pathlib.Path) -> bool:
    name = folder.name.removeprefix(_PREFIX)
    return name.isascii() and name.isdigit()


def _number(folder: pathlib.Path) -> tuple[int, str]:
    name = folder.name.removeprefix(_PREFIX)
    return int(name), name
