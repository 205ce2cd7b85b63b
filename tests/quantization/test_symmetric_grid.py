"""Rounding to nearest on a symmetric grid, and the scales of least error."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tfnas.quantization.symmetric_grid import (
    largest_integer,
    least_error_scales,
    nearest_values,
    widest_scales,
)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 8))
def test_no_value_of_the_grid_is_nearer(seed, bits):
    rng = np.random.default_rng(seed)
    weights, largest = rng.normal(size=(3, 7)), largest_integer(bits)
    scales = widest_scales(weights, largest) * rng.uniform(0.3, 1.0, 3)
    grid = np.arange(-largest, largest + 1) * scales[:, None, None]
    distances = np.abs(weights[:, :, None] - grid).min(axis=2)
    found = nearest_values(weights, scales, largest)
    np.testing.assert_allclose(np.abs(weights - found), distances, atol=1e-12)


def test_the_widest_scales_clip_nothing_and_those_of_least_error_lose_less():
    weights = np.random.default_rng(0).standard_t(3, size=(5, 200))
    importance, largest = np.random.default_rng(1).random(200), largest_integer(4)

    def errors(scales):
        return (importance * (nearest_values(weights, scales, largest) - weights) ** 2).sum(axis=1)

    widest = widest_scales(weights, largest)
    np.testing.assert_allclose(widest * 7, np.abs(weights).max(axis=1))
    assert (errors(least_error_scales(weights, importance, largest)) < errors(widest)).all()
    shared = least_error_scales(weights, importance, largest, one_scale=True)
    assert len(set(shared)) == len(set(widest_scales(weights, largest, one_scale=True))) == 1
    assert (widest_scales(np.zeros((2, 3)), largest) > 0).all()
