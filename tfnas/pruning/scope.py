"""Distribution of a target sparsity over kernels.

| scope            | sparsity of each kernel                                                    |
|------------------|----------------------------------------------------------------------------|
| "layer"          | the same                                                                   |
| "global"         | by one threshold for the scores of all kernels; at least one unit stays    |
| "erk"            | density proportional to (sum of its dimensions) / (product of them)        |
| {name: sparsity} | by its name, else by the first pattern that matches, else the common one   |

References:
    Evci et al., "Rigging the Lottery: Making All Tickets Winners", ICML 2020, for
    Erdős-Rényi-kernel; Mocanu et al. 2018 for Erdős-Rényi.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tfnas.pruning.masks import Units, prune_units

SCOPES = ("layer", "global", "erk")


def keep_by_sparsity(
    units: Sequence[Units],
    sizes: Sequence[int],
    sparsities: Sequence[float],
    seed: int,
    keep_best: bool = True,
) -> list[np.ndarray]:
    """Returns which units of each kernel are kept, each kernel with its own sparsity.

    Args:
        units: The units of each kernel.
        sizes: Number of weights of each kernel.
        sparsities: Fraction of weights to prune of each kernel.
        seed: Seed of the order of equal scores.
        keep_best: Whether the best unit of each kernel is kept in any case, so that no kernel
            is all zeros.

    Returns:
        A boolean array for each kernel, (units,).
    """
    kept = []
    for number, (u, size, sparsity) in enumerate(zip(units, sizes, sparsities, strict=True)):
        rng = np.random.default_rng([seed, number])
        keep = ~prune_units(u.scores, u.sizes, sparsity * size, rng)
        if keep_best and not keep.any():
            keep[int(u.scores.argmax())] = True
        kept.append(keep)
    return kept


def keep_globally(
    units: Sequence[Units], sizes: Sequence[int], sparsity: float, seed: int, keep_best: bool = True
) -> list[np.ndarray]:
    """Returns which units of each kernel are kept, by one threshold for all kernels.

    Args:
        units: The units of each kernel.
        sizes: Number of weights of each kernel.
        sparsity: Fraction of all weights to prune, in [0, 1).
        seed: Seed of the order of equal scores.
        keep_best: Whether the best unit of each kernel is always kept.

    Returns:
        Whether each unit is kept, boolean, (units,) for each kernel.
    """
    scores = np.concatenate([_best_at_infinity(u.scores) if keep_best else u.scores for u in units])
    rng = np.random.default_rng(seed)
    pruned = prune_units(
        scores, np.concatenate([u.sizes for u in units]), sparsity * sum(sizes), rng
    )
    pruned &= scores != np.inf  # no kernel is all zeros
    return [~part for part in np.split(pruned, np.cumsum([u.scores.size for u in units])[:-1])]


def erdos_renyi_kernel(shapes: Sequence[tuple[int, ...]], sparsity: float) -> list[float]:
    """Returns the sparsity of each kernel by the Erdős-Rényi-kernel rule.

    The density of a kernel is eps (sum of its dimensions) / (product of them), at most 1. eps
    is chosen so that all kernels together have the target sparsity.

    Example:
        >>> [round(r, 3) for r in erdos_renyi_kernel([(10, 10), (100, 100)], 0.5)]
        [0.0, 0.505]

    Args:
        shapes: Shape of each kernel.
        sparsity: Fraction of zeros of all weights together.

    References:
        Evci et al. 2020, section 3.
    """
    sizes = np.array([np.prod(shape) for shape in shapes], float)
    raw = np.array([sum(shape) for shape in shapes]) / sizes
    dense = np.zeros(len(shapes), bool)
    while True:
        remaining = (1 - sparsity) * sizes.sum() - sizes[dense].sum()
        eps = remaining / (raw * sizes)[~dense].sum()
        over = ~dense & (eps * raw > 1.0)
        if not over.any():
            break
        dense |= over & (raw == raw[over].max())
    return [0.0 if full else float(1 - eps * r) for full, r in zip(dense, raw, strict=True)]


def _best_at_infinity(scores: np.ndarray) -> np.ndarray:
    result = scores.astype(np.float64)
    result[int(scores.argmax())] = np.inf
    return result
