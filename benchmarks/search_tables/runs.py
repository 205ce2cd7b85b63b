"""One run of an algorithm on a table, and the file that keeps finished runs."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import pathlib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

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
        value = self(row)
        return value, float(self.table.costs(self.rows[-1][None])[0])


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


def recorded(
    found: Mapping[str, Mapping[tuple[str, int], Sequence[float]]],
    ms: Mapping[str, float],
    kind: str,
    first: int,
) -> dict[str, Any]:
    """Returns runs for a record, from which the same command goes on.

    Args:
        found: Algorithm -> (table, seed) -> scores.
        ms: Mean time of a proposal of each algorithm.
        kind: What was compared.
        first: The first seed; the others follow it.
    """
    texts: dict[str, dict[str, str]] = {}
    for algorithm, runs in found.items():
        rows: dict[str, list[str]] = {}
        for (table, _), numbers in sorted(runs.items()):
            rows.setdefault(table, []).append(" ".join(f"{number:.2f}" for number in numbers))
        texts[algorithm] = {table: "; ".join(row) for table, row in rows.items()}
    rounded = {algorithm: round(value, 1) for algorithm, value in ms.items()}
    return {"kind": kind, "first": first, "ms": rounded, "scores": texts}


class Cells:
    """Finished runs, a line each in a file an algorithm, so that a comparison can go on.

    Args:
        folder: Where the files are; None: nothing is kept.
        recorded: Runs of a record, see :func:`recorded`; the folder's come first.
    """

    def __init__(
        self, folder: pathlib.Path | None, recorded: Mapping[str, Any] | None = None
    ) -> None:
        self._folder, self._recorded = folder, recorded or {}

    def read(self, algorithm: str) -> dict[tuple[str, int, str], dict]:
        """Returns the runs of an algorithm by (table, seed, kind)."""
        found = self._of_record(algorithm)
        path = self._path(algorithm)
        if path is not None and path.exists():
            lines = map(json.loads, path.read_text(encoding="utf-8").splitlines())
            found |= {(cell["table"], cell["seed"], cell["kind"]): cell for cell in lines}
        return found

    def _of_record(self, algorithm: str) -> dict[tuple[str, int, str], dict]:
        """The runs of an algorithm that the record holds."""
        kind, first, found = self._recorded.get("kind"), self._recorded.get("first", 0), {}
        ms = self._recorded.get("ms", {}).get(algorithm)
        for table, text in self._recorded.get("scores", {}).get(algorithm, {}).items():
            for seed, numbers in enumerate(text.split("; "), first):
                cell = {"table": table, "seed": seed, "kind": kind, "ms": ms}
                found[table, seed, kind] = cell | {"scores": [float(n) for n in numbers.split()]}
        return found

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
