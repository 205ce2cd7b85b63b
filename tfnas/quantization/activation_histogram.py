"""Histograms of activations, and the ranges that are read from them.

The bins are the same for all tensors, so that counts of batches add up and no range must be known
in advance: a bin holds the float32 numbers that share their upper 17 bits, which are the sign, the
exponent and 8 bits of the mantissa. Counting is one pass and one shift a number. Sorting, which
gives exact percentiles, takes a hundred times as long.

An end of a range is an edge of a bin, the outer one: at most 2^-8 of itself, or 0.4%, too wide.

References:
    Banner, Nahshan and Soudry, "Post training 4-bit quantization of convolutional networks for
    rapid-deployment", NeurIPS 2019, for the error of clipping beside that of rounding.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

_SHIFT = 15
_BINS = 2 ** (32 - _SHIFT)
_ROW = 256
_ZERO = _BINS // 2  # the first bin of numbers from 0 on; bins are in the order of their numbers
_UPPER_BITS = np.arange(_ZERO + 1, dtype=np.uint32) << _SHIFT
_INFINITE = 0x7F800000  # from these bits on, numbers are infinite or NaN
_MAGNITUDES = np.where(
    _UPPER_BITS < _INFINITE, _UPPER_BITS.view(np.float32), np.finfo(np.float32).max
).astype(np.float64)
_LOWER = np.concatenate([-_MAGNITUDES[:0:-1], _MAGNITUDES[:-1]])
_UPPER = np.concatenate([-_MAGNITUDES[-2::-1], _MAGNITUDES[1:]])
_CENTERS = (_LOWER + _UPPER) / 2.0
_SHARES = 2.0 ** (-np.arange(128) / 12.0)  # of the extremes, down to 1/1500, in steps of 6%


def count_numbers(values: Any) -> Any:
    """Returns how many of the numbers are in each bin; counts of batches may be added.

    Example:
        >>> counts = count_numbers(tf.constant([[0.0, 1.0], [1.0, -3.0]]))
        >>> float(tf.reduce_sum(counts))
        4.0

    Args:
        values: A float32 tensor of any shape.

    Returns:
        A float64 tensor of shape (131072,).
    """
    counts = tf.raw_ops.DenseBincount(
        input=_bits(tf.reshape(values, [-1])),
        size=_BINS,
        weights=tf.constant([], tf.int32),
        binary_output=False,
    )
    ordered = tf.concat([tf.reverse(counts[_ZERO:], [0]), counts[:_ZERO]], 0)
    return tf.cast(ordered, tf.float64)


def percentile_range(counts: Any, percentile: float) -> tuple[Any, Any]:
    """Returns the range that leaves out the same number of numbers at either end.

    Example:
        >>> low, high = percentile_range(count_numbers(tf.range(1001.0)), 99.0)
        >>> float(low), float(high)
        (10.0, 992.0)

    Args:
        counts: What :func:`count_numbers` returns.
        percentile: In (50, 100). The share of numbers up to the upper end, in percent.

    Returns:
        Two float32 scalars, the outer edges of the bins of the two numbers: a range at most 0.4%
        wider at either end than the sorted numbers give.
    """
    below = _cumulative(counts)
    last = below[-1] - 1.0
    index = tf.round(last * (percentile / 100.0))
    bins = tf.searchsorted(below, tf.stack([last - index, index]), side="right")
    bins = tf.minimum(bins, _BINS - 1)
    return _edge(_LOWER, bins[0]), _edge(_UPPER, bins[1])


def least_error_range(counts: Any, bits: int, symmetric: bool = False) -> tuple[Any, Any]:
    """Returns the range with 0 that rounds the numbers with the least squared error.

    A wide range rounds in coarse steps, a narrow one clips. Ranges whose ends are shares of the
    lowest and the highest number are compared, from 1 to 1/1500 in steps of 6%. Within a range the
    error is taken for step^2 / 12, except that numbers within half a step of 0 become 0.

    Example:
        >>> values = tf.concat([tf.linspace(0.0, 1.0, 100_000), [50.0]], 0)
        >>> low, high = least_error_range(count_numbers(values), 8)
        >>> float(low), bool(1.0 < high < 50.0)
        (0.0, True)

    Args:
        counts: What :func:`count_numbers` returns.
        bits: Bits of an activation.
        symmetric: Whether the grid is symmetric around 0, as with more than 8 bits.

    Returns:
        Two float32 scalars, at most and at least 0.
    """
    low = -tf.reduce_min(tf.where(counts > 0.0, _LOWER, 0.0))
    high = tf.reduce_max(tf.where(counts > 0.0, _UPPER, 0.0))
    if symmetric:
        low = high = tf.maximum(low, high)
    lows, highs = low * _SHARES, high * _SHARES
    clipped_low, clipped_high = _Sums(counts, -1.0), _Sums(counts, 1.0)
    below_lows, above_highs = clipped_low.outside(lows), clipped_high.outside(highs)
    if not symmetric:
        lows, below_lows = lows[:, None], [each[:, None] for each in below_lows]
    steps = (lows + highs) / (2.0**bits - (2.0 if symmetric else 1.0))
    zeros, squares = (
        a + b
        for a, b in zip(
            clipped_low.inside(steps / 2.0), clipped_high.inside(steps / 2.0), strict=True
        )
    )
    total = tf.reduce_sum(counts)
    rounded = tf.maximum(total - below_lows[0] - above_highs[0] - zeros, 0.0)
    errors = below_lows[1] + above_highs[1] + squares + rounded * steps**2 / 12.0
    best = tf.argmin(tf.reshape(errors, [-1]))
    low, high = (
        tf.cast(tf.reshape(tf.broadcast_to(ends, errors.shape), [-1])[best], tf.float32)
        for ends in (-lows, highs)
    )
    return low, high


class _Sums:
    """Sums of 1, |x| and x^2 over the numbers of one sign, from 0 up to each bin.

    Args:
        counts: What :func:`count_numbers` returns.
        sign: 1.0 or -1.0.
    """

    def __init__(self, counts: Any, sign: float) -> None:
        counts = counts[_ZERO:] if sign > 0 else tf.reverse(counts[:_ZERO], [0])
        centers = _CENTERS[_ZERO:]
        moments = tf.stack([counts, counts * centers, counts * centers**2])
        self._upto = tf.pad(_cumulative(moments), [[0, 0], [1, 0]])

    def _at(self, magnitudes: Any) -> Any:
        return tf.gather(self._upto, _bits(tf.cast(magnitudes, tf.float32)), axis=1)

    def outside(self, ends: Any) -> list[Any]:
        """Returns the number of numbers beyond each end, and their squared distances to it."""
        count, first, second = tf.unstack(self._upto[:, -1:] - self._at(ends))
        return [count, tf.maximum(second - 2.0 * ends * first + ends**2 * count, 0.0)]

    def inside(self, ends: Any) -> list[Any]:
        """Returns the number of numbers up to each end, and the sum of their squares."""
        count, _, second = tf.unstack(self._at(ends))
        return [count, second]


def _cumulative(values: Any) -> Any:
    """Sums along the last axis, of whole rows and within them: XLA sums each prefix anew."""
    rows = tf.reshape(values, [*values.shape[:-1], -1, _ROW])
    within = tf.cumsum(rows, axis=-1)
    before = tf.cumsum(within[..., -1:], axis=-2, exclusive=True)
    return tf.reshape(within + before, values.shape)


def _bits(values: Any) -> Any:
    """The upper bits of float32 numbers, as int32; of a number from 0 on its bin after 0's."""
    upper = tf.bitwise.right_shift(tf.bitcast(values, tf.uint32), tf.constant(_SHIFT, tf.uint32))
    return tf.bitcast(upper, tf.int32)


def _edge(edges: np.ndarray, place: Any) -> Any:
    return tf.cast(tf.gather(tf.constant(edges), place), tf.float32)
