"""Progress of a long job, as callbacks. The base class shows nothing."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import time

_LOG = logging.getLogger(__name__)
QUIET = 10.0  # seconds between the lines of a phase's steps, at least
_SHARE = 0.1  # of the time of a phase so far, at least, so that hours have no thousands of lines


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

    def note(self, text: str) -> None:
        """Called with a remark on the current phase, such as what was done of it before."""

    def part_began(self, name: str, done: int = 0, total: int = 1) -> None:
        """Called after its phase when a part of the job begins whose work is known.

        Args:
            name: Its name, the same in all jobs.
            done: Number of its steps that an earlier run has done.
            total: Number of its steps.
        """

    def trial_began(self, number: int, total: int) -> None:
        """Called when a trial begins."""

    def epoch_ended(self, number: int, total: int) -> None:
        """Called when an epoch of the current training has ended."""

    def step_ended(self, number: int, total: int, unit: str) -> None:
        """Called when a step of the current phase has ended that is no epoch.

        Args:
            number: Number of the step, from 1.
            total: Number of steps.
            unit: What a step is: "network" for a network that was scored with shared weights.
        """

    def trial_ended(self, news: TrialNews) -> None:
        """Called when a trial has ended, completed or failed."""

    def time_left(self, seconds: float | None) -> None:
        """Called before an epoch or a trial is reported, where the job knows when it will end.

        Args:
            seconds: Estimated time to the end of the whole job; None: it is not known any more.
        """


class PrintedProgress(Progress):
    """Prints a line for each phase, and for its epochs and other steps now and then.

    A step has a line where the last one is 10 seconds ago, or a tenth of the phase if that is more.
    Where a step of several had one, the last of them has one too.

    Example:
        >>> PrintedProgress().phase("converting")
        converting
    """

    def __init__(self) -> None:
        self.last = self.began = time.monotonic()
        self.end: float | None = None
        """When the job will end, on the clock of `time.monotonic`; None: it is not known."""
        self._part = ""
        self._open: set[str] = set()  # units of which a step was printed, and not the last one

    def time_left(self, seconds: float | None) -> None:
        """Keeps when the job will end."""
        self.end = None if seconds is None else time.monotonic() + seconds

    def left(self) -> str:
        """Returns the time to the end of the job in words, as of now; "" if it is not known."""
        if self.end is None:
            return ""
        return f"about {duration(max(0.0, self.end - time.monotonic()))} left"

    def phase(self, text: str) -> None:
        """Prints the start of a phase."""
        self._say(text)
        self.began = self.last
        self.steps_are_of("")

    def steps_are_of(self, part: str) -> None:
        """Names the part of the phase that the next steps are of, such as a trial; "": none."""
        self._part = part
        self._open.clear()

    def note(self, text: str) -> None:
        """Prints a remark below the phase that it is of."""
        self._say(f"  {text}")

    def epoch_ended(self, number: int, total: int) -> None:
        """Prints the number of the epoch, where nothing was printed for a while."""
        self.step_ended(number, total, "epoch")

    def step_ended(self, number: int, total: int, unit: str) -> None:
        """Prints the number of the step, where nothing was printed for a while."""
        now = time.monotonic()
        is_due = now - self.last > max(QUIET, _SHARE * (now - self.began))
        if is_due or (number == total and unit in self._open):
            left, of = self.left(), self._part and f"{self._part}, "
            self._say(f"  {of}{unit} {number:,} of {total:,}{left and '; ' + left}")
            self._open.add(unit)
        if number == total:
            self._open.discard(unit)

    def _say(self, text: str) -> None:
        self.last = time.monotonic()
        # A pipe that was closed, or a full disk below stdout, ends no hours of work.
        with contextlib.suppress(OSError, ValueError):
            print(text, flush=True)


class LoggedProgress(Progress):
    """Logs each phase, with its reasons, at INFO to Python's logger "tfnas"; prints nothing."""

    def phase(self, text: str) -> None:
        """Logs the start of a phase."""
        _LOG.info("%s", text)

    def note(self, text: str) -> None:
        """Logs a remark on a phase."""
        _LOG.info("  %s", text)

    def trial_ended(self, news: TrialNews) -> None:
        """Logs the result of a trial."""
        _LOG.info("trial %d of %d: %s", news.number, news.total, news.text)


def progress_of(progress: Progress | None, verbose: int | str) -> Progress:
    """Returns what receives the events of a job.

    Args:
        progress: The argument `progress`; None: by `verbose`.
        verbose: The argument `verbose`: 0 prints nothing, and logs to "tfnas"; 1, 2 and "auto"
            print lines.

    Raises:
        ValueError: An argument is something else.
    """
    if not isinstance(progress, Progress | None):
        raise ValueError(
            f"progress must be a tfnas.compression.progress.Progress, got {progress!r}"
        )
    if verbose not in (0, 1, 2, "auto"):
        raise ValueError(f"verbose must be 0, 1, 2 or 'auto', got {verbose!r}")
    if progress is not None:
        return progress
    return PrintedProgress() if verbose else LoggedProgress()


def duration(seconds: float) -> str:
    """Returns a time in words.

    Example:
        >>> duration(59.7)
        '1 min 00 s'

    Args:
        seconds: The time.
    """
    rounded = round(seconds)
    if rounded < 60:
        return f"{rounded} s"
    return (
        f"{rounded // 60} min {rounded % 60:02d} s" if rounded < 3600 else f"{rounded / 3600:.1f} h"
    )
