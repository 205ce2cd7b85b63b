"""A total of zeros spread over kernels, so that the sum of what they cost is least.

Each kernel's curve of cost over weights removed is replaced by its lower convex hull, on
which taking the cheapest segment next is optimal (the solution of the Lagrangian at one price
per zero); the last segment is taken in part, so that the total is exact.

References:
    Everett, "Generalized Lagrange Multiplier Method for Solving Problems of Optimum Allocation
    of Resources", 1963.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from tfnas.graph.lower_hull import lower_hull


def spread(
    weights: Sequence[int],
    sparsities: Sequence[float] | np.ndarray,
    losses: np.ndarray,
    total: float,
) -> list[float]:
    """Returns a ratio a kernel, so that the sum of losses is least for the total.

    Args:
        weights: Number of weights a kernel.
        sparsities: Ratios at which losses are known, ascending.
        losses: Loss at each ratio, (kernels, sparsities), 0 at a ratio of 0.
        total: Share of all weights that is to go.
    """
    segments = []
    for kernel, (size, row) in enumerate(zip(weights, losses, strict=True)):
        hull = lower_hull([0.0, *sparsities], [0.0, *map(float, row)])
        for (left, low), (right, high) in itertools.pairwise(hull):
            price = (high - low) / ((right - left) * size)
            segments.append((price, left, kernel, right - left))
    missing = total * sum(weights)
    ratios = [0.0] * len(weights)
    for _, _, kernel, width in sorted(segments):
        taken = min(width, missing / weights[kernel])
        ratios[kernel] += taken
        missing = max(0.0, missing - taken * weights[kernel])
    return ratios
