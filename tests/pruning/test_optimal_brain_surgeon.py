"""Optimal brain surgeon, compared with least squares and brute force."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfnas.pruning.optimal_brain_surgeon import Pruned, obs_prune, refit, removals, shrink


def problem(rows: int, inputs: int, seed: int = 0, examples: int = 60):
    """Inputs, targets that are approximately linear in them, and weights."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(examples, inputs)) @ rng.normal(size=(inputs, inputs))
    weights = rng.normal(size=(rows, inputs))
    y = x @ weights.T + rng.normal(size=(examples, rows))
    return x, y, weights, x.T @ x / examples, y.T @ x / examples


def loss(x, y, weights):
    return float(((x @ weights.T - y) ** 2).sum() / len(x))


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 4), st.integers(1, 6), st.integers(0, 99))
def test_refit_is_least_squares_on_the_kept_inputs(rows, inputs, seed):
    x, y, weights, hessian, cross = problem(rows, inputs, seed)
    keep = np.random.default_rng(seed).random((rows, inputs)) < 0.6
    solved = refit(weights, keep, hessian, cross)
    for row in range(rows):
        expected = np.zeros(inputs)
        expected[keep[row]] = np.linalg.lstsq(x[:, keep[row]], y[:, row], rcond=None)[0]
        np.testing.assert_allclose(solved[row], expected, rtol=1e-6, atol=1e-8)


def test_a_refit_without_zeros_returns_the_weights():
    _, _, weights, hessian, _ = problem(3, 5)
    np.testing.assert_allclose(refit(weights, np.ones((3, 5), bool), hessian), weights)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 4), st.integers(2, 6), st.integers(1, 5), st.floats(0, 1), st.integers(0, 99))
def test_pruning_is_exact_to_one_weight_and_optimal_for_its_mask(
    rows, inputs, rounds, fraction, seed
):
    _, _, weights, hessian, cross = problem(rows, inputs, seed)
    zeros = int(fraction * weights.size)
    pruned = obs_prune(weights, hessian, zeros, cross, rounds=rounds)
    assert (~pruned.keep).sum() == zeros
    assert (pruned.weights[~pruned.keep] == 0).all()
    expected = refit(weights, pruned.keep, hessian, cross)
    np.testing.assert_allclose(pruned.weights, expected, rtol=1e-6, atol=1e-8)
    assert list(pruned.losses) == sorted(pruned.losses)


@pytest.mark.parametrize("seed", range(5))
def test_one_weight_is_removed_as_brute_force_would(seed):
    x, y, weights, hessian, cross = problem(2, 5, seed)
    scale = np.array([1.0, 3.0])
    pruned = obs_prune(weights, hessian, 1, cross, scale)
    losses = {}
    for place in range(10):
        keep = np.ones((2, 5), bool)
        keep.flat[place] = False
        solved = refit(weights, keep, hessian, cross)
        losses[place] = sum(scale[r] * loss(x, y[:, [r]], solved[[r]]) for r in range(2))
    assert int(np.flatnonzero(~pruned.keep)[0]) == min(losses, key=losses.get)
    best = refit(weights, np.ones((2, 5), bool), hessian, cross)
    start = sum(scale[r] * loss(x, y[:, [r]], best[[r]]) for r in range(2))
    assert math.isclose(pruned.losses[-1], min(losses.values()) - start, rel_tol=1e-6)


def test_many_rounds_come_close_to_the_best_of_all_masks():
    relative = []
    for seed in range(8):
        x, y, weights, hessian, cross = problem(1, 8, seed)
        losses = []
        for kept in itertools.combinations(range(8), 4):
            keep = np.isin(np.arange(8), kept)[None]
            losses.append(loss(x, y, refit(weights, keep, hessian, cross)))
        found = [obs_prune(weights, hessian, 4, cross, rounds=rounds) for rounds in (1, 8)]
        relative.append([loss(x, y, pruned.weights) / min(losses) for pruned in found])
    assert np.min(relative) > 1 - 1e-9
    assert np.median(relative, axis=0)[1] < 1.05
    assert np.mean(relative, axis=0)[1] < np.mean(relative, axis=0)[0]


def test_one_hessian_per_row_gives_the_same_result():
    _, _, weights, hessian, cross = problem(3, 5)
    stacked = np.stack([hessian] * 3)
    for zeros in (2, 12):
        one = obs_prune(weights, hessian, zeros, cross)
        each = obs_prune(weights, stacked, zeros, cross)
        np.testing.assert_array_equal(one.keep, each.keep)
        np.testing.assert_allclose(one.weights, each.weights, rtol=1e-7, atol=1e-10)


def test_a_row_weight_protects_its_row():
    _, _, weights, hessian, _ = problem(2, 6)
    pruned = obs_prune(weights, hessian, 6, row_weights=np.array([1e9, 1.0]))
    assert pruned.keep[0].all()
    assert not pruned.keep[1].any()


def test_shrinkage_interpolates_between_the_data_and_the_weights():
    _, _, weights, hessian, cross = problem(2, 4)
    everything = np.ones((2, 4), bool)
    h, c = shrink(weights, hessian, cross, 1.0)
    np.testing.assert_allclose(h, np.diag(np.diag(hessian)))
    np.testing.assert_allclose(refit(weights, everything, h, c), weights)
    h, c = shrink(weights, hessian, cross, 0.0)
    np.testing.assert_allclose(c, cross)
    np.testing.assert_allclose(h, hessian)


def test_fewer_examples_than_inputs_and_dead_inputs_need_shrinkage():
    x, y, weights, _, _ = problem(2, 10, examples=4)
    x[:, 3] = 0.0
    hessian, cross = x.T @ x / 4, y.T @ x / 4
    with pytest.raises(ValueError, match=r"hessian must be positive definite.*shrink it first"):
        obs_prune(weights, hessian, 3, cross)
    pruned = obs_prune(weights, *_swapped(shrink(weights, hessian, cross, 0.1), 3))
    assert isinstance(pruned, Pruned)
    assert np.isfinite(pruned.weights).all()


def _swapped(moments, zeros):
    return moments[0], zeros, moments[1]


def test_removals_end_at_the_number_of_zeros():
    assert removals(100, 75, 2) == [50, 75]
    assert removals(100, 100, 3)[-1] == 100
    assert removals(100, 0, 3) == []
    assert removals(3, 1, 8) == [1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"zeros": 11}, r"zeros must be in \[0, 10\], got 11"),
        ({"rounds": 0}, "rounds must be at least 1, got 0"),
        ({"row_weights": np.ones(3)}, r"row_weights must have the shape \(2,\), got \(3,\)"),
        ({"hessian": np.eye(4)}, r"hessian must have the shape \(5, 5\).*got \(4, 4\)"),
        ({"cross": np.ones((2, 4))}, r"cross must have the shape \(2, 5\), got \(2, 4\)"),
    ],
)
def test_errors_name_the_argument(change, message):
    arguments = {"weights": np.ones((2, 5)), "hessian": np.eye(5), "zeros": 3} | change
    with pytest.raises(ValueError, match=message):
        obs_prune(**arguments)


def test_errors_of_refit_and_shrink():
    with pytest.raises(ValueError, match=r"keep must have the shape \(1, 2\), got \(2, 1\)"):
        refit(np.ones((1, 2)), np.ones((2, 1), bool), np.eye(2))
    with pytest.raises(ValueError, match=r"amount must be in \[0, 1\], got 2"):
        shrink(np.ones((1, 2)), np.eye(2), None, 2)
