"""Callbacks of a search: code that runs at the start and end of trials."""

from __future__ import annotations

import dataclasses

import keras_tuner as kt


@dataclasses.dataclass(frozen=True)
class Phase:
    """The progress of a phase of a search before its trials.

    Args:
        text: What it does.
        done: Epochs, or other steps, so far.
        total: Their number in all; 0: it has no steps.
        unit: What a step is.
        note: A remark, such as what was done of it before.
    """

    text: str
    done: int = 0
    total: int = 0
    unit: str = "epoch"
    note: str = ""


class TrialCallbacks:
    """Base class of callbacks of trials, to be set as `tuner.trial_callbacks`."""

    def trial_began(self, trial: kt.engine.trial.Trial) -> None:
        """Called when a trial begins."""

    def epoch_ended(self, trial: kt.engine.trial.Trial, epoch: int) -> None:
        """Called after an epoch of a trial; `epoch` counts from 0.

        It is not called for trials that run in another process.
        """

    def phase_progressed(self, phase: Phase) -> None:
        """Called as a phase before the trials goes on, such as the training of shared weights.

        Args:
            phase: Its progress.
        """

    def trial_ended(self, trial: kt.engine.trial.Trial) -> None:
        """Called when a trial completed, failed, or is going to be retried."""
