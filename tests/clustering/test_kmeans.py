"""k-means in one dimension."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfnas.clustering.kmeans import kmeans

# --- k-means


def worse(values, codebook, start):
    """The increase of the squared error over that of the initial codebook."""
    distance = np.abs(values[:, None] - np.asarray(codebook)).min(1)
    before = np.abs(values[:, None] - np.asarray(start)).min(1)
    return np.square(distance).sum() - np.square(before).sum()


# Multiples of 1/1024, whose sums are exact.
NUMBERS = st.integers(-(2**20), 2**20).map(lambda n: n / 1024)
VALUES = st.lists(NUMBERS, min_size=1, max_size=60)


@given(VALUES, st.lists(NUMBERS, min_size=1, max_size=9))
@settings(max_examples=200, deadline=None)
def test_kmeans_keeps_its_promises(values, start):
    values, start = np.array(values), np.array(start)
    centroids, labels = kmeans(values, start)
    assert 1 <= len(centroids) <= len(np.unique(start))
    assert (np.diff(centroids) > 0).all()
    assert labels.shape == values.shape
    np.testing.assert_array_equal(np.unique(labels), np.arange(len(centroids)))  # no empty cluster
    distances = np.abs(values[:, None] - centroids)
    own = np.take_along_axis(distances, labels[:, None], 1)[:, 0]
    np.testing.assert_allclose(own, distances.min(1), atol=1e-6)
    for i, centroid in enumerate(centroids):
        assert centroid == pytest.approx(values[labels == i].mean(), rel=1e-6, abs=1e-6)
    assert worse(values, centroids, start) <= 1e-6 * (1 + np.square(values).sum())


@given(VALUES, st.integers(1, 4))
@settings(max_examples=60, deadline=None)
def test_a_few_steps_of_kmeans_do_not_increase_the_error(values, steps):
    values = np.array(values)
    start = np.linspace(values.min(), values.max() + 1.0, 5)
    centroids, labels = kmeans(values, start, steps)
    before = np.square(values[:, None] - start).min(1).sum()
    assert np.square(values - centroids[labels]).sum() <= before + 1e-6 * (1 + before)


def test_kmeans_does_not_depend_on_the_order_of_values():
    rng = np.random.default_rng(0)
    values, start = rng.normal(size=200), np.linspace(-2, 2, 8)
    order = rng.permutation(200)
    centroids, labels = kmeans(values, start)
    again, moved = kmeans(values[order], start[::-1])
    np.testing.assert_allclose(again, centroids, rtol=1e-12)
    np.testing.assert_array_equal(moved, labels[order])


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.int32])
def test_kmeans_takes_numbers_of_any_type(dtype):
    values = np.array([0, 0, 1, 9, 10, 10]).astype(dtype)
    centroids, labels = kmeans(values, np.array([0, 10]).astype(dtype))
    np.testing.assert_allclose(centroids, [1 / 3, 29 / 3])
    np.testing.assert_array_equal(labels, [0, 0, 0, 1, 1, 1])
