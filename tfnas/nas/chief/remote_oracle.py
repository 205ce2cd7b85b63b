"""The oracle in a worker of keras_tuner's chief.

keras_tuner's client sends only proposals and results over the network. What a trial needs beyond
them (its number of runs, its parent, the trial that it continues) is in the trial's file, in the
folder that chief and workers share. The worker reads it there into an oracle of its own, which
knows only this trial and proposes nothing. The reason of a failure is passed back in the folder
too, as the protocol has no field for it.
"""

from __future__ import annotations

from typing import Any

import keras_tuner as kt

from tfnas.nas.chief.trial_messages import write_failure
from tfnas.nas.keras_tuner_private import oracle_client_class, own_oracle
from tfnas.nas.worker_oracle import adopt_trial

_Status = kt.engine.trial.TrialStatus
_CHIEF_ONLY = ("records", "learning_records", "completed", "pick", "rank_correlation")


_OracleClient: Any = oracle_client_class()


class RemoteOracle(_OracleClient):
    """An oracle that creates and ends trials through the chief.

    All other attributes are those of the worker's own oracle.

    Args:
        client: keras_tuner's client.
    """

    def __init__(self, client: Any) -> None:
        self.__dict__.update(vars(client))  # shares the client's connection

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        own = own_oracle(self)
        if name in _CHIEF_ONLY:
            raise RuntimeError(
                f"{name} must be read from the chief's tuner, which knows all trials: this "
                f"process is the worker {self.tuner_id!r}"
            )
        return getattr(own, name)

    def create_trial(self, tuner_id: str) -> kt.engine.trial.Trial:
        """Gets a trial from the chief, and lets the worker's own oracle read its file."""
        trial = super().create_trial(tuner_id)
        if trial.status == _Status.RUNNING:
            adopt_trial(own_oracle(self), trial, self.get_trial)
        return trial

    def end_trial(self, trial: kt.engine.trial.Trial) -> None:
        """Ends a trial at the chief; the reason of a failure is written to its folder."""
        if self.should_report and trial.message is not None:
            write_failure(own_oracle(self).trial_folder(trial.trial_id), trial.message)
        super().end_trial(trial)
