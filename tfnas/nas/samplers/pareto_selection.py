"""Who survives and who breeds: Pareto ranks, crowding, tournaments.

Everything here works on rows of (violation, losses): how far outside of the limits, and the
objectives turned so that less is better. With one objective the ranks are an order.

References:
    Deb et al., "A Fast and Elitist Multiobjective Genetic Algorithm: NSGA-II", IEEE
    Transactions on Evolutionary Computation 2002.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def pareto_ranks(violations: Sequence[float], losses: Sequence[Sequence[float]]) -> np.ndarray:
    """Returns the front of each row, 0 for the best, by constrained domination.

    Example:
        >>> pareto_ranks([0, 0, 0, 1], [[1, 2], [2, 1], [2, 2], [0, 0]])
        array([0, 0, 1, 2])

    Args:
        violations: (n,), 0 where all limits hold.
        losses: (n, objectives), less is better.
    """
    outside, rows = np.asarray(violations, float), np.asarray(losses, float)
    worse = (rows[:, None] >= rows[None]).all(-1) & (rows[:, None] > rows[None]).any(-1)
    both_within = (outside[:, None] == 0) & (outside[None] == 0)
    beaten = np.where(both_within, worse, outside[:, None] > outside[None])  # row by column
    ranks = np.full(len(rows), -1)
    rank = 0
    while (ranks < 0).any():
        left = ranks < 0
        front = left & ~(beaten & left[None]).any(1)
        ranks[front] = rank
        rank += 1
    return ranks


def crowding(losses: Sequence[Sequence[float]] | np.ndarray) -> np.ndarray:
    """Returns the crowding distance of rows of one front: how alone each one is.

    Example:
        >>> crowding([[0, 4], [1, 2], [4, 0]])
        array([inf,  2., inf])

    Args:
        losses: (n, objectives).
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
    """Returns row numbers, the best first: by front, then the least crowded.

    Equal rows keep their order, but for one of each: repetitions of a row come after
    all others of its front, so that a population does not fill up with copies.

    Args:
        violations: (n,).
        losses: (n, objectives).
    """
    rows = np.asarray(losses, float)
    ranks = pareto_ranks(violations, losses)
    alone = np.zeros(len(rows))
    for rank in np.unique(ranks):
        members = np.flatnonzero(ranks == rank)
        kept, first = np.unique(rows[members], axis=0, return_index=True)
        alone[members] = -1.0
        alone[members[first]] = crowding(kept)
    return np.lexsort((np.arange(len(rows)), -alone, ranks))


def tournament(order: np.ndarray, size: int, rng: np.random.Generator) -> int:
    """Returns the best of `size` rows drawn at random.

    Args:
        order: Row numbers, the best first.
        size: Number of rows drawn, without repetition.
        rng: NumPy's random generator.
    """
    drawn = rng.choice(len(order), min(size, len(order)), replace=False)
    return int(order[drawn.min()])
