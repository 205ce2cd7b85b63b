"""A table of configurations: its decisions, values, noise, costs, and what is best in it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import numpy as np

_RANDOM = 4000  # random configurations that the median, the spread and the corner are from
_CLIMBS = 12  # of the best random configurations, from which the best is climbed to
_STEPS = 60  # steps of a climb at most
CATEGORICAL, ORDINAL, REAL = "categorical", "ordinal", "real"
_REAL_STEPS = np.array([-0.25, -0.08, -0.02, 0.02, 0.08, 0.25])  # neighbors of a real number


@dataclasses.dataclass(frozen=True)
class Decisions:
    """The decisions of a table.

    Args:
        kinds: "categorical", "ordinal" or "real", one a decision.
        levels: Number of choices of each decision; of a real number 0.
        parents: Index of the decision that each one depends on; -1: none.
        parent_levels: Level of the parent from which on the decision is active.
    """

    kinds: tuple[str, ...]
    levels: tuple[int, ...]
    parents: tuple[int, ...] = ()
    parent_levels: tuple[int, ...] = ()

    def __len__(self) -> int:
        return len(self.kinds)

    @property
    def size(self) -> float:
        """Number of configurations, inactive decisions counted too; infinite of real numbers."""
        return math.inf if REAL in self.kinds else math.prod(self.levels)

    def sample(self, count: int, rng: np.random.Generator) -> np.ndarray:
        """Returns random configurations, (count, decisions)."""
        columns = [
            rng.random(count) if kind == REAL else rng.integers(n, size=count).astype(float)
            for kind, n in zip(self.kinds, self.levels, strict=True)
        ]
        return self.canonical(np.stack(columns, 1))

    def canonical(self, x: np.ndarray) -> np.ndarray:
        """Returns configurations whose inactive decisions are 0, (n, decisions)."""
        x = np.array(x, float)
        for column, (parent, least) in enumerate(
            zip(self.parents, self.parent_levels, strict=True)
        ):
            if parent >= 0:
                x[x[:, parent] < least, column] = 0.0
        return x

    def active(self, row: np.ndarray) -> list[int]:
        """Returns the indices of the active decisions of a configuration."""
        parents = self.parents or (-1,) * len(self)
        least = self.parent_levels or (0,) * len(self)
        return [i for i in range(len(self)) if parents[i] < 0 or row[parents[i]] >= least[i]]

    def neighbors(self, row: np.ndarray) -> np.ndarray:
        """Returns all configurations that differ in one decision, (n, decisions)."""
        found = []
        for column in self.active(row):
            if self.kinds[column] == REAL:
                values = np.unique(np.clip(row[column] + _REAL_STEPS, 0.0, 1.0))
                values = values[values != row[column]]
            else:
                values = np.delete(np.arange(self.levels[column]), int(row[column])).astype(float)
            copies = np.repeat(row[None], len(values), 0)
            copies[:, column] = values
            found.append(copies)
        return self.canonical(np.concatenate(found))

    def mutated(self, row: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Returns a configuration with one decision changed, (decisions,)."""
        active = [i for i in self.active(row) if self.levels[i] != 1]
        column = active[rng.integers(len(active))]
        row = row.copy()
        if self.kinds[column] == REAL:
            moved = abs(row[column] + 0.2 * rng.normal()) % 2.0  # reflected at both ends
            row[column] = min(moved, 2.0 - moved)
        else:
            row[column] = (row[column] + 1 + rng.integers(self.levels[column] - 1)) % self.levels[
                column
            ]
        return self.canonical(row[None])[0]

    def positions(self, x: np.ndarray) -> np.ndarray:
        """Returns each decision's level as a position in [0, 1], (n, decisions)."""
        spans = [
            1.0 if kind == REAL else max(n - 1, 1)
            for kind, n in zip(self.kinds, self.levels, strict=True)
        ]
        return x / np.array(spans)


class SearchTable:
    """A table of configurations.

    Args:
        decisions: Its decisions.
        value: Returns values without noise, larger is better, of configurations (n, decisions).
        cost: Returns costs, less is better; None: each decision's level adds to it.
        noise: Standard deviation of a measurement, as a fraction of the distance from the median
            to the best value; a function of scores (0 median, 1 best), or one number.
        rng: NumPy's random generator.
        measured: Returns one measurement of a configuration; None: its value with normal noise.
    """

    def __init__(
        self,
        decisions: Decisions,
        value: Callable[[np.ndarray], np.ndarray],
        rng: np.random.Generator,
        *,
        noise: float = 0.06,
        more_noise: float = 1.0,
        cost: Callable[[np.ndarray], np.ndarray] | None = None,
        measured: Callable[[np.ndarray, np.random.Generator], float] | None = None,
    ) -> None:
        self.decisions, self._value, self._measured = decisions, value, measured
        self._noise, self._more_noise = noise, more_noise
        weights = rng.gamma(1.0, size=len(decisions))
        self._cost = cost or (lambda x: decisions.positions(x) @ weights / weights.sum())
        sample = decisions.sample(_RANDOM, rng)
        values, costs = value(sample), self._cost(sample)
        self.median = float(np.median(values))
        self.best = self._climbed(sample[np.argsort(-values)[:_CLIMBS]])
        self.scale = max(self.best - self.median, 1e-9)
        self.corner = (float(self.score(np.quantile(values, 0.1))), float(costs.max()))
        self.ideal_cost = float(costs.min())

    def score(self, values: np.ndarray | float) -> np.ndarray:
        """Returns values on the scale of the table: 0 is the median, 100 the best."""
        return 100.0 * (np.asarray(values) - self.median) / self.scale

    def scores(self, x: np.ndarray) -> np.ndarray:
        """Returns the scores of configurations without noise, (n,)."""
        return self.score(self._value(np.asarray(x, float)))

    def costs(self, x: np.ndarray) -> np.ndarray:
        """Returns the costs of configurations, (n,)."""
        return self._cost(np.asarray(x, float))

    def measure(self, row: np.ndarray, rng: np.random.Generator) -> float:
        """Returns one noisy measurement of a configuration, as a value."""
        if self._measured is not None:
            return float(self._measured(row, rng))
        value = float(self._value(row[None])[0])
        worse = np.clip((self.best - value) / self.scale, 0.0, 3.0)
        deviation = self._noise * self.scale * (1.0 + self._more_noise * worse)
        return value + deviation * rng.normal()

    def hypervolume(self, x: np.ndarray) -> float:
        """Returns the hypervolume of configurations, % of the box from the corner to the ideal."""
        scores, costs = self.scores(x), self.costs(x)
        order = np.lexsort((-scores, costs))
        low, high = self.corner
        total, reached = 0.0, low
        for i in order:
            if costs[i] < high and scores[i] > reached:
                total += (scores[i] - reached) * (high - costs[i])
                reached = scores[i]
        return float(100.0 * total / ((100.0 - low) * (high - self.ideal_cost)))

    def _climbed(self, starts: np.ndarray) -> float:
        """The best value that climbs by one or two changes reach."""
        best = -np.inf
        for row in starts:
            value = float(self._value(row[None])[0])
            for _ in range(_STEPS):
                near = self.decisions.neighbors(row)
                values = self._value(near)
                if values.max() <= value + 1e-12:
                    break
                row, value = near[int(values.argmax())], float(values.max())
            best = max(best, value)
        return best
