"""Who hears of a search as it runs."""

from __future__ import annotations

import keras_tuner as kt


class TrialCallbacks:
    """Hears of trials as they run; override what matters. Set it as `tuner.trial_callbacks`."""

    def trial_began(self, trial: kt.engine.trial.Trial) -> None:
        """A trial begins."""

    def epoch_ended(self, trial: kt.engine.trial.Trial, epoch: int) -> None:
        """An epoch of the trial ended; `epoch` counts from 0. Trials in workers tell nothing."""

    def trial_ended(self, trial: kt.engine.trial.Trial) -> None:
        """A trial ended: completed, failed, or sent for a retry."""
