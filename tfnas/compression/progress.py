"""What a long job tells while it runs. The base class says nothing."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class TrialNews:
    """How a trial ended.

    Args:
        number: Its number, from 1.
        total: Number of trials.
        seconds: How long it took.
        text: What came out, in one line.
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
    """Receives what happens; override what you show."""

    def phase(self, text: str) -> None:
        """A new part of the job begins."""

    def trial_began(self, number: int, total: int) -> None:
        """A trial begins."""

    def epoch_ended(self, number: int, total: int) -> None:
        """An epoch of the present training ended."""

    def trial_ended(self, news: TrialNews) -> None:
        """A trial ended, well or not."""
