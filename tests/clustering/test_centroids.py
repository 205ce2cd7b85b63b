"""Shared values and their coding, against NumPy, SciPy, scikit-learn and by hand."""

import doctest
import heapq
import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.cluster.vq import kmeans2
from sklearn.cluster import KMeans

from tfnas.clustering import centroids, code_length
from tfnas.clustering import kmeans as lloyd
from tfnas.clustering.centroids import INITIALIZATIONS, cluster_values, first_centroids
from tfnas.clustering.code_length import codebook_bytes, huffman_bytes, huffman_lengths, index_bits

NUMBERS = st.lists(
    st.one_of(st.just(0.0), st.floats(-1e3, 1e3, width=32)), min_size=1, max_size=60
).map(lambda values: np.array(values, np.float32))


def error(values, found):
    shared, labels = found
    return float(np.square(shared[labels] - values).sum())


# --- k-means


@settings(max_examples=150, deadline=None)
@given(NUMBERS, st.integers(2, 9), st.sampled_from(INITIALIZATIONS), st.booleans())
def test_at_most_k_values_and_each_weight_has_the_nearest(values, k, initialization, zeros):
    shared, labels = cluster_values(values, k, initialization, zeros=zeros)
    assert len(shared) <= k
    assert labels.shape == values.shape
    assert labels.max() < len(shared)
    assert (np.diff(shared[zeros:]) > 0).all()
    if len(np.unique(values)) <= k - zeros:
        np.testing.assert_array_equal(shared[labels].astype(np.float32), values)
    if zeros:
        assert shared[0] == 0
        np.testing.assert_array_equal(labels == 0, values == 0)
        values, labels, shared = values[values != 0], labels[values != 0] - 1, shared[1:]
    if len(values):
        distance = np.abs(values[:, None].astype(np.float64) - shared)
        best = distance.min(axis=1)
        chosen = distance[np.arange(len(values)), labels]
        np.testing.assert_allclose(chosen, best, rtol=1e-9, atol=1e-9)


@settings(max_examples=100, deadline=None)
@given(NUMBERS, st.integers(1, 6), st.integers(0, 5))
def test_every_centroid_is_the_mean_of_its_weights(values, k, seed):
    weights = np.random.default_rng(seed).uniform(0.1, 2.0, len(values))
    start = np.random.default_rng(seed).choice(values, k)
    shared, labels = lloyd.kmeans(values, start, weights=weights)
    assert set(labels) == set(range(len(shared)))
    means = [np.average(values[labels == i], weights=weights[labels == i]) for i in set(labels)]
    np.testing.assert_allclose(shared, means, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("k", [2, 5, 16])
def test_the_result_is_that_of_scikit_learn_and_scipy(k):
    values = np.random.default_rng(k).normal(size=3000)
    start = np.linspace(values.min(), values.max(), k)
    shared, labels = lloyd.kmeans(values, start, steps=1000)
    other = KMeans(k, init=start[:, None], n_init=1, max_iter=1000, tol=0.0).fit(values[:, None])
    np.testing.assert_allclose(shared, np.sort(other.cluster_centers_[:, 0]), atol=1e-3)
    assert error(values, (shared, labels)) <= other.inertia_ * (1 + 1e-6)
    third, _ = kmeans2(values[:, None], start[:, None], iter=1000, minit="matrix")
    np.testing.assert_allclose(shared, np.sort(third[:, 0]), atol=1e-3)


def test_weights_work_as_in_scikit_learn():
    rng = np.random.default_rng(0)
    values, weights = rng.normal(size=2000), rng.uniform(0.01, 3.0, 2000)
    start = np.linspace(-2, 2, 7)
    shared, _ = lloyd.kmeans(values, start, steps=1000, weights=weights)
    other = KMeans(7, init=start[:, None], n_init=1, max_iter=1000, tol=0.0)
    other.fit(values[:, None], sample_weight=weights)
    np.testing.assert_allclose(shared, np.sort(other.cluster_centers_[:, 0]), atol=1e-3)


def test_a_weight_of_n_counts_as_n_values():
    values, counts = np.array([0.0, 0.4, 1.0, 3.0]), np.array([3, 1, 2, 1])
    start = np.array([0.0, 2.0])
    shared, _ = lloyd.kmeans(values, start, weights=counts)
    repeated, _ = lloyd.kmeans(np.repeat(values, counts), start)
    np.testing.assert_allclose(shared, repeated)


@pytest.mark.parametrize("initialization", INITIALIZATIONS)
def test_close_to_the_best_partition(initialization):
    """Compared with all partitions of the sorted values into intervals."""
    values = np.sort(np.random.default_rng(3).normal(size=14))
    best = min(
        sum(np.square(p - p.mean()).sum() for p in np.split(values, borders))
        for borders in itertools.combinations(range(1, 14), 3)
    )
    assert error(values, cluster_values(values, 4, initialization)) <= 2.5 * best


def test_k_means_plus_plus_draws_by_squared_distance():
    """A single value at 100 with 1,000 values near 0 is nearly always drawn."""
    values = np.concatenate([np.linspace(0, 1, 1000), [100.0]])
    found = [
        first_centroids(values, 2, "kmeans++", np.random.default_rng(seed)).max()
        for seed in range(50)
    ]
    assert np.mean(np.array(found) == 100.0) > 0.95


def test_the_first_centroids_of_each_initialization():
    values, rng = np.concatenate([np.arange(9.0), [100.0]]), np.random.default_rng(0)
    np.testing.assert_allclose(first_centroids(values, 3, "linear", rng), [0, 50, 100])
    np.testing.assert_allclose(first_centroids(values, 3, "density", rng), [0, 4.5, 100])
    middles = np.quantile(values, [1 / 6, 1 / 2, 5 / 6])
    np.testing.assert_allclose(first_centroids(values, 3, "quantile", rng), middles)
    drawn = first_centroids(values, 3, "kmeans++", rng)
    assert set(drawn) <= set(values)
    assert len(drawn) == 3


def test_the_same_seed_gives_the_same_clusters():
    values = np.random.default_rng(0).normal(size=500)
    first, second = (cluster_values(values, 9, rng=np.random.default_rng(4)) for _ in range(2))
    np.testing.assert_array_equal(first[1], second[1])


# --- coding


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(1, 10**6), min_size=1, max_size=40))
def test_huffman_is_a_prefix_code_within_a_bit_of_the_entropy(counts):
    lengths = huffman_lengths(counts)
    if len(counts) == 1:
        assert lengths.tolist() == [0]
        return
    assert sum(2.0**-length for length in lengths.tolist()) == pytest.approx(1.0)  # Kraft
    total = sum(counts)
    entropy = -sum(c * math.log2(c / total) for c in counts)
    bits = int((np.array(counts) * lengths).sum())
    assert entropy - 1e-6 * total <= bits < entropy + total
    assert bits == by_merging(counts)


def by_merging(counts):
    """The total length is the sum of the counts of all merges of the Huffman tree."""
    heap, cost = list(counts), 0
    heapq.heapify(heap)
    while len(heap) > 1:
        joined = heapq.heappop(heap) + heapq.heappop(heap)
        cost += joined
        heapq.heappush(heap, joined)
    return cost


@pytest.mark.parametrize(("k", "bits"), [(1, 0), (2, 1), (3, 2), (16, 4), (17, 5), (256, 8)])
def test_bits_of_an_index(k, bits):
    assert index_bits(k) == bits


def test_bytes_by_hand():
    # 12 weights of 3 values, 6, 4 and 2 times: 2 bits each, or 1, 2 and 2 bits.
    group = np.array([[0.5] * 6 + [1.0] * 4 + [2.0] * 2])
    assert codebook_bytes(group) == 3 * 4 + 12 * 2 // 8
    assert huffman_bytes(group) == 3 * 5 + math.ceil((6 + 8 + 4) / 8)
    two = np.array([[0.5, 0.5, 1.0, 1.0], [3.0] * 4])
    assert codebook_bytes(two) == 3 * 4 + 1  # 4 indices of 1 bit, 4 of 0 bits
    assert huffman_bytes(two) == 3 * 5 + 1


@pytest.mark.parametrize("module", [lloyd, centroids, code_length])
def test_the_examples_are_true(module):
    result = doctest.testmod(module)
    assert result.attempted > 0
    assert result.failed == 0
