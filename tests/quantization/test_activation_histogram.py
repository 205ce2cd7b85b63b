"""Ranges from histograms, beside sorted numbers and a search over rounded ones."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import tfnas
from tfnas.quantization.activation_histogram import (
    count_numbers,
    least_error_range,
    percentile_range,
)
from tfnas.quantization.aware_models import fake_quants

BIN = 2.0**-8
FLOATS = st.floats(-1e6, 1e6, width=32)


def counted(values):
    return count_numbers(tf.constant(np.asarray(values, np.float32)))


@settings(max_examples=25, deadline=None)
@given(arrays(np.float32, st.integers(1, 300), elements=FLOATS), st.floats(50.1, 99.99))
def test_percentiles_are_those_of_sorted_numbers_to_a_bin(values, percentile):
    low, high = map(float, percentile_range(counted(values), percentile))
    ordered = np.sort(values).astype(np.float64)
    last = len(values) - 1
    index = int(np.round(last * (percentile / 100.0)))
    for end, exact, outward in ((low, ordered[last - index], -1), (high, ordered[index], 1)):
        assert -1e-37 <= outward * (end - exact) <= BIN * abs(exact) + 1e-37


def error_of(values, low, high, bits):
    options = {"num_bits": bits, "narrow_range": bits > 8}
    rounded = tf.quantization.fake_quant_with_min_max_args(values, low, high, **options)
    return float(tf.reduce_mean((tf.cast(rounded, tf.float64) - values.astype(np.float64)) ** 2))


def long_tailed(sign):
    values = np.random.default_rng(3).standard_t(2.0, 20_000).astype("float32")
    return values if sign == 0 else sign * np.abs(values)


@pytest.mark.parametrize("sign", [0, 1, -1])
@pytest.mark.parametrize("bits", [4, 8])
def test_the_least_error_is_that_of_a_search_over_rounded_numbers(sign, bits):
    values = long_tailed(sign)
    low, high = map(float, least_error_range(counted(values), bits))
    least, most = min(values.min(), 0.0), max(values.max(), 0.0)
    shares = 2.0 ** (-np.arange(9))
    searched = min(
        error_of(values, a * least, b * most, bits)
        for a in (shares if least else (1.0,))
        for b in (shares if most else (1.0,))
    )
    assert error_of(values, low, high, bits) <= 1.1 * searched
    widest = error_of(values, least, most, bits)
    assert error_of(values, low, high, bits) < {4: 0.9, 8: 1.01}[bits] * widest


def test_a_symmetric_grid_has_a_symmetric_range():
    low, high = map(float, least_error_range(counted(long_tailed(1)), 16, symmetric=True))
    assert low == -high
    low, high = map(float, least_error_range(counted(np.zeros(10)), 8))
    assert abs(low) + abs(high) < 1e-30


def test_numbers_without_outliers_are_not_clipped():
    values = np.random.default_rng(0).uniform(-1.0, 3.0, 5000)
    low, high = map(float, least_error_range(counted(values), 8))
    np.testing.assert_allclose([low, high], [values.min(), values.max()], rtol=BIN)


def test_the_same_percentiles_in_a_compiled_step():
    values = tf.constant(long_tailed(0))

    def ends(values):
        counts = count_numbers(values)
        return percentile_range(counts, 99.0)

    compiled = tf.function(ends, jit_compile=True)(values)
    np.testing.assert_allclose(compiled, ends(values), rtol=1e-6)


@pytest.mark.parametrize("ranges", ["percentile", "mse"])
def test_calibration_finds_the_range_of_all_numbers_in_any_order(ranges):
    x = long_tailed(0)[:19_200].reshape(200, 96)
    model = keras.Sequential([keras.Input((96,)), keras.layers.Dense(2)])
    spec = tfnas.QuantSpec(ranges=ranges, percentile=99.5)

    def range_by(data):
        first = fake_quants(tfnas.quantize_aware(model, spec, data=data))[0]
        return float(first.low), float(first.high)

    ordered = x[np.argsort(np.abs(x).max(axis=1))]
    assert range_by(x) == range_by(ordered)
    if ranges == "percentile":
        np.testing.assert_allclose(range_by(x), np.quantile(x, [0.005, 0.995]), rtol=0.01)


def test_a_second_calibration_widens_the_range():
    x = long_tailed(0)[:9600].reshape(100, 96)
    model = keras.Sequential([keras.Input((96,)), keras.layers.Dense(2)])
    trainable = tfnas.quantize_aware(model, tfnas.QuantSpec(ranges="mse"), data=x)
    first = fake_quants(trainable)[0]
    high = float(first.high)
    tfnas.calibrate(trainable, 0.1 * x)
    assert float(first.high) == high
    tfnas.calibrate(trainable, 2.0 * x)
    assert float(first.high) > 1.5 * high


def test_training_holds_a_range_of_least_error():
    x = long_tailed(0)[:9600].reshape(100, 96)
    model = keras.Sequential([keras.Input((96,)), keras.layers.Dense(2)])
    for data in (x, None):
        trainable = tfnas.quantize_aware(model, tfnas.QuantSpec(ranges="mse"), data=data)
        first = fake_quants(trainable)[0]
        trainable(x[:10], training=True)
        high = float(first.high)
        trainable(100.0 * x, training=True)
        assert float(first.high) == high > 0.0
