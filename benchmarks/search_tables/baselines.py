"""Search algorithms without a library: random, aging evolution, local search, TPE, NSGA-II.

Each is a function of (table, measure, evaluations, seed) that calls `measure(row)` and gets one
number, larger is better. :mod:`search_tables.libraries` has those of libraries.

References:
    Real et al., "Regularized Evolution for Image Classifier Architecture Search", AAAI 2019.
    White et al., "Exploring the Loss Landscape in Neural Architecture Search", UAI 2021 (local
    search). Deb et al., "NSGA-II", 2002. Bergstra et al., "Algorithms for Hyper-Parameter
    Optimization", NeurIPS 2011, and Watanabe, "Tree-Structured Parzen Estimator", 2023 (TPE).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.stats import truncnorm

from search_tables.runs import Measurements
from search_tables.table import CATEGORICAL, REAL, Decisions, SearchTable
from tfnas.nas.samplers.pareto_selection import best_first

_TRIES = 100
_IDLE = 100  # climbs in a row that measure nothing new, after which all is taken to be known


def random_search(table: SearchTable, measure: Measurements, evaluations: int, seed: int) -> None:
    """Random configurations, none twice."""
    rng = np.random.default_rng([seed, 11, 29])
    tried: set[bytes] = set()
    for _ in range(evaluations):
        measure(_new(lambda: table.decisions.sample(1, rng)[0], tried))


def aging_evolution(
    table: SearchTable,
    measure: Measurements,
    evaluations: int,
    seed: int,
    population_size: int = 16,
    tournament_size: int = 5,
) -> None:
    """Mutates the best of some of the last configurations."""
    rng = np.random.default_rng([seed, 11, 29])
    decisions, tried = table.decisions, set[bytes]()
    population: list[tuple[float, np.ndarray]] = []

    def child() -> np.ndarray:
        drawn = rng.choice(population_size, tournament_size, replace=False)
        parent = max(drawn, key=lambda i: population[i][0])
        return decisions.mutated(population[parent][1], rng)

    for count in range(evaluations):
        grown = count >= population_size
        row = _new(child if grown else lambda: decisions.sample(1, rng)[0], tried)
        population.append((measure(row), row))
        del population[:-population_size]


def local_search(table: SearchTable, measure: Measurements, evaluations: int, seed: int) -> None:
    """From the best of ten random ones to the first better neighbor; at an optimum anew."""
    rng = np.random.default_rng([seed, 11, 29])
    decisions, left = table.decisions, evaluations
    measured: dict[bytes, float] = {}
    idle = 0

    def value(row: np.ndarray) -> float:
        nonlocal left
        if row.tobytes() not in measured:
            left -= 1
            measured[row.tobytes()] = measure(row)
        return measured[row.tobytes()]

    while left > 0 and idle < _IDLE:
        before = left
        starts = decisions.sample(min(10, left), rng)
        values = [value(row) for row in starts]
        row, best = starts[int(np.argmax(values))], max(values)
        improved = True
        while improved and left > 0:
            improved = False
            for near in rng.permutation(decisions.neighbors(row)):
                if left > 0 and (found := value(near)) > best:
                    row, best, improved = near, found, True
                    break
        idle = 0 if left < before else idle + 1


def tpe(
    table: SearchTable,
    measure: Measurements,
    evaluations: int,
    seed: int,
    random: int = 10,
    candidates: int = 24,
) -> None:
    """A multivariate tree-structured Parzen estimator with the settings of Optuna's."""
    rng = np.random.default_rng([seed, 11, 29])
    decisions = table.decisions
    rows, values = np.zeros((0, len(decisions))), np.zeros(0)
    for count in range(evaluations):
        if count < random:
            row = decisions.sample(1, rng)[0]
        else:
            order = np.argsort(-values, kind="stable")
            num_good = min(int(np.ceil(0.1 * count)), 25)
            good = _Parzen(decisions, rows[np.sort(order[:num_good])])
            bad = _Parzen(decisions, rows[np.sort(order[num_good:])])
            drawn = good.sample(candidates, rng)
            row = drawn[int(np.argmax(good.log_density(drawn) - bad.log_density(drawn)))]
            row = decisions.canonical(row[None])[0]
        rows, values = np.vstack([rows, row]), np.r_[values, measure(row)]


def nsga2(
    table: SearchTable,
    measure: Measurements,
    evaluations: int,
    seed: int,
    population_size: int = 20,
) -> None:
    """NSGA-II, one child at a time: uniform crossover, one mutation on average."""
    rng, decisions, tried = np.random.default_rng([seed, 11, 29]), table.decisions, set[bytes]()
    population: list[tuple[tuple[float, float], np.ndarray]] = []

    def child() -> np.ndarray:
        first, second = (population[rng.integers(len(population), size=2).min()][1] for _ in "ab")
        row = np.where(rng.random(len(first)) < 0.5, first, second)
        row = decisions.canonical(row[None])[0]
        for _ in range(rng.poisson(1.0)):
            row = decisions.mutated(row, rng)
        return row

    for count in range(evaluations):
        grown = count >= population_size
        row = _new(child if grown else lambda: decisions.sample(1, rng)[0], tried)
        value, cost = measure.both(row)
        population.append(((-value, cost), row))
        if grown:
            order = best_first(np.zeros(len(population)), [losses for losses, _ in population])
            population = [population[i] for i in order[:population_size]]


class _Parzen:
    """A mixture of products, one of each observation, and an even one."""

    def __init__(self, decisions: Decisions, rows: np.ndarray) -> None:
        self._decisions, count = decisions, len(rows)
        weights = np.ones(count)
        if count > 25:
            weights[: count - 25] = np.linspace(1.0 / count, 1.0, count - 25)
        self._weights = np.r_[weights, 1.0] / (weights.sum() + 1.0)
        self._tables: dict[int, np.ndarray] = {}
        self._normals: dict[int, tuple[np.ndarray, float, np.ndarray]] = {}
        for i, (kind, levels) in enumerate(zip(decisions.kinds, decisions.levels, strict=True)):
            if kind == CATEGORICAL:
                table = np.full((count + 1, levels), 1.0 / (count + 1))
                table[np.arange(count), rows[:, i].astype(int)] += 1.0
                self._tables[i] = table / table.sum(1, keepdims=True)
                continue
            low, high = (0.0, 1.0) if kind == REAL else (-0.5, levels - 0.5)
            sigma = 0.2 * max(count, 1) ** (-1.0 / (len(decisions) + 4))
            sigma = max(sigma, 1.0 / min(100.0, 2.0 + count)) * (high - low)
            means = np.r_[rows[:, i], 0.5 * (low + high)]
            self._normals[i] = (means, low, np.r_[np.full(count, sigma), high - low])
            if kind != REAL:
                self._tables[i] = self._discrete(i, levels)

    def _discrete(self, i: int, levels: int) -> np.ndarray:
        from scipy.stats import norm

        means, low, sigmas = self._normals[i]
        edges = low + np.arange(levels + 1)
        mass = np.diff(norm.cdf((edges[None] - means[:, None]) / sigmas[:, None]), axis=1) + 1e-12
        return mass / mass.sum(1, keepdims=True)

    def sample(self, count: int, rng: np.random.Generator) -> np.ndarray:
        chosen = rng.choice(len(self._weights), count, p=self._weights)
        columns = []
        for i, kind in enumerate(self._decisions.kinds):
            if kind == REAL:
                means, _, sigmas = self._normals[i]
                mean, sigma = means[chosen], sigmas[chosen]
                ends = -mean / sigma, (1 - mean) / sigma
                columns.append(truncnorm.rvs(*ends, loc=mean, scale=sigma, random_state=rng))
            else:
                sums = self._tables[i][chosen].cumsum(1)
                columns.append((sums < rng.random((count, 1)) * sums[:, -1:]).sum(1).astype(float))
        return np.stack(columns, 1)

    def log_density(self, rows: np.ndarray) -> np.ndarray:
        total = np.log(self._weights)[None]
        for i, kind in enumerate(self._decisions.kinds):
            if kind == REAL:
                from scipy.special import ndtr

                means, _, sigmas = self._normals[i]
                inside = ndtr((1 - means) / sigmas) - ndtr(-means / sigmas)
                z = (rows[:, i][:, None] - means[None]) / sigmas[None]
                total = total - 0.5 * z**2 - np.log(sigmas * inside)[None]
            else:
                total = total + np.log(self._tables[i][:, rows[:, i].astype(int)].T)
        largest = total.max(1, keepdims=True)
        return largest[:, 0] + np.log(np.exp(total - largest).sum(1))


def _new(draw: Callable[[], np.ndarray], tried: set[bytes]) -> np.ndarray:
    """A row that was not tried; after many tries one that was."""
    for _ in range(_TRIES):
        row = draw()
        if row.tobytes() not in tried:
            break
    tried.add(row.tobytes())
    return row
