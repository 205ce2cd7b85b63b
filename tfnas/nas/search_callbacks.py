"""Callbacks of a search: code that runs at the start and end of trials."""

from __future__ import annotations

import keras_tuner as kt


class TrialCallbacks:
    """Base class of callbacks of trials, to be set as `tuner.trial_callbacks`."""

    def trial_began(self, trial: kt.engine.trial.Trial) -> None:
        """Called when a trial begins."""

    def epoch_ended(self, trial: kt.engine.trial.Trial, epoch: int) -> None:
        """Called after an epoch of a trial; `epoch` counts from 0.

        It is not called for trials that run in another process.
        """

    def trial_ended(self, trial: kt.engine.trial.Trial) -> None:
        """Called when a trial completed, failed, or is going to be retried."""
