"""k-means in one dimension, exact in what it promises: at most k values, none empty.

Weights are numbers on a line, so Lloyd's algorithm needs a sorted array and searches only:
clusters are intervals, and their means come from cumulative sums.
"""

from __future__ import annotations

import numpy as np


def kmeans(
    values: np.ndarray, start: np.ndarray, steps: int = 100
) -> tuple[np.ndarray, np.ndarray]:
    """Returns centroids, ascending, and each value's cluster, at a local optimum.

    Example:
        >>> centroids, labels = kmeans(np.array([0.0, 0.1, 1.0, 1.2]), np.array([0.0, 1.0]))
        >>> centroids.round(3), labels
        (array([0.05, 1.1 ]), array([0, 0, 1, 1]))

    Args:
        values: (n,).
        start: (k,), the centroids to begin with; equal ones count once.
        steps: Number of steps at most; it ends where nothing changes.

    Returns:
        Centroids of clusters that hold a value (at most k), and labels (n,).

    References:
        Lloyd, "Least squares quantization in PCM", 1982.
    """
    order = np.argsort(values, kind="stable")
    line = values[order].astype(np.float64)
    sums = np.concatenate([[0.0], np.cumsum(line)])
    centroids = np.unique(start.astype(np.float64))
    edges = np.zeros(0, np.int64)
    for _ in range(steps):
        borders = np.searchsorted(line, (centroids[1:] + centroids[:-1]) / 2)
        found = np.concatenate([[0], borders, [len(line)]])
        if np.array_equal(found, edges):
            break
        edges = found
        counts = np.diff(edges)
        held = counts > 0
        centroids = (np.diff(sums[edges]) / np.maximum(counts, 1))[held]
        edges = np.concatenate([[0], edges[1:][held]])
    labels = np.empty(len(values), np.int64)
    labels[order] = np.repeat(np.arange(len(centroids)), np.diff(edges))
    return centroids, labels
