"""The mathematics of low-rank factors: bounds, exactness, and the effect of data."""

import doctest

import numpy as np
import pytest
import scipy.linalg
from hypothesis import given, settings
from hypothesis import strategies as st

from tfnas.low_rank import covariance as covariance_module
from tfnas.low_rank import svd, tucker
from tfnas.low_rank.svd import Spatial, Svd, relative_error, root_of
from tfnas.low_rank.tucker import Tucker

SEEDS = st.integers(0, 2**32 - 1)
few = settings(max_examples=25, deadline=None)


def case(seed, shape, patches=None):
    """A kernel, correlated patches, and the second moments of the patches."""
    rng = np.random.default_rng(seed)
    kernel = rng.normal(size=shape)
    inputs = int(np.prod(shape[:-1]))
    x = rng.normal(size=(patches or 3 * inputs, inputs)) @ rng.normal(size=(inputs, inputs))
    return kernel, x, x.T @ x / len(x)


def joined(*factors):
    """The kernel that equals a sequence of factors."""
    product = factors[0]
    for factor in factors[1:]:
        product = np.matmul(product, factor)
    return product


def tucker_kernel(found, first, last):
    parts = [p if p is None or p.ndim == 4 else p[None, None] for p in found.factors(first, last)]
    return joined(*(part for part in parts if part is not None))


@pytest.mark.parametrize("module", [svd, tucker, covariance_module])
def test_doctests_pass(module):
    result = doctest.testmod(module)
    assert result.attempted > 0
    assert result.failed == 0


@few
@given(SEEDS, st.integers(1, 7), st.integers(1, 7))
def test_truncated_svd_is_optimal(seed, inputs, outputs):
    kernel, *_ = case(seed, (inputs, outputs))
    found = Svd(kernel)
    singular = scipy.linalg.svdvals(kernel)
    assert found.full == min(inputs, outputs)
    rng = np.random.default_rng(seed)
    for rank in range(1, found.full + 1):
        left, right = found.factors(rank)
        missed = np.sum((kernel - left @ right) ** 2)
        assert missed == pytest.approx(np.sum(singular[rank:] ** 2), abs=1e-10)
        assert found.errors[rank] == pytest.approx(missed / np.sum(singular**2), abs=1e-12)
        other = rng.normal(size=(inputs, rank))
        best = other @ np.linalg.lstsq(other, kernel, rcond=None)[0]
        assert missed <= np.sum((kernel - best) ** 2) + 1e-10
    np.testing.assert_allclose(left @ right, kernel, atol=1e-10)


@few
@given(SEEDS, st.integers(2, 7), st.integers(2, 7))
def test_data_aware_svd_is_no_worse_on_its_data_and_reports_its_error(seed, inputs, outputs):
    kernel, x, second = case(seed, (inputs, outputs))
    plain, aware = Svd(kernel), Svd(kernel, second)
    for rank in range(1, aware.full + 1):
        errors = []
        for found in (plain, aware):
            left, right = found.factors(rank)
            errors.append(np.sum((x @ (kernel - left @ right)) ** 2) / np.sum((x @ kernel) ** 2))
        assert errors[1] <= errors[0] + 1e-6
        assert errors[1] == pytest.approx(aware.errors[rank], abs=1e-6)
    np.testing.assert_allclose(left @ right, kernel, atol=1e-8)


def test_data_aware_svd_equals_explicit_whitening():
    kernel, _, second = case(1, (6, 5))
    root = scipy.linalg.sqrtm(second).real
    u, s, vt = np.linalg.svd(root @ kernel)
    expected = np.linalg.solve(root, u[:, :2] * s[:2] @ vt[:2])
    left, right = Svd(kernel, second).factors(2)
    np.testing.assert_allclose(left @ right, expected, atol=1e-6)


def test_inputs_that_never_occur_do_not_reduce_precision():
    kernel, *_ = case(2, (6, 4))
    x = np.zeros((50, 6))
    x[:, :2] = np.random.default_rng(0).normal(size=(50, 2))
    found = Svd(kernel, x.T @ x / 50)
    assert found.errors[2] < 1e-6  # only two inputs are ever nonzero
    np.testing.assert_allclose(joined(*found.factors(4)), kernel, atol=1e-8)
    silent = Svd(kernel, np.zeros((6, 6)))
    np.testing.assert_allclose(silent.errors, Svd(kernel).errors)
    assert Svd(np.zeros((3, 4))).errors.tolist() == [0.0] * 4


@few
@given(
    SEEDS,
    st.sampled_from([(3, 3, 2, 3), (3, 1, 4, 2), (1, 3, 3, 5), (2, 3, 1, 4), (5, 5, 1, 1)]),
    st.booleans(),
)
def test_spatial_error_is_exact_and_full_rank_lossless(seed, shape, with_data):
    kernel, _, second = case(seed, shape)
    second = second if with_data else None
    found, flat = Spatial(kernel, second), kernel.reshape(-1, shape[-1])
    assert np.all(np.diff(found.errors) <= 1e-12)
    for rank in range(1, found.full + 1):
        product = joined(*found.factors(rank))
        error = relative_error(flat, product.reshape(flat.shape), second)
        assert error == pytest.approx(found.errors[rank], abs=1e-6)
    np.testing.assert_allclose(product, kernel, atol=1e-6)


@few
@given(
    SEEDS,
    st.sampled_from([(3, 3, 3, 4), (3, 1, 4, 2), (1, 3, 12, 2), (2, 2, 2, 9)]),
    st.booleans(),
)
def test_tucker_error_is_bounded_and_full_rank_lossless(seed, shape, with_data):
    kernel, _, second = case(seed, shape)
    second = second if with_data else None
    found, flat = Tucker(kernel, second), kernel.reshape(-1, shape[-1])
    for first in range(1, found.full[0] + 1):
        bounds = found.errors(first)
        for last in range(1, found.full[1] + 1):
            product = tucker_kernel(found, first, last)
            error = relative_error(flat, product.reshape(flat.shape), second)
            assert error <= bounds[last] + 1e-6
    np.testing.assert_allclose(product, kernel, atol=1e-6)


@few
@given(SEEDS, st.sampled_from([(3, 3, 4, 5), (3, 3, 6, 3)]))
def test_tucker_fulfills_the_bound_of_hosvd(seed, shape):
    """The error is at most what both unfoldings discard (De Lathauwer 2000, property 10)."""
    kernel, *_ = case(seed, shape)
    found = Tucker(kernel)
    by_input = scipy.linalg.svdvals(kernel.transpose(2, 0, 1, 3).reshape(shape[2], -1)) ** 2
    by_output = scipy.linalg.svdvals(kernel.reshape(-1, shape[3])) ** 2
    for first, last in ((1, 1), (2, 3), (3, 2), (4, 3)):
        error = np.sum((kernel - tucker_kernel(found, first, last)) ** 2)
        bound = by_input[first:].sum() + by_output[last:].sum()
        assert error <= bound + 1e-9
        assert error >= max(by_input[first:].sum(), by_output[last:].sum()) - 1e-9


def test_tucker_recovers_an_exact_core():
    rng = np.random.default_rng(3)
    core = rng.normal(size=(3, 3, 2, 3))
    kernel = rng.normal(size=(6, 2)) @ core @ rng.normal(size=(3, 7))
    found = Tucker(kernel)
    np.testing.assert_allclose(tucker_kernel(found, 2, 3), kernel, atol=1e-9)
    shapes = [f if f is None else f.shape for f in found.factors(2, 3)]
    assert shapes == [(6, 2), (3, 3, 2, 3), (3, 7)]
    assert [f is None for f in found.factors(6, 3)] == [True, False, False]
    assert [f is None for f in found.factors(2, 7)] == [False, False, True]


@pytest.mark.parametrize("shape", [(3, 3, 4, 6), (3, 3, 6, 4)])
def test_data_reduces_the_error_of_k_by_k_kernels(shape):
    gains = {"spatial": [], "tucker": []}
    for seed in range(10):
        kernel, _, second = case(seed, shape)
        flat = kernel.reshape(-1, shape[-1])
        for name, decompose in (
            ("spatial", lambda s, k=kernel: joined(*Spatial(k, s).factors(3))),
            ("tucker", lambda s, k=kernel: tucker_kernel(Tucker(k, s), 3, 3)),
        ):
            plain, aware = (
                relative_error(flat, decompose(s).reshape(flat.shape), second)
                for s in (None, second)
            )
            gains[name].append(aware / plain)
    assert all(max(gain) < 1 for gain in gains.values())


def test_factors_have_equal_norms():
    kernel, _, second = case(4, (5, 6))
    left, right = Svd(100 * kernel, second).factors(3)
    np.testing.assert_allclose(np.linalg.norm(left, axis=0), np.linalg.norm(right, axis=1))


def test_square_roots():
    _, _, second = case(5, (4, 4))
    np.testing.assert_allclose(root_of(second).T @ root_of(second), second, rtol=1e-6)
    with pytest.raises(np.linalg.LinAlgError):
        root_of(np.diag([2.0, -1.0]))


def test_covariances_match_numpy_far_from_zero():
    rng = np.random.default_rng(6)
    x = (1000 + rng.normal(size=(5000, 3))).astype(np.float32)
    found = covariance_module.InputCovariance(3)
    for part in np.split(x, 5):
        found.add(part)
    exact = x.astype(np.float64)
    np.testing.assert_allclose(found.mean, exact.mean(axis=0))
    central, raw = found.second_moments(True), found.second_moments(False)
    np.testing.assert_allclose(np.diag(central), exact.var(axis=0), rtol=1e-9)
    np.testing.assert_allclose(np.diag(raw), (exact**2).mean(axis=0), rtol=1e-9)
    covariance = np.cov(exact.T, bias=True)
    np.testing.assert_allclose(central, covariance, rtol=1e-9)
    estimate = found.shrinkage_estimate(True)
    np.testing.assert_allclose(np.diag(estimate), np.diag(central))
    assert estimate[0, 1] == pytest.approx(covariance[0, 1] * (1 - 0.6 * 3 / 5003))
