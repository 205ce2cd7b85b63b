"""Failures of trials: which of them count, and when they end the search."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import keras_tuner as kt

from tfnas.measure.elsewhere.timing_device import DeviceLost

INFEASIBLE = "infeasible: "  # prefix of the message of a trial that breaks a limit before training
_Status = kt.engine.trial.TrialStatus


class InfeasibleTrialError(kt.errors.FailedTrialError):
    """A limit is broken whatever the weights are, or the device can't run the file.

    Args:
        reason: The reason, without the prefix :data:`INFEASIBLE`.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(f"{INFEASIBLE}{reason}")


class DeviceLostInTrial(kt.errors.FatalError, DeviceLost):
    """The device that measures was lost: the search ends, and goes on with this trial."""


def too_many_failures(
    trials: Mapping[str, kt.engine.trial.Trial], end_order: Sequence[str], maximum: int
) -> tuple[kt.engine.trial.Trial, str] | None:
    """Returns the last failed trial and a message if too many trials failed in a row.

    Only the last trials count. A trial that broke a limit before training is no failure.

    Args:
        trials: All trials by their ids.
        end_order: Ids of the trials that ended, in the order of their ends.
        maximum: Number of failures in a row that end the search.

    Returns:
        None: the search goes on.
    """
    failures = 0
    last: kt.engine.trial.Trial | None = None
    for trial_id in reversed(end_order):
        trial = trials[trial_id]
        if trial.status != _Status.FAILED:
            break
        if INFEASIBLE not in (trial.message or ""):
            failures, last = failures + 1, last or trial
    if last is None or last is not trials[end_order[-1]] or failures % maximum:
        return None
    cause = (last.message or "no message").strip().splitlines()[-1]
    return last, f"{failures} trials failed one after the other, the last: {cause}"
