"""The oracle as a worker of keras_tuner's own chief sees it.

keras_tuner's client passes proposals and results over the network and nothing else. What a
trial needs beyond them (how often it was run, its parent, the trial that it continues) stands
in its file, in the folder that chief and workers share; from there the worker's own oracle,
which proposes nothing, is told of the one trial that runs. The reason of a failure goes back the
same way, since the protocol has no room for it.
"""

from __future__ import annotations

import json
import pathlib
from typing import Any

import keras_tuner as kt
from keras_tuner.src.distribute.oracle_client import OracleClient

from tfnas.nas.chief.trial_messages import leave_message

_Status = kt.engine.trial.TrialStatus
_OF_CHIEF = ("entries", "evidence", "completed", "pick", "rank_correlation")


class RemoteOracle(OracleClient):
    """Asks the chief; all that is not the chief's is the worker's own oracle's.

    Args:
        client: keras_tuner's client.
    """

    def __init__(self, client: OracleClient) -> None:
        self.__dict__.update(vars(client))  # its connection; a second one is not needed

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or "_oracle" not in self.__dict__:
            raise AttributeError(name)
        if name in _OF_CHIEF:
            raise RuntimeError(
                f"{name} must be asked of the chief's tuner, which knows all trials: this process "
                f"is the worker {self.tuner_id!r}"
            )
        return getattr(self._oracle, name)

    def create_trial(self, tuner_id: str) -> kt.engine.trial.Trial:
        """keras_tuner's; tells the worker's own oracle what the trial needs."""
        trial = super().create_trial(tuner_id)
        if trial.status == _Status.RUNNING:
            text = pathlib.Path(self._oracle._get_trial_dir(trial.trial_id), "trial.json")
            own = json.loads(text.read_text()).get("tfnas", {})
            parent = own.get("parent")
            known = {trial.trial_id: trial}
            if parent is not None:
                known[parent] = self.get_trial(parent)
            self._oracle.know(trial.trial_id, own, known)
        return trial

    def end_trial(self, trial: kt.engine.trial.Trial) -> None:
        """keras_tuner's, with the reason of a failure."""
        if self.should_report and trial.message is not None:
            leave_message(self._oracle._get_trial_dir(trial.trial_id), trial.message)
        super().end_trial(trial)
