"""Which values the weights of a kernel share: pure mathematics on arrays.

k-means moves each centroid to the mean of its weights until nothing changes, so where it
begins decides what it finds:

| initialization | the first centroids                                                        |
|----------------|----------------------------------------------------------------------------|
| "kmeans++"     | weights, drawn one after the other by their squared distance to those drawn |
| "linear"       | equal steps from the least to the greatest weight: few weights a large value |
| "density"      | equal steps of the distribution function, both ends included               |
| "quantile"     | the middles of k parts that hold as many weights each                      |

References:
    Han, Mao and Dally, "Deep Compression", ICLR 2016, section 3; Arthur and Vassilvitskii,
    "k-means++: The Advantages of Careful Seeding", SODA 2007.
"""

from __future__ import annotations

import numpy as np

from tfnas.clustering.kmeans import kmeans

INITIALIZATIONS = ("kmeans++", "linear", "density", "quantile")
MOST = 256  # clusters: an index of more than a byte saves little beside float16
_DRAWN_FROM = 2**16  # values that k-means++ looks at: each draw passes over all of them
_STEPS = 300


def first_centroids(
    values: np.ndarray,
    clusters: int,
    initialization: str,
    rng: np.random.Generator,
    weights: np.ndarray | None = None,
) -> np.ndarray:
    """Returns at most `clusters` distinct values to begin k-means with, ascending.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> first_centroids(np.array([0.0, 1.0, 1.0, 4.0]), 3, "linear", rng)
        array([0., 2., 4.])

    Args:
        values: (n,), at least one.
        clusters: k, from 1 on.
        initialization: See the module's table.
        rng: Draws for "kmeans++".
        weights: What a value's squared error counts, (n,); None: all the same.
    """
    if initialization == "kmeans++":
        return _by_distance(values, clusters, rng, weights)
    if initialization == "linear":
        return np.unique(np.linspace(values.min(), values.max(), clusters, dtype=np.float64))
    ends = np.linspace(0.0, 1.0, clusters)
    middles = (np.arange(clusters) + 0.5) / clusters
    shares = ends if initialization == "density" and clusters > 1 else middles
    return np.unique(np.quantile(values.astype(np.float64), shares))


def share(
    values: np.ndarray,
    clusters: int,
    initialization: str = "kmeans++",
    rng: np.random.Generator | None = None,
    *,
    weights: np.ndarray | None = None,
    zeros: bool = False,
    around: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Returns at most `clusters` values, and which of them each weight shares.

    Weights that hold no more values keep them exactly.

    Example:
        >>> values = np.array([0.0, 0.0, 0.9, 1.1, -0.5], np.float32)
        >>> centroids, labels = share(values, 3, zeros=True)
        >>> centroids, labels
        (array([ 0. , -0.5,  1. ]), array([0, 0, 2, 2, 1]))

    Args:
        values: (n,), at least one, finite.
        clusters: k, from 1 on; from 2 on with `zeros`.
        initialization: See the module's table.
        rng: Draws for "kmeans++"; None: seeded with 0.
        weights: What a value's squared error counts, (n,), above 0; None: all the same.
        zeros: Whether exact zeros are cluster 0, of the value 0.0, and all others go to the
            other k - 1.
        around: Centroids to begin with, in place of an initialization, where they are enough.

    Returns:
        Centroids, ascending behind the zero, float64, and labels, (n,), int64.
    """
    if zeros:
        return _beside_zeros(values, clusters, initialization, rng, weights, around)
    kept, labels = np.unique(values, return_inverse=True)
    if len(kept) <= clusters:
        return kept.astype(np.float64), labels.reshape(-1)
    rng = np.random.default_rng(0) if rng is None else rng
    enough = around is not None and len(np.unique(around)) == clusters
    begin = around if enough else first_centroids(values, clusters, initialization, rng, weights)
    assert begin is not None
    return kmeans(values, begin, _STEPS, weights)


def _beside_zeros(
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
    found, inner = share(
        values[other], clusters - 1, initialization, rng, weights=part, around=begin
    )
    labels[other] = inner + 1
    return np.concatenate([[0.0], found]), labels


def _by_distance(
    values: np.ndarray, clusters: int, rng: np.random.Generator, weights: np.ndarray | None
) -> np.ndarray:
    """k-means++: the next centroid is a value, drawn by its share of the squared error."""
    order = np.argsort(values, kind="stable")
    # Of very many values evenly spaced ranks tell the distribution.
    picked = np.linspace(0, len(order) - 1, min(len(order), _DRAWN_FROM)).astype(np.int64)
    line = values[order][picked].astype(np.float64)
    mass = np.ones(len(line)) if weights is None else weights[order][picked].astype(np.float64)
    drawn = [line[_draw(mass, rng)]]
    distance = (line - drawn[0]) ** 2
    while len(drawn) < clusters and (distance > 0).any():
        drawn.append(line[_draw(distance * mass, rng)])
        np.minimum(distance, (line - drawn[-1]) ** 2, out=distance)
    return np.unique(drawn)


def _draw(shares: np.ndarray, rng: np.random.Generator) -> int:
    sums = np.cumsum(shares)
    # An entry of share 0 is never drawn: the search finds the first sum above the draw.
    place = int(np.searchsorted(sums, rng.random() * sums[-1], side="right"))
    return min(place, int(np.flatnonzero(shares)[-1]))
