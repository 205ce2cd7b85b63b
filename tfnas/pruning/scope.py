"""How a ratio is spread over kernels.

| scope         | every kernel gets                                                        |
|---------------|--------------------------------------------------------------------------|
| "layer"       | the same ratio                                                           |
| "global"      | what one threshold over all scores leaves it; at least one unit stays    |
| "erk"         | a density in proportion to (sum of its dimensions) / (product of them)   |
| {name: ratio} | the ratio of its name, else of the first pattern that fits, else the common |

References:
    Evci et al., "Rigging the Lottery: Making All Tickets Winners", ICML 2020, for
    Erdős-Rényi-kernel; Mocanu et al. 2018 for Erdős-Rényi.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tfnas.pruning.masks import Units, prune_units

SCOPES = ("layer", "global", "erk")


def keep_by_ratio(
    units: Sequence[Units],
    sizes: Sequence[int],
    ratios: Sequence[float],
    seed: int,
    spare: bool = True,
) -> list[np.ndarray]:
    """Returns for each kernel which units stay, each kernel at its own ratio.

    Args:
        units: The kernels' units.
        sizes: Weights a kernel.
        ratios: Share of each kernel's weights that goes.
        seed: Orders equal scores.
        spare: Whether the best unit of a kernel always stays, so that none is emptied.
    """
    kept = []
    for number, (u, size, ratio) in enumerate(zip(units, sizes, ratios, strict=True)):
        rng = np.random.default_rng([seed, number])
        keep = ~prune_units(u.scores, u.sizes, ratio * size, rng)
        if spare and not keep.any():
            keep[int(u.scores.argmax())] = True
        kept.append(keep)
    return kept


def keep_globally(
    units: Sequence[Units], sizes: Sequence[int], ratio: float, seed: int, spare: bool = True
) -> list[np.ndarray]:
    """Returns for each kernel which units stay, with one threshold over all kernels."""
    scores = np.concatenate([_best_last(u.scores) if spare else u.scores for u in units])
    rng = np.random.default_rng(seed)
    pruned = prune_units(scores, np.concatenate([u.sizes for u in units]), ratio * sum(sizes), rng)
    pruned &= scores != np.inf  # no kernel is emptied
    return [~part for part in np.split(pruned, np.cumsum([u.scores.size for u in units])[:-1])]


def erdos_renyi_kernel(shapes: Sequence[tuple[int, ...]], ratio: float) -> list[float]:
    """Returns a ratio a kernel, so that together they have the one asked for.

    The density of a kernel is eps (sum of its dimensions) / (product of them), at most 1;
    eps is solved for.

    Example:
        >>> [round(r, 3) for r in erdos_renyi_kernel([(10, 10), (100, 100)], 0.5)]
        [0.0, 0.505]

    Args:
        shapes: Shape of each kernel.
        ratio: Share of all weights that goes.

    References:
        Evci et al. 2020, section 3.
    """
    sizes = np.array([np.prod(shape) for shape in shapes], float)
    raw = np.array([sum(shape) for shape in shapes]) / sizes
    dense = np.zeros(len(shapes), bool)
    while True:
        left = (1 - ratio) * sizes.sum() - sizes[dense].sum()
        eps = left / (raw * sizes)[~dense].sum()
        over = ~dense & (eps * raw > 1.0)
        if not over.any():
            break
        dense |= over & (raw == raw[over].max())
    return [0.0 if full else float(1 - eps * r) for full, r in zip(dense, raw, strict=True)]


def _best_last(scores: np.ndarray) -> np.ndarray:
    spared = scores.astype(np.float64)
    spared[int(scores.argmax())] = np.inf
    return spared
