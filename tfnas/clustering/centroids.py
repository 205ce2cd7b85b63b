"""The shared values of a kernel's weights: k-means on arrays, and its initialization.

k-means finds a local optimum, which depends on the initial centroids:

| initialization | initial centroids                                                              |
|----------------|--------------------------------------------------------------------------------|
| "kmeans++"     | weights, drawn one by one, in proportion to the squared distance to the others |
| "linear"       | equally spaced from the least to the greatest weight, so that few weights      |
|                | share the values of large magnitude                                            |
| "density"      | equally spaced in the cumulative distribution, both ends included              |
| "quantile"     | the middles of k parts with equally many weights                               |

References:
    Han, Mao and Dally, "Deep Compression", ICLR 2016, section 3; Arthur and Vassilvitskii,
    "k-means++: The Advantages of Careful Seeding", SODA 2007.
"""

from __future__ import annotations

import numpy as np

from tfnas.clustering.kmeans import kmeans

INITIALIZATIONS = ("kmeans++", "linear", "density", "quantile")
MOST = 256  # clusters: indices of more than a byte save little compared with float16
_DRAWN_FROM = 2**16  # largest number of values that k-means++ draws from, for speed
_STEPS = 300


def first_centroids(
    values: np.ndarray,
    clusters: int,
    initialization: str,
    rng: np.random.Generator,
    weights: np.ndarray | None = None,
) -> np.ndarray:
    """Returns at most `clusters` distinct initial centroids for k-means, ascending.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> first_centroids(np.array([0.0, 1.0, 1.0, 4.0]), 3, "linear", rng)
        array([0., 2., 4.])

    Args:
        values: (n,), at least one.
        clusters: k, at least 1.
        initialization: A name of the module's table.
        rng: Random generator for "kmeans++".
        weights: Weight of each value's squared error, (n,); None: 1.
    """
    if initialization == "kmeans++":
        return _by_distance(values, clusters, rng, weights)
    if initialization == "linear":
        return np.unique(np.linspace(values.min(), values.max(), clusters, dtype=np.float64))
    ends = np.linspace(0.0, 1.0, clusters)
    middles = (np.arange(clusters) + 0.5) / clusters
    levels = ends if initialization == "density" and clusters > 1 else middles
    return np.unique(np.quantile(values.astype(np.float64), levels))


def cluster_values(
    values: np.ndarray,
    clusters: int,
    initialization: str = "kmeans++",
    rng: np.random.Generator | None = None,
    *,
    weights: np.ndarray | None = None,
    zeros: bool = False,
    around: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Returns at most `clusters` centroids, and the cluster of each value.

    If there are no more than `clusters` distinct values, they are the centroids.

    Example:
        >>> values = np.array([0.0, 0.0, 0.9, 1.1, -0.5], np.float32)
        >>> centroids, labels = cluster_values(values, 3, zeros=True)
        >>> centroids, labels
        (array([ 0. , -0.5,  1. ]), array([0, 0, 2, 2, 1]))

    Args:
        values: (n,), at least one, finite.
        clusters: k, at least 1; at least 2 with `zeros`.
        initialization: A name of the module's table.
        rng: Random generator for "kmeans++"; None: seeded with 0.
        weights: Weight of each value's squared error, (n,), above 0; None: 1.
        zeros: Whether cluster 0 holds the exact zeros, with the centroid 0.0, and all other
            values are in the other k - 1 clusters.
        around: Initial centroids, used instead of the initialization if there are k of them.

    Returns:
        Centroids, float64, ascending (after the zero), and labels, (n,), int64.
    """
    if zeros:
        return _cluster_nonzeros(values, clusters, initialization, rng, weights, around)
    kept, labels = np.unique(values, return_inverse=True)
    if len(kept) <= clusters:
        return kept.astype(np.float64), labels.reshape(-1)
    rng = np.random.default_rng(0) if rng is None else rng
    enough = around is not None and len(np.unique(around)) == clusters
    begin = around if enough else first_centroids(values, clusters, initialization, rng, weights)
    assert begin is not None
    return kmeans(values, begin, _STEPS, weights)


def _cluster_nonzeros(
    values: np.ndarray,
    clusters: int,
    initialization: str,
    rng: np.random.Generator | None,
    weights: np.ndarray | None,
    around: np.ndarray | None,
) -> tuple[np.ndarray, np.ndarray]:
    other = values != 0
    labels = np.zeros(len(values), np.int64)
    if not other.any():
        return np.zeros(1), labels
    part = None if weights is None else weights[other]
    begin = None if around is None else around[around != 0]
    found, inner = cluster_values(
        values[other], clusters - 1, initialization, rng, weights=part, around=begin
    )
    labels[other] = inner + 1
    return np.concatenate([[0.0], found]), labels


def _by_distance(
    values: np.ndarray, clusters: int, rng: np.random.Generator, weights: np.ndarray | None
) -> np.ndarray:
    """k-means++: the next centroid is a value, drawn in proportion to its squared error."""
    order = np.argsort(values, kind="stable")
    # Of very many values, equally spaced ranks represent the distribution.
    picked = np.linspace(0, len(order) - 1, min(len(order), _DRAWN_FROM)).astype(np.int64)
    line = values[order][picked].astype(np.float64)
    mass = np.ones(len(line)) if weights is None else weights[order][picked].astype(np.float64)
    drawn = [line[_draw(mass, rng)]]
    distance = (line - drawn[0]) ** 2
    while len(drawn) < clusters and (distance > 0).any():
        drawn.append(line[_draw(distance * mass, rng)])
        np.minimum(distance, (line - drawn[-1]) ** 2, out=distance)
    return np.unique(drawn)


def _draw(weights: np.ndarray, rng: np.random.Generator) -> int:
    sums = np.cumsum(weights)
    # Elements of weight 0 are never drawn: the search finds the first sum above the draw.
    index = int(np.searchsorted(sums, rng.random() * sums[-1], side="right"))
    return min(index, int(np.flatnonzero(weights)[-1]))
