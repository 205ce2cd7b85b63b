"""Rows with zeros of their own, solved together, beside one after the other."""

import numpy as np
import pytest

from tfnas.pruning import masked_least_squares
from tfnas.pruning.masked_least_squares import Start, solve_masked
from tfnas.pruning.optimal_brain_surgeon import obs_prune, refit, shrink

ROWS, INPUTS = 160, 150


@pytest.fixture(scope="module")
def problem():
    """Correlated inputs of different sizes, as channels after a ReLU."""
    rng = np.random.default_rng(0)
    common = rng.normal(size=(600, 30)) @ rng.normal(size=(30, INPUTS)) / 5
    x = np.maximum(common + rng.normal(size=(600, INPUTS)), 0) * rng.exponential(size=INPUTS)
    weights = rng.normal(size=(ROWS, INPUTS))
    hessian, cross = shrink(weights, np.cov(x.T), None, 0.3)
    keep = rng.random((ROWS, INPUTS)) < rng.uniform(0.1, 0.9, size=(ROWS, 1))
    keep[0], keep[1] = False, True
    return weights, hessian, cross, keep


@pytest.fixture
def one_by_one(monkeypatch):
    monkeypatch.setattr(masked_least_squares, "_LARGE", 10**9)


def exact(problem):
    weights, hessian, cross, keep = problem
    solved = np.zeros_like(weights)
    for row, kept in enumerate(keep):
        moments = hessian[np.ix_(kept, kept)]
        solved[row, kept] = np.linalg.solve(moments, cross[row, kept])
    return solved


def assert_optimal(found, problem):
    """Checks that the outputs are those of the exact solution, to a millionth of their squares."""
    hessian = problem[1]
    expected = exact(problem)
    rest = found - expected
    error, power = (((v @ hessian) * v).sum(axis=1) for v in (rest, expected))
    assert (error <= 1e-6 * power.max()).all()


def test_all_rows_are_solved(problem):
    _, hessian, cross, keep = problem
    found, left = solve_masked(hessian, cross, keep, np.zeros_like(cross))
    assert not left.size
    assert not found[~keep].any()
    assert_optimal(found, problem)


def test_rows_that_do_not_converge_are_solved_directly(problem, monkeypatch):
    weights, hessian, cross, keep = problem
    monkeypatch.setattr(masked_least_squares, "_STEPS", 3)
    assert solve_masked(hessian, cross, keep, np.zeros_like(cross))[1].size
    assert_optimal(refit(weights, keep, hessian, cross), problem)
    assert_optimal(Start(hessian, cross).without(keep), problem)


def test_the_spread_of_some_rows_stands_for_all(problem, one_by_one, monkeypatch):
    _, hessian, cross, keep = problem
    start = Start(hessian, cross)
    expected = start.spread_without(keep)
    monkeypatch.setattr(masked_least_squares, "_LARGE", 1)
    found = start.spread_without(keep)
    ratio = (found / expected)[keep]
    assert 0.95 < np.median(ratio) < 1.05
    assert np.quantile(ratio, 0.05) > 0.7
    assert np.quantile(ratio, 0.95) < 1.4


@pytest.mark.parametrize("share", [0.5, 0.8])
def test_the_surgeon_loses_as_little(problem, one_by_one, monkeypatch, share):
    weights, hessian, cross, _ = problem
    zeros = int(share * weights.size)
    expected = obs_prune(weights, hessian, zeros, cross).losses[-1]
    monkeypatch.setattr(masked_least_squares, "_LARGE", 1)
    assert obs_prune(weights, hessian, zeros, cross).losses[-1] < 1.02 * expected
