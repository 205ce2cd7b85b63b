"""Rounding of one layer by second moments, against exhaustive search and plain rounding."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfnas.quantization.second_order_rounding import output_error, round_rows
from tfnas.quantization.symmetric_grid import least_error_scales


def problem(seed, rows=6, inputs=12, shared=True):
    """Weights and the moments of correlated, one-sided inputs."""
    rng = np.random.default_rng(seed)
    count = 1 if shared else rows
    mix = rng.normal(size=(count, inputs, inputs))
    x = np.maximum(rng.normal(size=(count, 300, inputs)) @ mix, 0)
    hessian = x.transpose(0, 2, 1) @ x / 300
    hessian += 0.01 * np.eye(inputs) * np.trace(hessian[0]) / inputs
    return rng.normal(size=(rows, inputs)), hessian[0] if shared else hessian


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 8), st.booleans())
def test_never_worse_than_nearest_on_the_same_grid(seed, bits, shared):
    weights, hessian = problem(seed, shared=shared)
    largest = 2 ** (bits - 1) - 1
    scales = least_error_scales(weights, np.diagonal(hessian, axis1=-2, axis2=-1), largest)
    nearest = np.clip(np.rint(weights / scales[:, None]), -largest, largest) * scales[:, None]
    rounded = round_rows(weights, hessian, bits)
    errors = output_error(rounded.weights, weights, hessian)
    assert (errors <= output_error(nearest, weights, hessian) * (1 + 1e-9)).all()
    assert np.array_equal(rounded.integers, np.rint(rounded.integers))
    assert np.abs(rounded.integers).max() <= largest
    assert (rounded.scales > 0).all()


@pytest.mark.parametrize("seed", range(5))
def test_near_the_best_of_all_integers(seed):
    weights, hessian = problem(seed, rows=1, inputs=5)
    scales = np.abs(weights).max(axis=1) / 3
    grid = np.array(list(itertools.product(range(-3, 4), repeat=5)), float)
    best = output_error(grid * scales, weights, hessian).min()
    rounded = round_rows(weights, hessian, 3, fixed_scales=scales)
    nearest = np.clip(np.rint(weights / scales), -3, 3)
    error = output_error(rounded.weights, weights, hessian)[0]
    plain = output_error(nearest * scales, weights, hessian)[0]
    assert best <= error + 1e-12
    assert error - best <= 0.5 * (plain - best) + 1e-12


def test_equals_nearest_where_inputs_do_not_correlate():
    weights, _ = problem(0)
    scales = np.abs(weights).max(axis=1) / 7
    rounded = round_rows(weights, np.eye(12), 4, fixed_scales=scales)
    assert np.array_equal(rounded.integers, np.rint(weights / scales[:, None]))


def test_removed_weights_stay_zero():
    weights, hessian = problem(1)
    keep = np.random.default_rng(0).random(weights.shape) < 0.5
    rounded = round_rows(weights, hessian, 4, keep=keep)
    assert not rounded.integers[~keep].any()
    assert rounded.integers[keep].any()


def test_one_scale_for_all_rows():
    weights, hessian = problem(2)
    rounded = round_rows(weights, hessian, 4, one_scale=True)
    assert len(set(rounded.scales)) == 1


def test_each_row_with_moments_of_its_own():
    weights, hessian = problem(3, shared=False)
    together = round_rows(weights, hessian, 4)
    for row, (w, h) in enumerate(zip(weights, hessian, strict=True)):
        alone = round_rows(w[None], h[None], 4)
        assert np.allclose(together.weights[row], alone.weights[0])


def test_bad_arguments():
    weights, hessian = problem(4)
    with pytest.raises(ValueError, match="bits must be a whole number from 2 to 8, got 9"):
        round_rows(weights, hessian, 9)
    with pytest.raises(ValueError, match=r"hessian must have the shape \(12, 12\)"):
        round_rows(weights, hessian[:3, :3], 4)
    with pytest.raises(ValueError, match="hessian must be positive definite"):
        round_rows(weights, np.zeros((12, 12)), 4)
