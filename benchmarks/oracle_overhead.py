"""Trials a second that an oracle manages where a trial itself costs nothing.

    python benchmarks/oracle_overhead.py [--trials=100,1000,3000] [--rounds=3]

Each search runs in a fresh folder, with all of its files: keras_tuner's RandomSearch as it
is, and tfnas' random search and evolution, whose files are replaced whole and synced. Rounds
are interleaved. Also prints what the last tenth of the trials cost beside the first.
"""

from __future__ import annotations

import pathlib
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

import keras_tuner as kt
import record
from absl import app, flags

import tfnas
from tfnas.table import table

TRIALS = flags.DEFINE_list("trials", ["100", "1000", "3000"], "lengths of a search")
ROUNDS = flags.DEFINE_integer("rounds", 3, "searches of each kind and length")
FOLDER = flags.DEFINE_string("folder", None, "where the files go; none: the system's own place")
DECISIONS, CHOICES = 10, 4


def main(argv: list[str]) -> None:
    rows = []
    for trials in map(int, TRIALS.value):
        rates: dict[str, list[float]] = {name: [] for name in KINDS}
        slower: dict[str, list[float]] = {name: [] for name in KINDS}
        for _ in range(ROUNDS.value):
            for name, make in KINDS.items():
                rate, growth = timed(make, trials)
                rates[name].append(rate)
                slower[name].append(growth)
        for name in KINDS:
            rate = statistics.median(rates[name])
            rows.append(
                [
                    name,
                    str(trials),
                    f"{rate:.0f} [{min(rates[name]):.0f}, {max(rates[name]):.0f}]",
                    f"{rate / statistics.median(rates['keras_tuner RandomSearch']):.2f}x",
                    f"{statistics.median(slower[name]):.2f}x",
                ]
            )
            print("  ".join(rows[-1]), flush=True)
    print("\n$ python", " ".join(sys.argv))
    headers = [
        "search",
        "trials",
        "a second [least, most]",
        "to keras_tuner",
        "last tenth to first",
    ]
    print(table(headers, rows))
    record.write("oracle_overhead", record.table_rows(headers, rows), seed=1)


def hyperparameters() -> kt.HyperParameters:
    hp = kt.HyperParameters()
    for number in range(DECISIONS):
        hp.Choice(f"h{number}", list(range(CHOICES)))
    return hp


def timed(make: Callable[..., Any], trials: int) -> tuple[float, float]:
    """Trials a second, and the time of the last tenth over that of the first."""
    with tempfile.TemporaryDirectory(dir=FOLDER.value) as folder:
        tuner = make(
            objective=kt.Objective("score", "max"),
            max_trials=trials,
            seed=1,
            hyperparameters=hyperparameters(),
            directory=str(pathlib.Path(folder)),
            project_name="search",
        )
        tuner.oracle.verbose = 0
        tuner.ends = [time.perf_counter()]
        tuner.search(verbose=0)
        ends = tuner.ends
    tenth = max(1, trials // 10)
    first, last = ends[tenth] - ends[0], ends[-1] - ends[-1 - tenth]
    return trials / (ends[-1] - ends[0]), last / first


class Trivial:
    """A trial adds up its values."""

    ends: list[float]

    def run_trial(self, trial: Any, *args: Any, **kwargs: Any) -> dict[str, float]:
        return {"score": float(sum(trial.hyperparameters.values.values()))}

    def on_trial_end(self, trial: Any) -> None:
        super().on_trial_end(trial)  # type: ignore[misc]
        self.ends.append(time.perf_counter())


class KerasTuner(Trivial, kt.RandomSearch):  # type: ignore[misc]
    """keras_tuner's."""


class Random(Trivial, tfnas.RandomTuner):
    """Ours."""


class Evolution(Trivial, tfnas.EvolutionTuner):
    """Ours, without a surrogate, or with one."""


KINDS: dict[str, Callable[..., Any]] = {
    "keras_tuner RandomSearch": KerasTuner,
    "tfnas random": Random,
    "tfnas evolution": lambda **settings: Evolution(
        sampler=tfnas.EvolutionSampler(children=1), **settings
    ),
    "tfnas evolution, surrogate": Evolution,
}


if __name__ == "__main__":
    app.run(main)
