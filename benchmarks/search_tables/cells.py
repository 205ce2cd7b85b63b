"""Tables of cells: graphs whose operations are decisions, as in NAS-Bench-201 and DARTS.

The value of a cell is computed from its graph with random operations on a small vector, so that
different encodings of the same graph have the same value, and a cell without a path from its input
to its output ends at chance.

References:
    Dong and Yang, "NAS-Bench-201", ICLR 2020. Liu et al., "DARTS", ICLR 2019.
"""

from __future__ import annotations

import numpy as np

from search_tables.table import CATEGORICAL, Decisions, SearchTable

_WIDTH = 6
_CHANCE = -20.0  # far below all cells that have a path
NONE, SKIP = 0, 1


def cell_edges(rng: np.random.Generator) -> SearchTable:
    """Four nodes, six edges, five operations: none, skip, two convolutions, pooling."""
    operations = _Operations(rng, 3)
    edges = [(a, b) for b in range(1, 4) for a in range(b)]

    def value(x: np.ndarray) -> np.ndarray:
        index = x.astype(int)
        nodes = [np.repeat(operations.start[None], len(x), 0)]
        reached = [np.ones(len(x), bool)]
        for node in range(1, 4):
            total, any_path = np.zeros((len(x), _WIDTH)), np.zeros(len(x), bool)
            for column, (source, target) in enumerate(edges):
                if target == node:
                    alive = reached[source] & (index[:, column] != NONE)
                    result = operations(nodes[source], index[:, column] - 1)
                    total += np.where(alive[:, None], result, 0.0)
                    any_path |= alive
            nodes.append(total)
            reached.append(any_path)
        return np.where(reached[-1], operations.score(nodes[-1]), _CHANCE)

    return _cell_table(Decisions((CATEGORICAL,) * 6, (5,) * 6), value, rng)


def cell_nodes(rng: np.random.Generator) -> SearchTable:
    """Five nodes, each with two inputs among earlier nodes and an operation on each.

    Nodes that nothing reads are added up as the cell's output.
    """
    operations = _Operations(rng, 4)
    levels: list[int] = []
    for node in range(1, 6):
        levels += [node, 5, node, 5]  # input, operation, input, operation

    def value(x: np.ndarray) -> np.ndarray:
        index, rows = x.astype(int), np.arange(len(x))
        nodes = [np.repeat(operations.start[None], len(x), 0)]
        read = np.zeros((len(x), 6), bool)
        for node in range(5):
            total = np.zeros((len(x), _WIDTH))
            stacked = np.stack(nodes, 1)
            for first in (4 * node, 4 * node + 2):
                source = index[:, first]
                read[rows, source] = True
                total += operations(stacked[rows, source], index[:, first + 1])
            nodes.append(total / 2)
        unread = ~read[:, 1:]
        output = (np.stack(nodes[1:], 1) * unread[..., None]).sum(1) / unread.sum(1)[:, None]
        return operations.score(output)

    return _cell_table(Decisions((CATEGORICAL,) * 20, tuple(levels)), value, rng)


def _cell_table(decisions: Decisions, value: object, rng: np.random.Generator) -> SearchTable:
    return SearchTable(decisions, value, rng, noise=0.02 + 0.08 * rng.random(), more_noise=0.3)


class _Operations:
    """Operations on vectors: 0 keeps them, the last averages neighbors, the others are random."""

    def __init__(self, rng: np.random.Generator, learned: int) -> None:
        self.start = rng.normal(size=_WIDTH)
        scales = np.linspace(1.6, 1.0, learned - 1)
        self._weights = [s * rng.normal(size=(_WIDTH, _WIDTH)) / _WIDTH**0.5 for s in scales]
        self._readout = rng.normal(size=(_WIDTH, _WIDTH))
        self._target = np.tanh(rng.normal(size=_WIDTH))

    def __call__(self, vectors: np.ndarray, kinds: np.ndarray) -> np.ndarray:
        results = [vectors, *(np.tanh(vectors @ w) for w in self._weights)]
        results.append(0.7 * (vectors + np.roll(vectors, 1, 1)) / 2)
        stacked = np.stack(results)
        return stacked[np.clip(kinds, 0, len(results) - 1), np.arange(len(vectors))]

    def score(self, vectors: np.ndarray) -> np.ndarray:
        """The nearer to a target after a readout, the better; at most 0."""
        return -np.sqrt(((np.tanh(vectors @ self._readout) - self._target) ** 2).mean(1))
