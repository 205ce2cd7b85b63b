"""Tables of cells: graphs whose operations are decisions, as in NAS-Bench-201 and DARTS.

The value of a cell is computed from its graph with random operations on a small vector, so that
different encodings of the same graph have the same value, and a cell without a path from its input
to its output ends at chance.

References:
    Dong and Yang, "NAS-Bench-201", ICLR 2020. Liu et al., "DARTS", ICLR 2019.
"""

from __future__ import annotations

import itertools

import numpy as np

from search_tables.table import CATEGORICAL, Decisions, SearchTable

_WIDTH = 6
_CHANCE = -20.0  # far below all cells that have a path
NONE, SKIP, CONV1, CONV3, POOL = range(5)
_PATHS = ((3,), (0, 4), (1, 5), (0, 2, 5))  # edges of each way from the first node to the last


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


def cell_accuracy(rng: np.random.Generator) -> SearchTable:
    """The cells of :func:`cell_edges` with accuracies as of trained networks.

    What counts are the paths from input to output without their skips, so that cells of one graph
    are equal. Convolutions help less and less, pooling and long ways without a shortcut cost a
    little, and a cell without a path is at chance. Tables are as of several data sets: they agree
    on most of it.
    """
    gain = {CONV1: 0.6, CONV3: 1.0, POOL: -0.2}
    gain = {kind: value + 0.1 * rng.normal() for kind, value in gain.items()}
    ceiling, shortcut, depth = rng.uniform(0.5, 0.8), *rng.uniform(0.1, 0.3, 2)
    of_path = 0.08 * rng.normal(size=4**3)  # what the other terms leave out, by path
    of_pair = 0.04 * rng.normal(size=(4**3, 4**3))

    def one(kinds: tuple[int, ...]) -> float:
        paths = [[kinds[edge] for edge in path] for path in _PATHS]
        live = [path for path in paths if NONE not in path]
        if not live:
            return _CHANCE
        used = {edge for path in _PATHS for edge in path if NONE not in [kinds[e] for e in path]}
        capacity = sum(gain.get(kinds[edge], 0.0) for edge in used)
        ways = sorted(tuple(kind for kind in path if kind != SKIP) for path in live)
        codes = [sum((kind - 1) * 4**i for i, kind in enumerate(way)) for way in ways]
        longest = max(len(way) for way in ways)
        quality = capacity + (shortcut if not all(ways) else 0.0)
        quality -= depth * max(longest - 1, 0) * all(ways)
        quality += sum(of_path[code] for code in codes)
        quality += sum(of_pair[a, b] for a, b in itertools.pairwise(codes))
        return float(-np.exp(-ceiling * quality))

    cells = list(itertools.product(range(5), repeat=6))
    values = np.array([one(kinds) for kinds in cells])

    def value(x: np.ndarray) -> np.ndarray:
        return values[x.astype(int) @ 5 ** np.arange(5, -1, -1)]

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
