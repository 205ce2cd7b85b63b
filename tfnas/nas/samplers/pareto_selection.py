"""Selection of an evolutionary search: Pareto ranks, crowding distances, tournaments.

All functions take rows of (violation, losses): the amount by which a candidate breaks limits, and
its objectives with the sign changed of those that are maximized.

References:
    Deb et al., "A Fast and Elitist Multiobjective Genetic Algorithm: NSGA-II", IEEE
    Transactions on Evolutionary Computation 2002.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def pareto_ranks(violations: Sequence[float], losses: Sequence[Sequence[float]]) -> np.ndarray:
    """Returns the rank of each row's Pareto front, 0 for the best, by constrained domination.

    Example:
        >>> pareto_ranks([0, 0, 0, 1], [[1, 2], [2, 1], [2, 2], [0, 0]])
        array([0, 0, 1, 2])

    Args:
        violations: Amounts by which limits are broken, (n,); 0: all limits hold.
        losses: Objectives, (n, objectives), less is better.
    """
    excess, rows = np.asarray(violations, float), np.asarray(losses, float)
    worse = (rows[:, None] >= rows[None]).all(-1) & (rows[:, None] > rows[None]).any(-1)
    both_feasible = (excess[:, None] == 0) & (excess[None] == 0)
    # dominated[i, j]: row i is dominated by row j
    dominated = np.where(both_feasible, worse, excess[:, None] > excess[None])
    ranks = np.full(len(rows), -1)
    rank = 0
    while (ranks < 0).any():
        remaining = ranks < 0
        front = remaining & ~(dominated & remaining[None]).any(1)
        ranks[front] = rank
        rank += 1
    return ranks


def crowding(losses: Sequence[Sequence[float]] | np.ndarray) -> np.ndarray:
    """Returns the crowding distances of the rows of one front, (n,); larger is less crowded.

    Example:
        >>> crowding([[0, 4], [1, 2], [4, 0]])
        array([inf,  2., inf])

    Args:
        losses: Objectives, (n, objectives).
    """
    rows = np.asarray(losses, float)
    distance = np.zeros(len(rows))
    for column in rows.T:
        order = np.argsort(column, kind="stable")
        spread = column[order[-1]] - column[order[0]]
        distance[order[[0, -1]]] = np.inf
        if len(rows) > 2 and spread > 0:
            distance[order[1:-1]] += (column[order[2:]] - column[order[:-2]]) / spread
    return distance


def best_first(violations: Sequence[float], losses: Sequence[Sequence[float]]) -> np.ndarray:
    """Returns the row indices, best first: by Pareto front, then by crowding distance.

    Duplicates of a row come after all other rows of its front, so that a population does not fill
    up with copies.

    Args:
        violations: Amounts by which limits are broken, (n,).
        losses: Objectives, (n, objectives), less is better.
    """
    rows = np.asarray(losses, float)
    ranks = pareto_ranks(violations, losses)
    distances = np.zeros(len(rows))
    for rank in np.unique(ranks):
        members = np.flatnonzero(ranks == rank)
        distinct, first = np.unique(rows[members], axis=0, return_index=True)
        distances[members] = -1.0
        distances[members[first]] = crowding(distinct)
    return np.lexsort((np.arange(len(rows)), -distances, ranks))


def tournament(order: np.ndarray, size: int, rng: np.random.Generator) -> int:
    """Returns the index of the best of `size` random rows.

    Args:
        order: Row indices, best first.
        size: Number of rows drawn, without replacement.
        rng: NumPy's random generator.
    """
    drawn = rng.choice(len(order), min(size, len(order)), replace=False)
    return int(order[drawn.min()])
