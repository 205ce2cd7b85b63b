"""Families of synthetic tables; each seed makes another table of the family.

References:
    Kauffman and Levin, "Towards a general theory of adaptive walks on rugged landscapes", 1987
    (NK landscapes).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from search_tables.cells import cell_accuracy, cell_edges, cell_nodes
from search_tables.table import CATEGORICAL, ORDINAL, REAL, Decisions, SearchTable

CHANCE = -4.0  # a failure is that many spreads below the median


def smooth(rng: np.random.Generator) -> SearchTable:
    """A tilted bowl over ordered choices and real numbers."""
    count = int(rng.integers(4, 11))
    real = rng.random(count) < 0.3
    kinds = tuple(REAL if r else ORDINAL for r in real)
    levels = tuple(0 if r else int(rng.integers(3, 9)) for r in real)
    decisions = Decisions(kinds, levels)
    factor = rng.normal(size=(count, count)) * np.exp(0.5 * rng.normal(size=(1, count)))
    bowl = np.diag(np.exp(rng.normal(size=count))) + 0.3 * factor @ factor.T / count
    center = rng.uniform(0.1, 0.9, count)

    def value(x: np.ndarray) -> np.ndarray:
        shift = decisions.positions(x) - center
        return -np.sqrt(0.02 + np.einsum("ni,ij,nj->n", shift, bowl, shift))

    return SearchTable(decisions, value, rng, noise=0.02 + 0.08 * rng.random())


def rugged(rng: np.random.Generator) -> SearchTable:
    """An NK landscape: each decision's share depends on one to four others."""
    count, others = int(rng.integers(8, 17)), int(rng.integers(1, 5))
    levels = int(rng.integers(2, 5))
    links = [
        np.r_[i, rng.permutation(np.delete(np.arange(count), i))[:others]] for i in range(count)
    ]
    shares = rng.normal(size=(count, levels ** (others + 1)))
    powers = levels ** np.arange(others + 1)

    def value(x: np.ndarray) -> np.ndarray:
        index = x.astype(int)
        return sum(shares[i, index[:, links[i]] @ powers] for i in range(count))

    decisions = Decisions((CATEGORICAL,) * count, (levels,) * count)
    return SearchTable(decisions, value, rng, noise=0.02 + 0.08 * rng.random())


def _mixed(
    rng: np.random.Generator, count: int, pairs: int
) -> tuple[Decisions, Callable[..., np.ndarray]]:
    """Main effects, smooth over ordered choices, and interactions of pairs."""
    ordered = rng.random(count) < 0.5
    levels = rng.integers(2, 7, count)
    weights = np.exp(0.7 * rng.normal(size=count))
    effects = []
    for i in range(count):
        effect = rng.normal(size=levels[i])
        if ordered[i]:
            u = np.arange(levels[i]) / max(levels[i] - 1, 1)
            effect = 3.0 * rng.normal() * u - 4.0 * rng.random() * (u - rng.random()) ** 2
        effects.append(weights[i] * effect)
    chosen = [tuple(rng.choice(count, 2, replace=False)) for _ in range(pairs)]
    joint = [0.7 * rng.normal(size=(levels[a], levels[b])) for a, b in chosen]

    def value(x: np.ndarray) -> np.ndarray:
        index = x.astype(int)
        total = sum(effects[i][index[:, i]] for i in range(count))
        return total + sum(
            t[index[:, a], index[:, b]] for (a, b), t in zip(chosen, joint, strict=True)
        )

    kinds = tuple(ORDINAL if o else CATEGORICAL for o in ordered)
    return Decisions(kinds, tuple(int(n) for n in levels)), value


def interacting(rng: np.random.Generator) -> SearchTable:
    """Main effects and as many interactions of pairs as there are decisions."""
    count = int(rng.integers(6, 15))
    decisions, value = _mixed(rng, count, count)
    return SearchTable(decisions, value, rng, noise=0.02 + 0.08 * rng.random())


def failing(rng: np.random.Generator) -> SearchTable:
    """Interactions under a ceiling, and combinations of choices that end near chance."""
    count = int(rng.integers(5, 13))
    decisions, plain = _mixed(rng, count, count // 2)
    sample = plain(decisions.sample(2000, rng))
    middle, spread = float(np.median(sample)), float(sample.std())
    rules = []
    for _ in range(int(rng.integers(1, 5))):
        among = rng.choice(count, min(count, int(rng.integers(1, 4))), replace=False)
        rules.append([(int(i), int(rng.integers(decisions.levels[i]))) for i in among])
    rules = [rule for rule in rules if np.prod([decisions.levels[i] for i, _ in rule]) >= 5]

    def value(x: np.ndarray) -> np.ndarray:
        under = 1.0 - np.exp(-0.8 * (plain(x) - middle) / spread)  # a ceiling at 1
        values = np.maximum(under, -2.0)
        for rule in rules:
            failed = np.all([x[:, i] == level for i, level in rule], axis=0)
            values = np.where(failed, 0.1 * values + 5 * CHANCE, values)
        return values

    return SearchTable(decisions, value, rng, noise=0.02 + 0.08 * rng.random(), more_noise=0.3)


def stages(rng: np.random.Generator) -> SearchTable:
    """Stages of blocks: of a stage that is the identity no other decision counts."""
    count = int(rng.integers(4, 9))
    kinds, levels, parents, least = [], [], [], []
    for _ in range(count):
        kind = len(kinds)
        kinds += [CATEGORICAL, ORDINAL, ORDINAL, ORDINAL, ORDINAL]
        levels += [3, 3, 3, 4, 3]  # kind, kernel, expansion, width, depth
        parents += [-1, kind, kind, kind, kind]
        least += [0, 1, 1, 1, 1]
    decisions = Decisions(tuple(kinds), tuple(levels), tuple(parents), tuple(least))
    gains = np.exp(0.5 * rng.normal(size=count))
    kernel, fused = rng.normal(size=count), rng.normal(size=count)
    best = 0.35 + 0.3 * rng.random()

    def parts(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        stage = x.reshape(len(x), count, 5)
        active = stage[..., 0] > 0
        size = (1 + stage[..., 2]) * (1 + stage[..., 3]) * (1 + stage[..., 4]) / 36.0
        return np.where(active, size, 0.0), stage

    def value(x: np.ndarray) -> np.ndarray:
        size, stage = parts(x)
        power = np.log1p(6.0 * size) @ gains / gains.sum()
        active = stage[..., 0] > 0
        extra = np.where(active, 0.06 * kernel * (stage[..., 1] - 1), 0.0)
        extra += np.where(stage[..., 0] == 2, 0.08 * fused, 0.0)
        jumps = np.abs(np.diff(stage[..., 3], axis=1)).sum(1)
        total = size.mean(1)
        return (
            power
            - 1.5 * np.maximum(total - best, 0) ** 2
            + extra.sum(1) / count**0.5
            - 0.02 * jumps
        )

    def cost(x: np.ndarray) -> np.ndarray:
        size, stage = parts(x)
        return (size * (1 + 0.2 * stage[..., 1])).mean(1)

    return SearchTable(decisions, value, rng, noise=0.02 + 0.08 * rng.random(), cost=cost)


def training(rng: np.random.Generator) -> SearchTable:
    """Settings of a training: a ridge of two real numbers with a cliff, and a few choices."""
    count = int(rng.integers(3, 8))
    kinds = [REAL, REAL, *(rng.choice([REAL, ORDINAL, CATEGORICAL], count - 2).tolist())]
    levels = [0 if kind == REAL else int(rng.integers(2, 6)) for kind in kinds]
    decisions = Decisions(tuple(kinds), tuple(levels))
    weights = 0.6 * np.exp(0.5 * rng.normal(size=count - 2))
    centers = rng.random(count - 2)
    effects = [0.5 * rng.normal(size=max(n, 1)) for n in levels]
    best, slope, cliff = rng.uniform(0.35, 0.7), rng.uniform(-0.5, 0.5), rng.uniform(0.12, 0.3)

    def value(x: np.ndarray) -> np.ndarray:
        rate = x[:, 0] - best - slope * (x[:, 1] - 0.5)
        total = -8.0 * rate**2 - 1.0 * (x[:, 1] - 0.4) ** 2
        positions = decisions.positions(x)
        for i in range(2, count):
            if kinds[i] == CATEGORICAL:
                total = total + effects[i][x[:, i].astype(int)]
            else:
                total = total - weights[i - 2] * (positions[:, i] - centers[i - 2]) ** 2
        return np.where(rate > cliff, CHANCE + 0.1 * total, total)

    return SearchTable(decisions, value, rng, noise=0.02 + 0.08 * rng.random(), more_noise=0.3)


def sparse(rng: np.random.Generator) -> SearchTable:
    """Forty decisions of two or three choices, of which six matter much."""
    count = 40
    levels = rng.integers(2, 4, count)
    weights = 0.03 * np.ones(count)
    important = rng.choice(count, 6, replace=False)
    weights[important] = 1.0
    effects = [w * rng.normal(size=n) for w, n in zip(weights, levels, strict=True)]
    joint = {
        (a, b): 0.8 * rng.normal(size=(levels[a], levels[b]))
        for a, b in zip(important[::2], important[1::2], strict=True)
    }

    def value(x: np.ndarray) -> np.ndarray:
        index = x.astype(int)
        total = sum(effects[i][index[:, i]] for i in range(count))
        return total + sum(t[index[:, a], index[:, b]] for (a, b), t in joint.items())

    kinds = (CATEGORICAL,) * count
    return SearchTable(Decisions(kinds, tuple(int(n) for n in levels)), value, rng)


def random_network(rng: np.random.Generator) -> SearchTable:
    """A random network of two layers over one-hot choices: interactions of all orders."""
    count = int(rng.integers(6, 17))
    levels = rng.integers(2, 6, count)
    first = [rng.normal(size=(n, 24)) for n in levels]
    second, last = 1.2 * rng.normal(size=(24, 12)) / 24**0.5, rng.normal(size=12)

    def value(x: np.ndarray) -> np.ndarray:
        index = x.astype(int)
        hidden = sum(first[i][index[:, i]] for i in range(count)) / count**0.5
        return np.tanh(np.tanh(1.5 * hidden) @ second * 1.5) @ last

    return SearchTable(Decisions((CATEGORICAL,) * count, tuple(int(n) for n in levels)), value, rng)


def steps(rng: np.random.Generator) -> SearchTable:
    """A sum of random trees over ordered choices and real numbers: plateaus and edges."""
    count = int(rng.integers(5, 12))
    real = rng.random(count) < 0.4
    kinds = tuple(REAL if r else ORDINAL for r in real)
    levels = tuple(0 if r else int(rng.integers(3, 9)) for r in real)
    decisions = Decisions(kinds, levels)
    importance = rng.dirichlet(np.ones(count))
    splits = rng.choice(count, size=(30, 3), p=importance)
    cuts, leaves = rng.uniform(0.1, 0.9, (30, 3)), rng.normal(size=(30, 8))

    def value(x: np.ndarray) -> np.ndarray:
        u = decisions.positions(x)
        side = (u[:, splits] > cuts[None]).astype(int) @ np.array([1, 2, 4])
        return leaves[np.arange(30)[None], side].sum(1)

    return SearchTable(decisions, value, rng, noise=0.02 + 0.08 * rng.random())


DEVELOPMENT = {
    "smooth": smooth,
    "rugged": rugged,
    "interacting": interacting,
    "failing": failing,
    "stages": stages,
    "training": training,
    "cell edges": cell_edges,
    "cell accuracy": cell_accuracy,
}
"""Families that settings were chosen on, with seeds from 1000 on."""
HELD_OUT = {
    "sparse": sparse,
    "random network": random_network,
    "steps": steps,
    "cell nodes": cell_nodes,
}
"""Families that no setting was chosen on."""
_LATER = ("cell accuracy",)  # their numbers follow all others', whose tables so remain the same


def family(name: str, seed: int) -> SearchTable:
    """Returns the table of a family and a seed.

    Args:
        name: A name of :data:`DEVELOPMENT` or :data:`HELD_OUT`.
        seed: Seed of the table.
    """
    families = {**DEVELOPMENT, **HELD_OUT}
    numbered = [*sorted(set(families) - set(_LATER)), *_LATER]
    # Three numbers, so that no search draws from the same generator.
    return families[name](np.random.default_rng([seed, numbered.index(name), 29]))
