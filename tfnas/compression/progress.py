"""Progress of a long job, as callbacks. The base class shows nothing."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class TrialNews:
    """Outcome of a trial.

    Args:
        number: Number of the trial, from 1.
        total: Number of trials.
        seconds: Its duration, in seconds.
        text: Its outcome in one line.
        best: The best so far, in one line; None where there is none.
        front: The Pareto front so far, in one line; None where it did not change.
    """

    number: int
    total: int
    seconds: float
    text: str
    best: str | None
    front: str | None = None


class Progress:
    """Receives the events of a job; override the methods that you need.

    Example:
        >>> class Printed(Progress):
        ...     def phase(self, text: str) -> None:
        ...         print(text)
        >>> Printed().phase("converting")
        converting
    """

    def phase(self, text: str) -> None:
        """Called when a new phase of the job begins."""

    def trial_began(self, number: int, total: int) -> None:
        """Called when a trial begins."""

    def epoch_ended(self, number: int, total: int) -> None:
        """Called when an epoch of the current training has ended."""

    def trial_ended(self, news: TrialNews) -> None:
        """Called when a trial has ended, completed or failed."""
