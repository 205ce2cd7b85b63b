"""One run of an algorithm on a table, and the file that keeps finished runs."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import pathlib
import time
from collections.abc import Callable, Sequence

import numpy as np

from search_tables.table import SearchTable

Picks = dict[int, np.ndarray]
"""Evaluations -> the configuration that a search would return then."""


class OutOfEvaluations(Exception):
    """The search has used its evaluations."""


@dataclasses.dataclass
class Measurements:
    """What a search has measured; it is called with a configuration.

    Args:
        table: The table.
        rng: NumPy's random generator of the noise, the same for all algorithms of a seed.
        evaluations: Largest number of measurements.
        two: Whether the cost is the second objective.
    """

    table: SearchTable
    rng: np.random.Generator
    evaluations: int
    two: bool = False

    def __post_init__(self) -> None:
        self.rows: list[np.ndarray] = []
        self.values: list[float] = []

    def __call__(self, row: np.ndarray) -> float:
        """Returns a noisy value, larger is better."""
        if len(self.rows) >= self.evaluations:
            raise OutOfEvaluations
        row = self.table.decisions.canonical(np.asarray(row, float)[None])[0]
        self.rows.append(row)
        self.values.append(self.table.measure(row, self.rng))
        return self.values[-1]

    def both(self, row: np.ndarray) -> tuple[float, float]:
        """Returns a noisy value and the cost, less is better."""
        return self(row), float(self.table.costs(np.asarray(row, float)[None])[0])


Algorithm = Callable[[SearchTable, Measurements, int, int], Picks | None]
"""Searches a table: (table, measurements, evaluations, seed); returns its own picks, if any."""


def scores(
    algorithm: Algorithm, table: SearchTable, seed: int, marks: Sequence[int], two: bool
) -> dict:
    """Returns what a run found: the score of its pick, or the hypervolume, at each mark.

    Without picks of its own the best measurement is an algorithm's pick.
    """
    measured = Measurements(table, np.random.default_rng([seed, 7, 29]), max(marks), two)
    begin, picks = time.process_time(), None
    with contextlib.suppress(OutOfEvaluations):
        picks = algorithm(table, measured, max(marks), seed)
    seconds = time.process_time() - begin
    rows, values = np.array(measured.rows), np.array(measured.values)
    found = []
    for mark in marks:
        if two:
            found.append(table.hypervolume(rows[:mark]))
        else:
            best = rows[int(np.argmax(values[:mark]))]
            pick = best if picks is None or mark not in picks else picks[mark]
            found.append(float(table.scores(pick[None])[0]))
    return {"scores": found, "ms": 1000 * seconds / len(rows)}


class Cells:
    """Finished runs, a line each in a file an algorithm, so that a comparison can go on.

    Args:
        folder: Where the files are; None: nothing is kept.
    """

    def __init__(self, folder: pathlib.Path | None) -> None:
        self._folder = folder

    def read(self, algorithm: str) -> dict[tuple[str, int, str], dict]:
        """Returns the runs of an algorithm by (table, seed, kind)."""
        path = self._path(algorithm)
        if path is None or not path.exists():
            return {}
        lines = map(json.loads, path.read_text(encoding="utf-8").splitlines())
        return {(cell["table"], cell["seed"], cell["kind"]): cell for cell in lines}

    def add(self, algorithm: str, cell: dict) -> None:
        """Appends a run."""
        if (path := self._path(algorithm)) is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(cell) + "\n")

    def _path(self, algorithm: str) -> pathlib.Path | None:
        return (
            None if self._folder is None else self._folder / f"{algorithm.replace(' ', '_')}.jsonl"
        )
