"""Arithmetic of quantization: bit-exact with TensorFlow."""

import doctest
import importlib

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from tfnas.quantization.arithmetic import (
    Grid,
    fake_quantize,
    grid,
    kmeans_quantize,
    nudge,
    symmetric_grid,
)

BITS = st.integers(2, 16)
# Not so small that a step is subnormal, and not so large that TensorFlow overflows.
SIZES = st.floats(2.0**-20, 2.0**20, width=32)


@st.composite
def ranges(draw):
    """(low, high) around 0 with ends of any magnitude; one of them may be 0."""
    low, high = draw(SIZES), draw(SIZES)
    return draw(st.sampled_from([(-low, high), (0.0, high), (-low, 0.0)]))


def around(low, high, count=257, seed=0):
    """float32 numbers in a range, around it, and at its ends."""
    rng = np.random.default_rng(seed)
    width = high - low
    inside = rng.uniform(low, high, count)
    outside = rng.uniform(low - width, high + width, count)
    return np.concatenate([inside, outside, [low, high, 0.0, -0.0]]).astype(np.float32)


def bits_of(x):
    return np.asarray(x, np.float32).view(np.uint32)


def assert_same_bits(found, expected):
    """Equal to the bit, but for the sign of a zero."""
    found, expected = np.asarray(found), np.asarray(expected)
    assert found.dtype == expected.dtype == np.float32
    np.testing.assert_array_equal(bits_of(found + 0.0), bits_of(expected + 0.0))


# --- grid


def test_the_worked_example():
    found = grid(-1.0, 1.0, bits=4)
    assert float(found.scale) == pytest.approx(2 / 15, rel=1e-15)
    assert (found.qmin, found.qmax) == (-8, 7)
    assert int(found.quantize(np.array(0.5))) == 3
    np.testing.assert_array_equal(found.quantize(np.array([-1.0, 1.0, -9.0, 9.0])), [-8, 7, -8, 7])
    assert float(found.dequantize(np.array(3))) == pytest.approx(11 * 2 / 15 - 1)


@given(st.floats(-1e6, 1e6), st.floats(1e-3, 1e6), BITS)
@settings(max_examples=60, deadline=None)
def test_the_error_of_a_grid_is_half_a_step_at_most(fmin, width, bits):
    found = grid(fmin, fmin + width, bits)
    x = np.random.default_rng(0).uniform(fmin, fmin + width, 300)
    q = found.quantize(x)
    assert q.dtype == np.int32
    assert q.min() >= -(2 ** (bits - 1))
    assert q.max() <= 2 ** (bits - 1) - 1
    slack = 1e-9 * (abs(fmin) + width)
    assert np.abs(found.dequantize(q) - x).max() <= found.scale / 2 + slack


@given(st.floats(-1e3, 1e3), st.floats(1e-2, 1e3), BITS)
@settings(max_examples=40, deadline=None)
def test_integers_survive_the_way_to_real_numbers_and_back(fmin, width, bits):
    found = grid(fmin, fmin + width, bits)
    q = np.unique(np.linspace(found.qmin, found.qmax, 300).astype(np.int32))
    np.testing.assert_array_equal(found.quantize(found.dequantize(q)), q)


@pytest.mark.parametrize("bits", [2, 3, 8, 16])
def test_a_grid_has_two_to_the_bits_steps(bits):
    found = grid(-3.0, 5.0, bits)
    assert found.qmax - found.qmin + 1 == 2**bits
    assert float(found.high) == pytest.approx(5.0)
    q = found.quantize(np.linspace(-3.0, 5.0, 2**18))
    assert len(np.unique(q)) == 2**bits
    assert (np.diff(q) >= 0).all()


def test_halves_are_rounded_up():
    found = Grid(np.float64(1.0), np.float64(-8.0), -8, 7)
    np.testing.assert_array_equal(found.quantize(np.array([-1.5, -0.5, 0.5, 1.5])), [-1, 0, 1, 2])


def test_a_grid_may_have_a_range_per_channel():
    found = grid(np.array([-1.0, 0.0]), np.array([1.0, 10.0]), bits=4)
    q = found.quantize(np.array([[0.5, 0.5], [9.0, 9.0]]))
    np.testing.assert_array_equal(q, [[3, -7], [7, 6]])
    assert np.shape(found.scale) == (2,)


@pytest.mark.parametrize(
    ("fmin", "fmax"),
    [
        (1.0, 1.0),
        (2.0, 1.0),
        (np.nan, 1.0),
        (0.0, np.inf),
        (-np.inf, 0.0),
        ([0.0, 1.0], [1.0, 1.0]),
    ],
)
def test_a_range_that_is_refused(fmin, fmax):
    with pytest.raises(ValueError, match="fmax must be finite and above fmin, got"):
        grid(fmin, fmax)


@pytest.mark.parametrize("bits", [1, 0, -8, 17, 8.0, "8", True, None])
def test_bits_that_are_refused(bits):
    calls = (
        lambda: grid(0.0, 1.0, bits),
        lambda: symmetric_grid(np.ones(3), bits),
        lambda: nudge(-1.0, 1.0, bits),
        lambda: fake_quantize(np.ones(3), -1.0, 1.0, bits),
    )
    for call in calls:
        with pytest.raises(ValueError, match="bits must be a whole number from 2 to 16, got"):
            call()


# --- symmetric_grid


@given(BITS, st.integers(0, 1000))
@settings(max_examples=40, deadline=None)
def test_a_symmetric_grid_is_the_same_on_both_sides_of_zero(bits, seed):
    x = np.random.default_rng(seed).normal(size=(5, 7))
    found = symmetric_grid(x, bits)
    assert found.qmin == -found.qmax == -(2 ** (bits - 1) - 1)
    q = found.quantize(np.array([0.0, np.abs(x).max(), -np.abs(x).max()]))
    np.testing.assert_array_equal(q, [0, found.qmax, found.qmin])
    back = found.dequantize(found.quantize(x))
    assert np.abs(back - x).max() <= found.scale / 2 * (1 + 1e-9)
    assert float(found.dequantize(np.array(0))) == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize(("axis", "shape"), [(0, (3, 1, 1)), (1, (1, 4, 1)), (-1, (1, 1, 5))])
def test_a_symmetric_grid_with_a_scale_per_channel(axis, shape):
    x = np.random.default_rng(0).normal(size=(3, 4, 5))
    found = symmetric_grid(x, 8, axis)
    assert found.scale.shape == shape
    for i in range(x.shape[axis]):
        one = np.take(x, i, axis)
        alone = symmetric_grid(one)
        assert float(alone.scale) == found.scale.reshape(-1)[i]
        np.testing.assert_array_equal(np.take(found.quantize(x), i, axis), alone.quantize(one))


def test_a_symmetric_grid_of_zeros_holds_zero():
    x = np.zeros((3, 2))
    x[:, 1] = 4.0
    for axis in (None, 1):
        found = symmetric_grid(x, 4, axis)
        assert np.isfinite(found.scale).all()
        np.testing.assert_allclose(found.dequantize(found.quantize(x)), x, atol=1e-12)
    assert (symmetric_grid(np.zeros(5)).quantize(np.zeros(5)) == 0).all()


# --- nudge and fake_quantize against TensorFlow


@given(ranges(), BITS, st.booleans())
@settings(max_examples=150, deadline=None)
def test_fake_quantize_is_bit_exact_with_tensorflow(ends, bits, narrow):
    low, high = ends
    x = around(low, high)
    expected = tf.quantization.fake_quant_with_min_max_vars(
        x, low, high, num_bits=bits, narrow_range=narrow
    )
    assert_same_bits(fake_quantize(x, low, high, bits, narrow), expected.numpy())


@given(st.lists(ranges(), min_size=1, max_size=5), BITS, st.booleans())
@settings(max_examples=80, deadline=None)
def test_fake_quantize_per_channel_is_bit_exact_with_tensorflow(ends, bits, narrow):
    low, high = np.array(ends, np.float32).T
    x = np.stack([around(a, b, 60) for a, b in ends], axis=-1)
    expected = tf.quantization.fake_quant_with_min_max_vars_per_channel(
        x, low, high, num_bits=bits, narrow_range=narrow
    )
    assert_same_bits(fake_quantize(x, low, high, bits, narrow), expected.numpy())


@given(ranges(), BITS, st.booleans())
@settings(max_examples=80, deadline=None)
def test_the_error_of_fake_quantize_is_half_a_step_at_most(ends, bits, narrow):
    scale, low, high = nudge(*ends, bits, narrow)
    x = around(low, high)
    found = fake_quantize(x, *ends, bits, narrow)
    expected = np.clip(x, low, high)
    slack = 4 * np.finfo(np.float32).eps * (abs(low) + abs(high))
    assert np.abs(found - expected).max() <= scale / 2 + slack
    assert len(np.unique(found)) <= 2**bits - narrow


@given(ranges(), BITS, st.booleans())
@settings(max_examples=80, deadline=None)
def test_fake_quantize_twice_is_once(ends, bits, narrow):
    once = fake_quantize(around(*ends), *ends, bits, narrow)
    assert_same_bits(fake_quantize(once, *ends, bits, narrow), once)


@given(ranges(), BITS, st.booleans())
@settings(max_examples=80, deadline=None)
def test_zero_stays_zero_and_falls_on_a_step(ends, bits, narrow):
    assert fake_quantize(np.zeros(1), *ends, bits, narrow) == 0.0
    scale, low, high = nudge(*ends, bits, narrow)
    assert {np.asarray(v).dtype for v in (scale, low, high)} == {np.dtype(np.float32)}
    assert low <= 0.0 <= high
    # The width is the same, and the shift half a step at most, as far as float32 tells ends apart.
    apart = np.spacing(np.float32(max(map(abs, ends))))
    assert abs(low - np.float32(ends[0])) <= scale * 0.5 * (1 + 1e-3) + apart
    assert (high - low) / scale == pytest.approx(2**bits - 1 - narrow, rel=1e-4)


def test_fake_quantize_of_the_worked_example():
    # In float32 0 lands on step 7 of 15, so there are 7 steps below it and 8 above.
    found = fake_quantize(np.array([0.5, -1.0, 1.0, 7.0]), -1.0, 1.0, bits=4)
    np.testing.assert_allclose(found * 7.5, [4, -7, 8, 8], rtol=1e-6)


@given(st.integers(0, 10_000), st.integers(2, 8))
@settings(max_examples=30, deadline=None)
def test_a_symmetric_grid_is_the_narrow_range_of_tensorflow(seed, bits):
    x = np.random.default_rng(seed).normal(size=(6, 5)).astype(np.float32)
    largest = np.abs(x).max(0)
    found = symmetric_grid(x, bits, axis=1)
    expected = fake_quantize(x, -largest, largest, bits, narrow=True)
    np.testing.assert_allclose(
        found.dequantize(found.quantize(x)), expected, atol=float(found.scale.max()) * 1e-4
    )


# --- k-means


def added_error(values, codebook, start):
    """Squared error of a codebook minus that of its initialization."""
    distance = np.abs(values[:, None] - np.asarray(codebook)).min(1)
    before = np.abs(values[:, None] - np.asarray(start)).min(1)
    return np.square(distance).sum() - np.square(before).sum()


@given(st.integers(1, 6), st.integers(0, 1000))
@settings(max_examples=40, deadline=None)
def test_kmeans_quantize_has_at_most_two_to_the_bits_values(bits, seed):
    x = np.random.default_rng(seed).normal(size=(9, 3, 4)).astype(np.float32)
    codebook, codes = kmeans_quantize(x, bits)
    assert len(codebook) <= 2**bits
    assert (np.diff(codebook) > 0).all()
    assert codes.shape == x.shape
    assert codes.min() == 0
    assert codes.max() == len(codebook) - 1
    flat = x.reshape(-1)
    start = np.linspace(flat.min(), flat.max(), 2**bits)
    assert added_error(flat, codebook, start) <= 1e-6
    np.testing.assert_array_equal(codes.reshape(-1), np.abs(flat[:, None] - codebook).argmin(1))


def test_kmeans_beats_a_uniform_grid_of_as_many_values():
    x = np.random.default_rng(0).standard_t(3, 4000)
    codebook, codes = kmeans_quantize(x, 4)
    uniform = grid(x.min(), x.max(), 4)
    by_grid = uniform.dequantize(uniform.quantize(x))
    assert np.square(codebook[codes] - x).mean() < 0.5 * np.square(by_grid - x).mean()


@pytest.mark.parametrize("bits", [1, 4, 16])
def test_few_values_are_kept_as_they_are(bits):
    x = np.array([[3.0, -1.0], [3.0, 3.0]])
    codebook, codes = kmeans_quantize(x, bits)
    np.testing.assert_array_equal(codebook[codes], x)
    same, zeros = kmeans_quantize(np.full(7, 2.5), bits)
    np.testing.assert_array_equal(same, [2.5])
    np.testing.assert_array_equal(zeros, np.zeros(7))


@pytest.mark.parametrize("bits", [0, 17, -1])
def test_bits_of_kmeans_that_are_refused(bits):
    with pytest.raises(ValueError, match=f"bits must be from 1 to 16, got {bits}"):
        kmeans_quantize(np.ones(3), bits)


@pytest.mark.parametrize("x", [np.zeros(0), np.array([1.0, np.nan]), np.array([np.inf, 1.0])])
def test_numbers_that_kmeans_quantize_refuses(x):
    with pytest.raises(ValueError, match="x must"):
        kmeans_quantize(x)


@pytest.mark.parametrize("module", ["clustering.kmeans", "quantization.arithmetic"])
def test_examples_are_true(module):
    result = doctest.testmod(importlib.import_module(f"tfnas.{module}"))
    assert result.attempted > 0
    assert result.failed == 0
