"""k-means in one dimension, with at most k clusters and no empty ones.

In one dimension clusters are intervals of the sorted values, so Lloyd's algorithm needs only
binary searches, and the means come from cumulative sums.
"""

from __future__ import annotations

import numpy as np


def kmeans(
    values: np.ndarray, start: np.ndarray, steps: int = 100, weights: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the centroids, ascending, and the cluster of each value, at a local optimum.

    Example:
        >>> centroids, labels = kmeans(np.array([0.0, 0.1, 1.0, 1.2]), np.array([0.0, 1.0]))
        >>> centroids.round(3), labels
        (array([0.05, 1.1 ]), array([0, 0, 1, 1]))

    Args:
        values: (n,).
        start: Initial centroids, (k,); equal ones count once.
        steps: Largest number of steps; the loop ends earlier if nothing changes.
        weights: Weight of each value's squared error, (n,), above 0; None: 1.

    Returns:
        Centroids of the nonempty clusters, at most k, and labels, (n,).

    References:
        Lloyd, "Least squares quantization in PCM", 1982.
    """
    order = np.argsort(values, kind="stable")
    line = values[order].astype(np.float64)
    mass = np.ones(len(line)) if weights is None else weights[order].astype(np.float64)
    masses = np.concatenate([[0.0], np.cumsum(mass)])
    sums = np.concatenate([[0.0], np.cumsum(mass * line)])
    centroids = np.unique(start.astype(np.float64))
    edges = np.zeros(0, np.int64)
    for _ in range(steps):
        borders = np.searchsorted(line, (centroids[1:] + centroids[:-1]) / 2)
        found = np.concatenate([[0], borders, [len(line)]])
        if np.array_equal(found, edges):
            break
        edges = found[np.concatenate([[True], np.diff(found) > 0])]  # without empty clusters
        centroids = np.diff(sums[edges]) / np.diff(masses[edges])
    labels = np.empty(len(values), np.int64)
    labels[order] = np.repeat(np.arange(len(centroids)), np.diff(edges))
    return centroids, labels
