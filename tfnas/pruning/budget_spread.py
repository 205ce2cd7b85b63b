"""Distribution of a total number of zeros over kernels, so that the sum of losses is least.

Each kernel's curve of loss over removed weights is replaced by its lower convex hull. On convex
curves it is optimal to take the segment of least loss per weight next (a Lagrangian with one
price per zero). The last segment is taken in part, so that the total is exact.

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
    """Returns the sparsity of each kernel for which the sum of losses is least.

    Args:
        weights: Number of weights of each kernel.
        sparsities: Sparsities with known losses, ascending.
        losses: Loss at each sparsity, (kernels, sparsities); the loss at sparsity 0 is 0.
        total: Target sparsity of all weights together.
    """
    segments = []
    for kernel, (size, row) in enumerate(zip(weights, losses, strict=True)):
        hull = lower_hull([0.0, *sparsities], [0.0, *map(float, row)])
        for (left, low), (right, high) in itertools.pairwise(hull):
            price = (high - low) / ((right - left) * size)
            segments.append((price, left, kernel, right - left))
    missing = total * sum(weights)
    result = [0.0] * len(weights)
    for _, _, kernel, width in sorted(segments):
        taken = min(width, missing / weights[kernel])
        result[kernel] += taken
        missing = max(0.0, missing - taken * weights[kernel])
    return result
