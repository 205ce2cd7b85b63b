"""Quantization of numbers: uniform (a scale and a zero point) and non-uniform (k-means).

Uniform quantization maps a real range [fmin, fmax] to the integers qmin to qmax:

    scale = (fmax - fmin) / (qmax - qmin)                                      (1)
    q = round((x - fmin) / scale) + qmin, clipped to [qmin, qmax]              (2)

A computation in integers needs 0.0 to be one of the steps. So for files and for training the
range is widened to hold 0, and shifted until 0 falls on a step (:func:`nudge`), just as
TensorFlow's `fake_quant_with_min_max_vars` does; :func:`fake_quantize` equals that operation
to the bit.

References:
    Jacob et al., "Quantization and Training of Neural Networks for Efficient
    Integer-Arithmetic-Only Inference", CVPR 2018. Han et al., "Deep Compression", ICLR 2016,
    for k-means.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from tfnas.clustering.kmeans import kmeans

LEAST_BITS, MOST_BITS = 2, 16


@dataclasses.dataclass(frozen=True)
class Grid:
    """The real numbers that a uniform quantization can tell apart.

    Args:
        scale: Distance of two steps; a number, or one a channel.
        low: The real number that `qmin` stands for; like `scale`.
        qmin: Lowest integer.
        qmax: Highest integer.
    """

    scale: np.ndarray
    low: np.ndarray
    qmin: int
    qmax: int

    def quantize(self, x: np.ndarray) -> np.ndarray:
        """Returns integers, by equation (2). Halves are rounded up, as TensorFlow does."""
        steps = np.floor((np.clip(x, self.low, self.high) - self.low) / self.scale + 0.5)
        return np.clip(steps + self.qmin, self.qmin, self.qmax).astype(np.int32)

    def dequantize(self, q: np.ndarray) -> np.ndarray:
        """Returns the real numbers that integers stand for."""
        return (q - self.qmin) * self.scale + self.low

    @property
    def high(self) -> np.ndarray:
        """The real number that `qmax` stands for."""
        return self.low + self.scale * (self.qmax - self.qmin)


def grid(fmin: float | np.ndarray, fmax: float | np.ndarray, bits: int = 8) -> Grid:
    """Returns the grid of equation (1), which need not hold 0.

    Example:
        >>> found = grid(-1.0, 1.0, bits=4)
        >>> int(found.quantize(np.array(0.5)))  # scale 2/15, (0.5 + 1) / scale = 11.25, - 8
        3

    Args:
        fmin: Lower end of the range; a number, or one a channel.
        fmax: Upper end of the range, above `fmin`.
        bits: 2 to 16; integers go from -2^(bits-1) to 2^(bits-1) - 1.

    Raises:
        ValueError: Bits or range are outside their rule.
    """
    check_bits(bits)
    low, high = np.asarray(fmin, np.float64), np.asarray(fmax, np.float64)
    if not (np.isfinite(low).all() and np.isfinite(high).all() and (high > low).all()):
        raise ValueError(f"fmax must be finite and above fmin, got [{fmin}, {fmax}]")
    return Grid((high - low) / (2**bits - 1), low, -(2 ** (bits - 1)), 2 ** (bits - 1) - 1)


def symmetric_grid(x: np.ndarray, bits: int = 8, axis: int | None = None) -> Grid:
    """Returns the grid of a kernel: 0 in the middle, -q and q alike, -2^(bits-1) unused.

    Example:
        >>> symmetric_grid(np.array([-0.5, 1.27])).scale
        array(0.01)

    Args:
        x: The numbers.
        bits: 2 to 16.
        axis: Axis of the channels that get a scale each; None: one for all.
    """
    check_bits(bits)
    axes = None if axis is None else tuple(i for i in range(x.ndim) if i != axis % x.ndim)
    most = np.abs(x).max(axis=axes, keepdims=axis is not None)
    most = np.where(most == 0, 1.0, most)
    steps = 2 ** (bits - 1) - 1
    return Grid(np.asarray(most / steps), np.asarray(-most, np.float64), -steps, steps)


def nudge(
    low: np.ndarray | float, high: np.ndarray | float, bits: int = 8, narrow: bool = False
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns (scale, low, high) with 0 on a step, in float32 as TensorFlow computes them.

    Args:
        low: Lower end, at most 0.
        high: Upper end, at least 0 and above `low`.
        bits: 2 to 16.
        narrow: Whether the lowest integer is left out.
    """
    check_bits(bits)
    low, high = np.asarray(low, np.float32), np.asarray(high, np.float32)
    qmin, qmax = np.float32(1 if narrow else 0), np.float32(2**bits - 1)
    scale = (high - low) / (qmax - qmin)
    zero = np.clip(np.floor(qmin - low / scale + np.float32(0.5)), qmin, qmax)
    return scale, (qmin - zero) * scale, (qmax - zero) * scale


def fake_quantize(
    x: np.ndarray,
    low: np.ndarray | float,
    high: np.ndarray | float,
    bits: int = 8,
    narrow: bool = False,
) -> np.ndarray:
    """Returns numbers as they are after quantization and back, equal to TensorFlow's.

    Example:
        >>> fake_quantize(np.array([0.5]), -1.0, 1.0, bits=4).round(4)
        array([0.5333], dtype=float32)

    Args:
        x: The numbers.
        low: Lower end of the range, at most 0; a number, or one a channel of the last axis.
        high: Upper end of the range, at least 0.
        bits: 2 to 16.
        narrow: Whether the lowest integer is left out, so that -q and q are alike.
    """
    scale, first, last = nudge(low, high, bits, narrow)
    half = np.float32(0.5)
    shifted = np.clip(np.asarray(x, np.float32), first, last) - first
    if scale.ndim == 0:
        zero = np.floor(-first / scale + half)
        return np.floor(shifted / scale - zero + half) * scale
    # TensorFlow's operation a channel multiplies where the one a tensor divides.
    steps = np.float32(2**bits - 1 - int(narrow))
    inverse = steps / (np.asarray(high, np.float32) - np.asarray(low, np.float32))
    zero = np.floor(-first * inverse + half)
    return np.floor(shifted * inverse - zero + half) * scale


def kmeans_quantize(x: np.ndarray, bits: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """Returns a codebook of at most 2^bits numbers, and each number's place in it.

    Example:
        >>> codebook, codes = kmeans_quantize(np.array([0.0, 0.1, 5.0, 5.1]), bits=1)
        >>> codebook.round(2), codes
        (array([0.05, 5.05]), array([0, 0, 1, 1]))

    Args:
        x: The numbers, of any shape.
        bits: 1 to 16.

    Returns:
        The codebook, ascending, and codes in the shape of `x`.

    References:
        Han et al. 2016: initialized linearly over the range, which keeps the few large
        weights.
    """
    if not 1 <= bits <= MOST_BITS:
        raise ValueError(f"bits must be from 1 to {MOST_BITS}, got {bits}")
    flat = np.asarray(x).reshape(-1)
    if not flat.size or not np.isfinite(flat).all():
        raise ValueError(f"x must hold finite numbers, got {flat[:4]!r} of {flat.size}")
    start = np.linspace(flat.min(), flat.max(), 2**bits)
    codebook, codes = kmeans(flat, start)
    return codebook, codes.reshape(np.shape(x))


def check_bits(bits: int) -> None:
    """Raises ValueError unless the number of bits is one that can be quantized to."""
    if isinstance(bits, bool) or not isinstance(bits, int) or not LEAST_BITS <= bits <= MOST_BITS:
        raise ValueError(f"bits must be a whole number from 2 to 16, got {bits!r}")
