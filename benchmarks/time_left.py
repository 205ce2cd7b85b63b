"""How far the time left that `tfnas search` tells is from the truth, at each tick of a search.

    python benchmarks/time_left.py [--kinds=supernet,evolution] [--seeds=1,2] [--result=NAME]

Searches on scikit-learn's digits, as the command runs them. Each event that the estimate is made
of is kept with the time of the clock and the CPU time of the process and those that it started.
The estimate is made from both: the first is what a user sees, beside the jobs that share the
machine; the second is nearly free of them. A tick's error is that of the whole: what had passed
and what was reported as left, over what it took, less 1. The parts of a search are listed with what
was expected of them before the search, as a share of the whole, beside what they took.
"""

from __future__ import annotations

import os
import pathlib
import tempfile
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import record
from absl import app, flags

from tfnas.compression.progress import Progress
from tfnas.data import load
from tfnas.jobs import search_job
from tfnas.jobs.time_left import TRIALS, Sample, TimedProgress, Work
from tfnas.table import table

COMMON = {"preset": "microcontroller", "batch_size": 32, "target_latency_ratio": 0.03}
KINDS: dict[str, dict[str, Any]] = {
    "supernet": {
        "algorithm": "supernet", "supernet_epochs": 8, "evaluations": 200, "latency_seconds": 5.0,
        "max_trials": 2, "epochs": 8,
    },
    "evolution": {"max_trials": 8, "epochs": 4},
}  # fmt: skip
CHOSEN = flags.DEFINE_list("kinds", list(KINDS), "searches")
SEEDS = flags.DEFINE_list("seeds", ["1", "2"], "seeds")
EVENTS = ("phase", "part_began", "trial_began", "epoch_ended", "step_ended", "trial_ended")


class Kept(TimedProgress):
    """Keeps the events of a search with both times, and what is reported by the clock."""

    def __init__(self, *arguments: Any, sample: Callable[[Any], Sample | None]) -> None:
        super().__init__(*arguments, sample=self._sampled)
        self._sample_of, self.samples = sample, (None, None)
        self.events: list[tuple[float, float, str, tuple[Any, ...]]] = []
        self.trials: dict[int, Work | None] = {}
        kept.append(self)
        of_trial = self._trial
        self._trial = lambda number: self.trials.setdefault(number, of_trial(number))
        for name in EVENTS:
            setattr(self, name, self._keeping(name, getattr(self, name)))

    def _keeping(self, name: str, call: Any) -> Any:
        def keep(*arguments: Any) -> None:
            self.events.append((time.monotonic(), cpu_seconds(), name, arguments))
            call(*arguments)

        return keep

    def _sampled(self) -> Sample | None:
        """Measures the sample by both times; returns what it is by the clock."""
        both = self._sample_of(lambda: np.array([time.monotonic(), cpu_seconds()]))
        if both is not None:
            by_both = np.transpose([both.steps, both.first])
            self.samples = tuple(Sample(both.work, *map(float, each)) for each in by_both)
        return self.samples[0]

    @property
    def work(self) -> dict[str, Work]:
        """The work of the parts, as it was expected."""
        assert self._left is not None
        return self._left.work


kept: list[Kept] = []


def cpu_seconds() -> float:
    """CPU time of this process and of all that it has started, in s; Linux alone counts others."""
    times, found = os.times(), 0.0
    parents: dict[int, int] = {}
    ticks: dict[int, float] = {}
    for path in pathlib.Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:  # it has ended
            continue
        parents[int(path.parent.name)] = int(fields[1])
        ticks[int(path.parent.name)] = (int(fields[11]) + int(fields[12])) / os.sysconf(
            "SC_CLK_TCK"
        )
    below = {os.getpid()}
    while more := {pid for pid, parent in parents.items() if parent in below} - below:
        below |= more
        found += sum(ticks[pid] for pid in more)
    return times.user + times.system + times.children_user + times.children_system + found


class Reported(Progress):
    """Keeps each time that is reported."""

    def __init__(self) -> None:
        self.now = 0.0
        self.ticks: list[tuple[float, float]] = []

    def time_left(self, seconds: float | None) -> None:
        if seconds is not None:
            self.ticks.append((self.now, seconds))


def errors(run: Kept, column: int, end: float) -> list[tuple[float, float]]:
    """Share of the run that had passed, and the error of the whole, at each tick."""
    reported, begin = Reported(), run.events[0][column]
    again = TimedProgress(
        reported,
        lambda: run.work,
        run.trials.get,
        lambda: reported.now,
        lambda: run.samples[column],
    )
    for event in run.events:
        reported.now = event[column]
        if (event[2], *event[3][:1]) != ("part_began", TRIALS):  # the first trial begins it
            getattr(again, event[2])(*event[3])
    whole = end - begin
    return [((at - begin) / whole, (at - begin + left) / whole - 1) for at, left in reported.ticks]


def parts_of(run: Kept, ends: tuple[float, float]) -> list[list[str]]:
    """The parts with their expected and their real shares of the whole."""
    began = [(*each[:2], each[3][0]) for each in run.events if each[2] == "part_began"]
    rows, expected = [], {name: w.networks * w.seconds(1, 1) for name, w in run.work.items()}
    pairs = zip(began, [*began[1:], (*ends, "")], strict=True)
    spans = [(after[0] - each[0], after[1] - each[1]) for each, after in pairs]
    totals = [sum(span[i] for span in spans) for i in (0, 1)]
    known = sum(expected.get(name, 0.0) for *_, name in began)
    for (*_, name), (wall, cpu) in zip(began, spans, strict=True):
        share = f"{expected.get(name, 0.0) / known:.0%}"
        rows.append(
            [name, share, f"{wall / totals[0]:.0%}", f"{cpu / totals[1]:.0%}", f"{wall:.0f} s"]
        )
    return rows


def main(argv: list[str]) -> None:
    search_job.TimedProgress = Kept  # type: ignore[misc]
    summary, curves, shares = [], [], []
    for kind in CHOSEN.value:
        for seed in map(int, SEEDS.value):
            with tempfile.TemporaryDirectory() as folder:
                settings = {**COMMON, **KINDS[kind], "seed": seed}
                search_job.search(load("digits"), directory=folder, **settings)
            run, ends = kept[-1], (time.monotonic(), cpu_seconds())
            by = {"clock": errors(run, 0, ends[0]), "CPU": errors(run, 1, ends[1])}
            name = f"{kind}, seed {seed}"
            cells = [name, f"{ends[0] - run.events[0][0]:.0f} s"]
            for ticks in by.values():
                late = [error for share, error in ticks if share >= 1 / 3]
                cells += [f"{min(late):+.0%} to {max(late):+.0%}"]
            summary.append(cells)
            shares += [[name, *row] for row in parts_of(run, ends)]
            curves += [[name, *row] for row in curve(by)]
            print("  ".join(cells), flush=True)
    by_both = ["by the clock", "by CPU time"]
    tables: dict[str, tuple[list[str], list[list[str]]]] = {
        "Error of the whole, from a third of the run on": (["search", "took", *by_both], summary),
        "Error at each tenth of the run": (["search", "passed", *by_both], curves),
        "Shares of the whole": (["search", "part", "expected", *by_both, "took"], shares),
    }
    for title, (headers, rows) in tables.items():
        print(f"\n{title}\n{table(headers, rows)}")
    record.write(
        "time_left",
        {title: record.table_rows(*each) for title, each in tables.items()},
        seed=int(SEEDS.value[0]),
        notes=[record.load_note()],
    )


def curve(by: dict[str, list[tuple[float, float]]]) -> list[list[str]]:
    """The last error that was reported before each tenth of a run."""
    rows = []
    for passed in np.arange(1, 10) / 10:
        cells = []
        for ticks in by.values():
            found = [error for share, error in ticks if share <= passed]
            cells.append(f"{found[-1]:+.0%}" if found else "not known")
        rows.append([f"{passed:.0%}", *cells])
    return rows


if __name__ == "__main__":
    app.run(main)
