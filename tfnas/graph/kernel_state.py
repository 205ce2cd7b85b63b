"""What was done to a kernel, as its numbers say: zeros, shared values, multiples of a step."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tfnas.graph.layer_kernels import model_kernels

if TYPE_CHECKING:
    import keras

MIN_WEIGHTS = 64  # smaller kernels are not judged
MIN_ZEROS = 0.1  # fraction of zeros of a pruned kernel; training alone leaves some zeros too
MAX_VALUES = 256  # shared values of a clustered kernel: more do not fit into 8 bits
_GRID_ERROR = 2e-3  # largest distance from a multiple of the step, in steps
_MIN_STEPS = 32  # fewer values may be clusters
_BY_CHANCE = 3 * MAX_VALUES  # see `_expected_repeats`


def shares_values(kernel: np.ndarray) -> bool:
    """Whether the nonzero weights have few distinct values, in the kernel or in each channel.

    Few means at most 256, each shared by at least two weights on average: the rule of
    :func:`tfnas.keep_clusters`.

    Example:
        >>> shares_values(np.tile([0.1, 0.2], (40, 1)))
        True
    """
    nonzero = kernel[kernel != 0]
    values = len(np.unique(nonzero))
    if nonzero.size < MIN_WEIGHTS or not 1 < values <= nonzero.size // 2:
        return False
    if values <= MAX_VALUES:
        return True
    # The channel axis is the last one, in transposed and depthwise kernels the one before.
    axes = range(max(0, kernel.ndim - 2), kernel.ndim) if kernel.ndim > 1 else ()
    return any(_channels_have_few(kernel, axis) for axis in axes)


def kernel_compression(kernel: np.ndarray) -> str:
    """Returns how a kernel is compressed, which training may undo: "clusters", "zeros" or "".

    Example:
        >>> kernel_compression(np.tile([0.1, 0.2], (40, 1))), kernel_compression(np.ones((8, 8)))
        ('clusters', '')
    """
    if kernel.dtype.itemsize < 4:
        return ""  # half precision has few distinct values anyway
    if holds_8_bit_numbers(kernel):
        return ""  # rounded for a file; nobody chose these values and zeros
    return "clusters" if shares_values(kernel) else "zeros" if is_pruned(kernel) else ""


def holds_8_bit_numbers(kernel: np.ndarray) -> bool:
    """Whether weights are multiples of a step, as those that were read from an 8-bit file.

    The step is that of the kernel or of each output channel. A kernel with more zeros than rounding
    leaves is pruned, too; it does not count.

    Example:
        >>> weights = np.random.default_rng(0).normal(size=(64, 8))
        >>> step = np.abs(weights).max(axis=0) / 127
        >>> holds_8_bit_numbers(weights), holds_8_bit_numbers(np.round(weights / step) * step)
        (False, True)

    Args:
        kernel: Weights, output channels last or, in transposed and depthwise kernels, last but one.
    """
    if kernel.size < MIN_WEIGHTS:
        return False
    groupings = [kernel.reshape(1, -1)]
    if kernel.ndim > 1:
        groupings += [_channels(kernel, axis) for axis in (-1, -2)]
        groupings.append(kernel.reshape(-1, kernel.shape[-1] * kernel.shape[-2]).T)
    return any(_are_multiples(np.asarray(groups, np.float64)) for groups in groupings)


def _are_multiples(groups: np.ndarray) -> bool:
    """Whether each row of (groups, weights) holds whole multiples of a step, of many values."""
    largest = np.abs(groups).max(axis=1, keepdims=True)
    scaled = np.divide(groups, largest, where=largest > 0, out=np.zeros_like(groups)) * 127
    whole = np.round(scaled)
    if np.abs(scaled - whole).max() > _GRID_ERROR or len(np.unique(whole)) <= _MIN_STEPS:
        return False
    zeros, beside = (whole == 0).sum(), (np.abs(whole) == 1).sum()
    # Rounding leaves about half as many zeros as weights of one step.
    return bool(zeros - groups[largest[:, 0] == 0].size <= beside + MIN_ZEROS * whole.size)


def model_compression(model: keras.Model) -> set[str]:
    """Returns how the kernels of a model are compressed; see :func:`kernel_compression`."""
    return {kernel_compression(kernel.numpy()) for kernel in model_kernels(model)[0]} - {""}


def channels_share_values(kernel: np.ndarray) -> bool:
    """Whether the channels of a kernel share the same few values.

    This compares the distinct values of the channels. After clustering by channel, or without
    clustering, hardly any value occurs in two channels, even in small kernels.

    Example:
        >>> channels_share_values(np.tile([0.1, 0.2], (40, 1)))
        False
        >>> channels_share_values(np.tile([[0.1, 0.2], [0.2, 0.1]], (20, 1)))
        True
    """
    values = len(np.unique(kernel[kernel != 0]))
    if not 1 < values <= MAX_VALUES:
        return False
    per_channel = sum(len(np.unique(channel[channel != 0])) for channel in _channels(kernel, -1))
    return per_channel - values > _expected_repeats(per_channel)


def _expected_repeats(size: int) -> float:
    """Upper bound of the number of unclustered weights that equal another one by chance.

    There are none in float32. Rounded to bfloat16, one pair in 1,500 is equal: with at most
    `MAX_VALUES` values less than a third of all, so that the bound has a margin.
    """
    return size * min(size, MAX_VALUES) / _BY_CHANCE


def _channels_have_few(kernel: np.ndarray, axis: int) -> bool:
    """Whether each channel has few distinct values."""
    counts = [len(np.unique(channel[channel != 0])) for channel in _channels(kernel, axis)]
    return bool(max(counts) <= MAX_VALUES and 1 < sum(counts) <= np.count_nonzero(kernel) // 2)


def _channels(kernel: np.ndarray, axis: int) -> np.ndarray:
    return np.moveaxis(kernel, axis, 0).reshape(kernel.shape[axis], -1)


def is_pruned(kernel: np.ndarray) -> bool:
    """Whether single weights are zero; rows and columns of zeros alone do not count.

    Example:
        >>> is_pruned(np.eye(8)), is_pruned(np.diag([1.0] * 4 + [0.0] * 4)[:, :4] + 1)
        (True, False)
    """
    matrix = kernel.reshape(-1, kernel.shape[-1]) if kernel.ndim > 1 else kernel[:, None]
    zeros = matrix == 0
    used = ~zeros.all(axis=1)[:, None] & ~zeros.all(axis=0)[None, :]
    return bool(kernel.size >= MIN_WEIGHTS and zeros[used].sum() > MIN_ZEROS * max(1, used.sum()))
