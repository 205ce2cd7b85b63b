"""How a ratio is spread over kernels.

| scope         | every kernel gets                                                        |
|---------------|--------------------------------------------------------------------------|
| "layer"       | the same ratio                                                           |
| "global"      | what one threshold over all scores leaves it; at least one unit stays    |
| "erk"         | a density in proportion to (sum of its dimensions) / (product of them)   |
| {name: ratio} | the ratio of the first name or pattern that matches, else the common one |

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
    units: Sequence[Units], sizes: Sequence[int], ratios: Sequence[float], rng: np.random.Generator
) -> list[np.ndarray]:
    """Returns for each kernel which units stay, each kernel at its own ratio.

    Args:
        units: The kernels' units.
        sizes: Weights a kernel.
        ratios: Share of each kernel's weights that goes.
        rng: Draws among equal scores.
    """
    return [
        _spare_one(~prune_units(u.scores, u.sizes, ratio * size, rng), u)
        if ratio
        else np.ones(u.scores.size, bool)
        for u, size, ratio in zip(units, sizes, ratios, strict=True)
    ]


def keep_globally(
    units: Sequence[Units], sizes: Sequence[int], ratio: float, rng: np.random.Generator
) -> list[np.ndarray]:
    """Returns for each kernel which units stay, with one threshold over all kernels."""
    spared = [_best_last(u.scores) for u in units]  # no kernel is emptied
    scores = np.concatenate(spared)
    pruned = prune_units(
        scores, np.concatenate([u.sizes for u in units]), ratio * sum(sizes), rng
    ) & np.isfinite(scores)
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


def _spare_one(keep: np.ndarray, units: Units) -> np.ndarray:
    """A ratio below 1 empties no kernel: its best unit stays."""
    if not keep.any():
        keep[int(units.scores.argmax())] = True
    return keep


def _best_last(scores: np.ndarray) -> np.ndarray:
    spared = scores.astype(np.float64)
    spared[int(scores.argmax())] = np.inf
    return spared
