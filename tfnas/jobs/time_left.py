"""The time that is left of a job of several parts, each of a work that is known before.

How long a unit of work takes is measured on the parts that ran.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from tfnas.compression.progress import Progress, TrialNews

TRIALS = "trials"
"""The part of the trials of a search."""
_TRAINING = 0.8  # share of a trial; the rest is converting and measuring


class TimeLeft:
    """Estimates the seconds to the end of a job from what has run of it.

    Args:
        work: The work of each part, in the order in which they run, in a unit that all share.
        now: Returns the time in seconds.

    Example:
        >>> clock = iter([0.0, 10.0])
        >>> left = TimeLeft({"train": 2.0, "measure": 1.0}, lambda: next(clock))
        >>> left.begun("train", 0.0)
        >>> left.reached("train", 0.5)
        >>> left.seconds()
        20.0
    """

    def __init__(
        self, work: Mapping[str, float], now: Callable[[], float] = time.monotonic
    ) -> None:
        self.work, self._now = dict(work), now
        self._part, self._fraction, self._time = "", 0.0, 0.0
        self._since = 0.0, 0.0  # time and fraction from which the part's pace is measured
        self._seconds = dict.fromkeys(work, 0.0)
        self._done = dict.fromkeys(work, 0.0)
        self._pace: dict[str, float] = {}  # seconds of a whole part

    def begun(self, part: str, fraction: float) -> None:
        """Notes that a part begins, or that its pace is not to be measured before this.

        Args:
            part: Its name; those before it are over.
            fraction: What has been done of it, from 0 to 1.
        """
        self._note(part, fraction)
        self._since = self._time, fraction

    def reached(self, part: str, fraction: float, typical: bool = True) -> None:
        """Notes how far a part has come.

        Args:
            part: Its name.
            fraction: What has been done of it, from 0 to 1.
            typical: Whether its pace so far is that of the rest.
        """
        if part != self._part:
            self.begun(part, fraction)
            return
        self._note(part, fraction)
        then, before = self._since
        if typical and fraction > before:
            self._pace[part] = (self._time - then) / (fraction - before)

    def _note(self, part: str, fraction: float) -> None:
        now = self._now()
        if part == self._part:
            self._seconds[part] += now - self._time
            self._done[part] += max(0.0, fraction - self._fraction)
        self._part, self._fraction, self._time = part, fraction, now

    def seconds(self) -> float | None:
        """Returns the estimate; None as long as no part has shown its pace."""
        if not self._pace:
            return None
        ran = [name for name in self.work if self._done[name] > 0]
        done = sum(self.work[name] * self._done[name] for name in ran)
        spent = (
            self._pace[name] * self._done[name] if name in self._pace else self._seconds[name]
            for name in ran
        )
        rate = sum(spent) / done  # of parts that have no pace of their own
        after = list(self.work)[list(self.work).index(self._part) + 1 :]
        a_whole = self._pace.get(self._part, rate * self.work[self._part])
        return rate * sum(self.work[name] for name in after) + a_whole * (1.0 - self._fraction)


class TimedProgress(Progress):
    """Passes the events of a search on, and tells the time that is left after each.

    Args:
        progress: Receives them.
        work: Returns the work of each part, called once, when the first of them begins. A part is
            called as the phase that begins with it, or :data:`TRIALS`.
    """

    def __init__(self, progress: Progress, work: Callable[[], Mapping[str, float]]) -> None:
        self.progress, self._work = progress, work
        self._left: TimeLeft | None = None
        self._part, self._steps, self._trial, self._trials = "", 0, 0, 1

    def phase(self, text: str) -> None:
        """Passes a phase on."""
        self.progress.phase(text)
        self.part(text)

    def note(self, text: str) -> None:
        """Passes a remark on."""
        self.progress.note(text)

    def part(self, name: str) -> None:
        """Begins a part.

        Args:
            name: Its name. Of one that is not known, as of a search that stops, no end is told.
        """
        self._part, self._steps = name, 0
        if self._left is None:
            return
        if name in self._left.work:
            self._tell(0.0)
        else:
            self.time_left(None)

    def time_left(self, seconds: float | None) -> None:
        """Passes a time on.

        Args:
            seconds: See :meth:`Progress.time_left`.
        """
        self.progress.time_left(seconds)

    def trial_began(self, number: int, total: int) -> None:
        """Passes the begin of a trial on."""
        if self._part != TRIALS:
            self._part, self._steps = TRIALS, 0
        self._trial, self._trials = number, total
        self.progress.trial_began(number, total)
        self._tell((number - 1) / total, typical=False)

    def epoch_ended(self, number: int, total: int) -> None:
        """Passes an epoch on."""
        if self._part == TRIALS:
            within = _TRAINING * number / total
            self._tell((self._trial - 1 + within) / self._trials, typical=False)
        else:
            self._tell(number / total)
        self.progress.epoch_ended(number, total)

    def step_ended(self, number: int, total: int, unit: str) -> None:
        """Passes a step that is no epoch on."""
        self._tell(number / total)
        self.progress.step_ended(number, total, unit)

    def trial_ended(self, news: TrialNews) -> None:
        """Passes the end of a trial on."""
        self._tell(news.number / news.total)
        self.progress.trial_ended(news)

    def _tell(self, fraction: float, typical: bool = True) -> None:
        """Tells the time left; the first step of a part but the trials is traced, not typical."""
        if self._left is None:
            self._left = TimeLeft(self._work(), time.monotonic)
        if self._part not in self._left.work:
            return
        if self._part != TRIALS and fraction > 0:
            self._steps += 1
        if self._steps == 1:
            self._left.reached(self._part, fraction, typical=False)
            self._left.begun(self._part, fraction)
        else:
            self._left.reached(self._part, fraction, typical)
        seconds = self._left.seconds()
        if seconds is not None:
            self.progress.time_left(seconds)
