"""Quantization of numbers: uniform (a scale and a zero point) and non-uniform (k-means).

Uniform quantization maps the real range [fmin, fmax] to the integers qmin to qmax:

    scale = (fmax - fmin) / (qmax - qmin)                                      (1)
    q = round((x - fmin) / scale) + qmin, clipped to [qmin, qmax]              (2)

Integer arithmetic needs 0.0 to be exactly representable. So for files and for training the
range is widened to include 0, and shifted until 0 falls on a step (:func:`nudge`), as
TensorFlow's `fake_quant_with_min_max_vars` does. :func:`fake_quantize` is bit-exact with that
operation.

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
    """A uniform quantization grid: the real numbers that the integers qmin to qmax stand for.

    Args:
        scale: Distance between two neighboring values; a number, or one for each channel.
        low: The real number that `qmin` stands for; shaped like `scale`.
        qmin: Lowest integer.
        qmax: Highest integer.
    """

    scale: np.ndarray
    low: np.ndarray
    qmin: int
    qmax: int

    def quantize(self, x: np.ndarray) -> np.ndarray:
        """Returns int32 numbers by equation (2). Halves are rounded up, as in TensorFlow."""
        steps = np.floor((np.clip(x, self.low, self.high) - self.low) / self.scale + 0.5)
        return np.clip(steps + self.qmin, self.qmin, self.qmax).astype(np.int32)

    def dequantize(self, q: np.ndarray) -> np.ndarray:
        """Returns the real numbers that quantized integers stand for."""
        return (q - self.qmin) * self.scale + self.low

    @property
    def high(self) -> np.ndarray:
        """The real number that `qmax` stands for."""
        return self.low + self.scale * (self.qmax - self.qmin)


def grid(fmin: float | np.ndarray, fmax: float | np.ndarray, bits: int = 8) -> Grid:
    """Returns the grid of equation (1); 0.0 need not be on it.

    Example:
        >>> grid_ = grid(-1.0, 1.0, bits=4)
        >>> int(grid_.quantize(np.array(0.5)))  # scale 2/15, (0.5 + 1) / scale = 11.25, - 8
        3

    Args:
        fmin: Lower end of the range; a number, or one for each channel.
        fmax: Upper end of the range, above `fmin`.
        bits: 2 to 16; integers go from -2^(bits-1) to 2^(bits-1) - 1.

    Raises:
        ValueError: `bits` is not from 2 to 16, or the range is empty or not finite.
    """
    check_bits(bits)
    low, high = np.asarray(fmin, np.float64), np.asarray(fmax, np.float64)
    if not (np.isfinite(low).all() and np.isfinite(high).all() and (high > low).all()):
        raise ValueError(f"fmax must be finite and above fmin, got [{fmin}, {fmax}]")
    return Grid((high - low) / (2**bits - 1), low, -(2 ** (bits - 1)), 2 ** (bits - 1) - 1)


def symmetric_grid(x: np.ndarray, bits: int = 8, axis: int | None = None) -> Grid:
    """Returns the symmetric grid for a kernel: -qmax to qmax around 0; -2^(bits-1) is unused.

    Example:
        >>> symmetric_grid(np.array([-0.5, 1.27])).scale
        array(0.01)

    Args:
        x: The values to represent, of any shape.
        bits: 2 to 16.
        axis: Axis of the channels, for one scale per channel. None: one scale for all.
    """
    check_bits(bits)
    axes = None if axis is None else tuple(i for i in range(x.ndim) if i != axis % x.ndim)
    largest = np.abs(x).max(axis=axes, keepdims=axis is not None)
    largest = np.where(largest == 0, 1.0, largest)
    qmax = 2 ** (bits - 1) - 1
    return Grid(np.asarray(largest / qmax), np.asarray(-largest, np.float64), -qmax, qmax)


def nudge(
    low: np.ndarray | float, high: np.ndarray | float, bits: int = 8, narrow: bool = False
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Shifts a range until 0.0 falls on a step, in float32 as TensorFlow does.

    Args:
        low: Lower end of the range, at most 0.
        high: Upper end of the range, at least 0 and above `low`.
        bits: 2 to 16.
        narrow: Whether the lowest integer is unused (`narrow_range`).

    Returns:
        (scale, low, high) of the shifted range.
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
    """Quantizes and dequantizes values, bit-exact with TensorFlow's fake quantization.

    Example:
        >>> fake_quantize(np.array([0.5]), -1.0, 1.0, bits=4).round(4)
        array([0.5333], dtype=float32)

    Args:
        x: The values, of any shape.
        low: Lower end of the range, at most 0; a number, or one for each channel of the last
            axis.
        high: Upper end of the range, at least 0.
        bits: 2 to 16.
        narrow: Whether the lowest integer is unused, so that the grid is symmetric.

    Returns:
        float32 values in the shape of `x`.
    """
    scale, first, last = nudge(low, high, bits, narrow)
    half = np.float32(0.5)
    shifted = np.clip(np.asarray(x, np.float32), first, last) - first
    if scale.ndim == 0:
        zero = np.floor(-first / scale + half)
        return np.floor(shifted / scale - zero + half) * scale
    # TensorFlow's per-channel operation multiplies where the per-tensor one divides.
    steps = np.float32(2**bits - 1 - int(narrow))
    inverse = steps / (np.asarray(high, np.float32) - np.asarray(low, np.float32))
    zero = np.floor(-first * inverse + half)
    return np.floor(shifted * inverse - zero + half) * scale


def kmeans_quantize(x: np.ndarray, bits: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """Quantizes values to a codebook of at most 2^bits values, found by k-means.

    Example:
        >>> codebook, codes = kmeans_quantize(np.array([0.0, 0.1, 5.0, 5.1]), bits=1)
        >>> codebook.round(2), codes
        (array([0.05, 5.05]), array([0, 0, 1, 1]))

    Args:
        x: The values, of any shape.
        bits: 1 to 16.

    Returns:
        The codebook in ascending order, and codes (indices into it) in the shape of `x`.

    Raises:
        ValueError: `bits` is not from 1 to 16, or `x` is empty or not finite.

    References:
        Han et al. 2016: centroids are initialized linearly over the range, which preserves
        the few large weights.
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
    """Raises ValueError unless `bits` is an integer from 2 to 16."""
    if isinstance(bits, bool) or not isinstance(bits, int) or not LEAST_BITS <= bits <= MOST_BITS:
        raise ValueError(f"bits must be a whole number from 2 to 16, got {bits!r}")
