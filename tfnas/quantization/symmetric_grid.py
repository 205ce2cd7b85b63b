"""A symmetric grid of integers with one scale per row, and rounding to nearest on it."""

from __future__ import annotations

import numpy as np

_SHARES = np.linspace(1.0, 0.3, 36)  # of the largest weight, for the scale


def largest_integer(bits: int) -> int:
    """Returns the largest integer of a symmetric grid of 2^bits - 1 steps.

    Args:
        bits: Bits of an integer.
    """
    return int(2 ** (bits - 1) - 1)


def nearest_integers(values: np.ndarray, scales: np.ndarray | float, largest: int) -> np.ndarray:
    """Returns the integers of a grid that are nearest to values, as floats.

    Example:
        >>> nearest_integers(np.array([0.9, -5.2, 0.1]), 0.5, largest=7)
        array([ 2., -7.,  0.])

    Args:
        values: Values, of any shape.
        scales: Steps of the grid, positive; broadcast to `values`.
        largest: The largest integer of the grid; values beyond are clipped.
    """
    return np.asarray(np.clip(np.rint(values / scales), -largest, largest))


def widest_scales(weights: np.ndarray, largest: int, one_scale: bool = False) -> np.ndarray:
    """Returns the scales that clip no weight, (rows,).

    Args:
        weights: (rows, inputs).
        largest: The largest integer of the grid.
        one_scale: Whether all rows share one scale.
    """
    ends = np.abs(weights).max(axis=1)
    if one_scale:
        ends = np.full_like(ends, ends.max())
    return np.where(ends > 0, ends, 1.0) / largest


def least_error_scales(
    weights: np.ndarray, importance: np.ndarray, largest: int, one_scale: bool = False
) -> np.ndarray:
    """Returns the scales of least weighted error of rounding to nearest, (rows,).

    Args:
        weights: (rows, inputs).
        importance: Weight of each squared error, (inputs,) or (rows, inputs).
        largest: The largest integer of the grid.
        one_scale: Whether all rows share one scale.
    """
    widest = widest_scales(weights, largest, one_scale)
    best, least = widest, np.full(len(widest), np.inf)
    for share in _SHARES:
        scales = widest * share
        change = nearest_values(weights, scales, largest) - weights
        errors = (importance * change**2).sum(axis=1)
        if one_scale:
            errors = np.full_like(errors, errors.sum())
        best, least = np.where(errors < least, scales, best), np.minimum(errors, least)
    return best


def nearest_values(weights: np.ndarray, scales: np.ndarray, largest: int) -> np.ndarray:
    """Returns the values of the grid that are nearest to weights, (rows, inputs).

    Args:
        weights: (rows, inputs).
        scales: (rows,), positive.
        largest: The largest integer of the grid.
    """
    steps = scales[:, None]
    return np.asarray(nearest_integers(weights, steps, largest) * steps)
