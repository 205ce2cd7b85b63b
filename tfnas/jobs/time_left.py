"""The time that is left of a job of several parts, whose work is known in advance.

How long a unit of work takes is measured on the parts that ran: of steps apart from what is done
once for a network, that is tracing its first step, making its file and measuring it. Parts of
different kinds, such as the training of shared weights and that of a network alone, have paces of
their own: how they compare depends on the processor.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping

from tfnas.compression.progress import Progress, TrialNews

TRIALS = "trials"
"""The part of the trials of a search."""
_EXPECTED = 0.03  # share of a part's steps that its expected pace counts as, beside the measured
_DRAWN = 2  # networks that the work of a part counts as, beside those that began


@dataclasses.dataclass(frozen=True)
class Work:
    """The work of a part, in a unit that all parts share.

    Args:
        steps: That of its steps, as of a network.
        first: What its first step costs more, as it is traced.
        last: What comes after its last step, such as making and measuring a file.
        networks: Number of networks, each with the work above.
        kind: Parts of one kind have one pace; "" is that of networks that are trained alone.
    """

    steps: float
    first: float = 0.0
    last: float = 0.0
    networks: int = 1
    kind: str = ""

    def seconds(self, of_steps: float, of_once: float) -> float:
        """Returns the seconds of a network.

        Args:
            of_steps: Seconds of a unit of steps.
            of_once: Seconds of a unit of what is done once.
        """
        return self.steps * of_steps + (self.first + self.last) * of_once


@dataclasses.dataclass(frozen=True)
class Sample:
    """A network that was trained for a few steps before a job, for its pace.

    Args:
        work: Its work. It is not part of the job.
        steps: Seconds that its steps took.
        first: Seconds that its first step took beyond another one.
    """

    work: Work
    steps: float
    first: float


class _Network:
    """What is measured of a network that is trained: its first step and its pace after that."""

    def __init__(self, work: Work, now: float, fraction: float) -> None:
        self.work, self.begun, self.fraction = work, now, fraction
        self.before, self.time = fraction, now
        self.first: tuple[float, float] | None = None  # time and fraction after the first step

    def reached(self, now: float, fraction: float) -> None:
        """Notes a step."""
        self.time, self.fraction = now, fraction
        if self.first is None and fraction > self.before:
            self.first = now, fraction

    @property
    def pace(self) -> float | None:
        """Seconds of all steps; None as long as no second one has ended."""
        if self.first is None or self.fraction <= self.first[1]:
            return None
        return (self.time - self.first[0]) / (self.fraction - self.first[1])

    def seconds_left(self, of_steps: float, of_once: float) -> float:
        """Returns the seconds from its last step to its end."""
        work, rest, pace = self.work, 1.0 - self.fraction, self.work.steps * of_steps
        if self.pace is not None and self.first is not None:
            measured = self.fraction - self.first[1]
            pace = (self.pace * measured + pace * _EXPECTED) / (measured + _EXPECTED)
        if self.before >= 1.0:
            return 0.0
        first = 0.0 if self.first else work.first * of_once
        return first + pace * rest + work.last * of_once


class _Rate:
    """Seconds of a unit of work."""

    def __init__(self, seconds: float = 0.0, work: float = 0.0) -> None:
        self.seconds, self.work = seconds, work

    def add(self, seconds: float, work: float) -> None:
        """Adds what was measured; what has no work tells no rate."""
        if work > 0:
            self.seconds, self.work = self.seconds + max(seconds, 0.0), self.work + work

    def __call__(self) -> float | None:
        return self.seconds / self.work if self.work else None


class _Pace:
    """What was measured of the parts of a kind: of steps, of what is done once, of both."""

    def __init__(self, *others: _Pace) -> None:
        self.steps, self.once, self.whole = _Rate(), _Rate(), _Rate()
        for other in others:
            for name, rate in vars(self).items():
                added: _Rate = getattr(other, name)
                rate.add(added.seconds, added.work)

    @property
    def known(self) -> bool:
        """Whether anything was measured."""
        return bool(self.steps.work or self.whole.work)


class TimeLeft:
    """Estimates the seconds to the end of a job from what has run of it.

    Args:
        work: The work of each part, in the order in which they run.
        now: Returns the time in seconds.

    Example:
        >>> clock = iter([0.0, 10.0, 20.0])
        >>> left = TimeLeft({"train": Work(2.0), "compare": Work(1.0)}, lambda: next(clock))
        >>> left.part_began("train")
        >>> left.step_ended(0.25)
        >>> left.step_ended(0.50)
        >>> left.seconds()
        40.0
    """

    def __init__(self, work: Mapping[str, Work], now: Callable[[], float] = time.monotonic) -> None:
        self.work, self._now = dict(work), now
        self._paces: dict[str, _Pace] = {}
        self._before = _Pace()  # of networks alone, as long as the job has trained none
        self._part, self._network = "", _Network(Work(0.0), 0.0, 1.0)
        self._series = _Series(Work(0.0), 0.0, 0.0)

    def sampled(self, sample: Sample) -> None:
        """Notes the pace of networks that are trained alone; it counts until the job has one.

        Args:
            sample: What was measured before the job.
        """
        self._before.steps.add(sample.steps, sample.work.steps)
        self._before.once.add(sample.first, sample.work.first)

    def part_began(self, name: str, fraction: float = 0.0) -> None:
        """Notes that a part begins; those before it are over.

        Args:
            name: Its name.
            fraction: What was done of it before.
        """
        now, work = self._now(), self.work[name]
        if self._part and self.work[self._part].networks == 1:
            self._add(self._network, now)
        if self._series.overlap:  # of networks beside each other only the whole is known
            whole = self._pace(self._series.work.kind).whole
            whole.add(self._series.last - self._series.begun, self._series.ended_work())
        self._part, self._series = name, _Series(work, now, work.networks * (1.0 - fraction))
        self._network = _Network(work, now, fraction)

    def network_began(self, work: Work | None = None) -> None:
        """Notes that a network of a part of several begins.

        Args:
            work: Its work; None: that of the part.
        """
        self._network = _Network(work or self.work[self._part], self._now(), 0.0)
        self._series.began(self._network.work)

    def network_failed(self) -> None:
        """Notes that a network that began has failed and will begin again."""
        self._network = _Network(Work(0.0), self._now(), 1.0)
        self._series.failed()

    def step_ended(self, fraction: float) -> None:
        """Notes how far the steps of a network have come.

        Args:
            fraction: What has been done of them, from 0 to 1.
        """
        self._network.reached(self._now(), fraction)

    def network_ended(self) -> None:
        """Notes that a network of a part of several has ended."""
        now = self._now()
        if not self._series.overlap:
            self._add(self._network, now)
        self._network = _Network(Work(0.0), now, 1.0)
        self._series.ended(now)

    def _pace(self, kind: str) -> _Pace:
        return self._paces.setdefault(kind, _Pace())

    def _add(self, network: _Network, now: float) -> None:
        """Adds what was measured of a network that has ended to the pace of its kind."""
        work, pace, done = network.work, network.pace, network.fraction - network.before
        found = self._pace(work.kind)
        if pace is not None:
            found.steps.add(pace * done, work.steps * done)
            found.once.add(now - network.begun - pace * done, work.first + work.last)
        elif done > 0:
            found.whole.add(now - network.begun, work.steps * done + work.first + work.last)

    def _now_known(self) -> dict[str, _Pace]:
        """The paces of all kinds, with what the part that runs has shown."""
        paces = {kind: _Pace(pace) for kind, pace in self._paces.items()}
        network, kind = self._network, self.work[self._part].kind
        found = paces.setdefault(kind, _Pace())
        pace, is_open = network.pace, self.work[self._part].networks == 1 or self._series.open
        if pace is not None and network.first is not None and is_open and not self._series.overlap:
            done = network.fraction - network.before
            found.steps.add(pace * done, network.work.steps * done)
            first = network.first[0] - network.begun
            found.once.add(first - pace * (network.first[1] - network.before), network.work.first)
        if self._series.each is not None:
            found.whole = _Rate(self._series.last - self._series.begun, self._series.ended_work())
        return paces

    def _rates(self) -> dict[str, tuple[float, float]] | None:
        """Seconds of a unit of steps, and of what is done once, by kind; None: none is known.

        A kind of which nothing was measured takes the pace of networks that are trained alone, or
        where that is not known either, of all.
        """
        paces = self._now_known()
        alone, found = paces.get("", _Pace()), {}
        if not alone.known:
            alone = self._before
        for kind in {work.kind for work in self.work.values()}:
            known = [pace for pace in (paces.get(kind, alone), alone) if pace.known]
            pace = known[0] if known else _Pace(*paces.values())
            whole = pace.whole()
            of_steps = pace.steps() or whole
            if of_steps is None:
                return None
            found[kind] = of_steps, pace.once() or whole or of_steps
        return found

    def seconds(self) -> float | None:
        """Returns the estimate; None as long as nothing has shown its pace."""
        if not self._part:
            return None
        of_kinds = self._rates()
        if of_kinds is None:
            return None
        after = list(self.work.values())[list(self.work).index(self._part) + 1 :]
        rest = sum(work.networks * work.seconds(*of_kinds[work.kind]) for work in after)
        rates = of_kinds[self.work[self._part].kind]
        if self.work[self._part].networks == 1:
            return rest + self._network.seconds_left(*rates)
        return rest + self._series.seconds_left(self._network, self._now(), *rates)


class _Series:
    """What is measured of networks that are trained one after another, or beside each other."""

    def __init__(self, work: Work, now: float, left: float) -> None:
        self.work, self.begun, self.last, self.left = work, now, now, left
        self.open, self.count, self.overlap = 0, 0, False
        self.drawn: list[Work] = []

    def began(self, work: Work) -> None:
        """Notes that a network began."""
        self.open += 1
        self.overlap |= self.open > 1
        self.drawn.append(work)

    def failed(self) -> None:
        """Notes that the network that began last does not count."""
        self.open = max(0, self.open - 1)
        del self.drawn[-1:]

    def ended(self, now: float) -> None:
        """Notes that a network ended."""
        self.open, self.count = max(0, self.open - 1), self.count + 1
        self.left, self.last = max(0.0, self.left - 1.0), now

    @property
    def each(self) -> float | None:
        """Seconds of the part for each network that ended; None: none did."""
        return (self.last - self.begun) / self.count if self.count else None

    def ended_work(self) -> float:
        """The work of the networks that ended."""
        return sum(each.steps + each.first + each.last for each in self.drawn[: self.count])

    def mean(self) -> Work:
        """The work of a network that is to come, by those that began."""
        each = [self.work] * _DRAWN + self.drawn
        fields = ("steps", "first", "last")
        means = {name: sum(getattr(one, name) for one in each) / len(each) for name in fields}
        return Work(**means)

    def seconds_left(self, network: _Network, now: float, of_steps: float, of_once: float) -> float:
        """Returns the seconds until the last network ends."""
        if self.overlap and self.each is not None:
            return max(self.left * self.each - (now - self.last), 0.0)
        if self.overlap:
            return self.left * self.mean().seconds(of_steps, of_once) / max(self.open, 1)
        if self.count and self.last > self.begun:  # the rates are those of other parts too
            expected = [one.seconds(of_steps, of_once) for one in self.drawn[: self.count]]
            slower = (self.last - self.begun) / max(sum(expected), 1e-9)
            of_steps, of_once = of_steps * slower, of_once * slower
        running = network.seconds_left(of_steps, of_once) if self.open else 0.0
        waiting = max(self.left - self.open, 0.0)
        return waiting * self.mean().seconds(of_steps, of_once) + running


class TimedProgress(Progress):
    """Passes the events of a search on, and tells the time that is left after each.

    Args:
        progress: Receives them.
        work: Returns the work of each part, called once, when the first of them begins.
        trial: Returns the work of a trial by its number, once it has begun; None: that of the part.
        now: Returns the time in seconds; None: the clock.
        sample: Returns what is known before of networks that are trained alone, called once, after
            `work`; None: nothing.
    """

    def __init__(
        self,
        progress: Progress,
        work: Callable[[], Mapping[str, Work]],
        trial: Callable[[int], Work | None] = lambda number: None,
        now: Callable[[], float] | None = None,
        sample: Callable[[], Sample | None] = lambda: None,
    ) -> None:
        self.progress, self._work, self._trial = progress, work, trial
        self._sample = sample
        self._now = now or time.monotonic
        self._left: TimeLeft | None = None
        self._part = ""
        self._trials: set[int] = set()  # that run

    def phase(self, text: str) -> None:
        """Passes a phase on; no end is told before a part begins, as of a search that stops."""
        self.progress.phase(text)
        self._part = ""
        if self._left is not None:
            self.time_left(None)

    def note(self, text: str) -> None:
        """Passes a remark on."""
        self.progress.note(text)

    def part_began(self, name: str, done: int = 0, total: int = 1) -> None:
        """Begins a part.

        Args:
            name: Its name.
            done: Number of its steps that were done before.
            total: Number of its steps.
        """
        self.progress.part_began(name, done, total)
        if self._left is None:
            self._left = TimeLeft(self._work(), self._now)
            if (sample := self._sample()) is not None:
                self._left.sampled(sample)
        if name == TRIALS and name in self._left.work:  # there may be fewer than were asked for
            trials = dataclasses.replace(self._left.work[name], networks=total)
            self._left.work[name] = trials
        self._part = name if name in self._left.work else ""
        if self._part:
            self._left.part_began(name, done / max(total, 1))
            if name != TRIALS and name not in self._of_one():
                self._left.network_began()
            self._tell()

    def time_left(self, seconds: float | None) -> None:
        """Passes a time on.

        Args:
            seconds: See :meth:`Progress.time_left`.
        """
        self.progress.time_left(seconds)

    def trial_began(self, number: int, total: int) -> None:
        """Passes the begin of a trial on."""
        if self._part != TRIALS:
            self.part_began(TRIALS, number - 1, total)
        self.progress.trial_began(number, total)
        if self._left is not None:
            if number in self._trials:  # a retry
                self._left.network_failed()
            self._left.network_began(self._trial(number))
        self._trials.add(number)
        self._tell()

    def epoch_ended(self, number: int, total: int) -> None:
        """Passes an epoch on."""
        if self._left is not None and self._part in (TRIALS, *self._of_one()):
            self._left.step_ended(number / total)
            self._tell()
        self.progress.epoch_ended(number, total)

    def step_ended(self, number: int, total: int, unit: str) -> None:
        """Passes a step that is no epoch on: of a part, or a network of a part of several."""
        if self._left is not None and self._part in self._of_one():
            self._left.step_ended(number / total)
        elif self._left is not None and self._part:
            self._left.network_ended()
            if number < total:
                self._left.network_began()
        self._tell()
        self.progress.step_ended(number, total, unit)

    def trial_ended(self, news: TrialNews) -> None:
        """Passes the end of a trial on."""
        self._trials.discard(news.number)
        if self._left is not None and self._part == TRIALS:
            self._left.network_ended()
        self._tell()
        self.progress.trial_ended(news)

    def _of_one(self) -> list[str]:
        """The parts of one network."""
        parts = self._left.work if self._left is not None else {}
        return [name for name, work in parts.items() if work.networks == 1]

    def _tell(self) -> None:
        seconds = self._left.seconds() if self._left is not None and self._part else None
        if seconds is not None:
            self.progress.time_left(seconds)
