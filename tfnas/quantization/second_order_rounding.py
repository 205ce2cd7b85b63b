"""Second-order rounding of one layer: integers whose outputs are closest to the float layer's.

A layer that computes `y = W x` (one row of W per output) and is rounded to W' = s Q, with one scale
s a row and integers Q, has the squared error

    E(W') = mean over examples |W' x' - y|^2
          = sum over rows r of  (w'_r - w*_r) H (w'_r - w*_r)^T + constant                  (1)

with the second moments `H = mean x' x'^T` of its inputs x' in the rounded network and the float
optimum `w*_r = c_r H^-1` of the moments `c_r = mean y_r x'`. So rounding is a quadratic problem in
integers, for each row alone. It is solved in three steps:

1. The scale: the one that clips no weight, and the one of least error of rounding to nearest among
   shares of it, each weight's error weighted by the mean square of its input. The steps below
   start from both; each row takes the better result.
2. GPTQ: the weights are rounded one after the other; the rest is corrected for each error by the
   inverse of H, so that the outputs stay the same as well as they can. A row that was better
   rounded to nearest is taken so.
3. Coordinate descent on (1): each integer is set to its optimum with the others held, and each
   scale to its own (which is linear least squares), until nothing moves. No step raises the error.

References:
    Frantar, Ashkboos, Hoefler and Alistarh, "GPTQ: Accurate Post-Training Quantization for
    Generative Pre-trained Transformers", ICLR 2023 (step 2). Frantar and Alistarh, "Optimal Brain
    Compression", NeurIPS 2022 (the problem). Zhang et al., "COMQ: A Backpropagation-Free
    Algorithm for Post-Training Quantization", 2024 (step 3).
"""

from __future__ import annotations

import dataclasses

import numpy as np
from scipy.linalg import lapack

from tfnas.pruning.input_moments import quadratic
from tfnas.pruning.optimal_brain_surgeon import check_moments, inverse_of, times
from tfnas.quantization.symmetric_grid import (
    largest_integer,
    least_error_scales,
    nearest_integers,
    widest_scales,
)

_SWEEPS = 8  # of coordinate descent; most layers stop moving before


@dataclasses.dataclass(frozen=True, eq=False)
class RoundedRows:
    """Integers and scales of one layer.

    Args:
        integers: (rows, inputs), float64, each a whole number in [-largest, largest].
        scales: (rows,), positive.
    """

    integers: np.ndarray
    scales: np.ndarray

    @property
    def weights(self) -> np.ndarray:
        """The weights that they stand for, (rows, inputs)."""
        return self.integers * self.scales[:, None]


def round_rows(
    weights: np.ndarray,
    hessian: np.ndarray,
    bits: int,
    *,
    keep: np.ndarray | None = None,
    one_scale: bool = False,
    fixed_scales: np.ndarray | None = None,
) -> RoundedRows:
    """Rounds the rows of a layer with least error of its output.

    Example:
        >>> h = np.array([[1.0, 0.9], [0.9, 1.0]])
        >>> rounded = round_rows(np.array([[0.52, 1.48]]), h, bits=8)
        >>> bool(abs(rounded.weights.sum() - 2.0) < 0.02)
        True

    Args:
        weights: The float optimum w* of (1), (rows, inputs).
        hessian: (inputs, inputs), or (rows, inputs, inputs) with one matrix per row; positive
            definite.
        bits: Bits of an integer, 2 to 8; the grid is symmetric.
        keep: (rows, inputs), boolean: False for weights that stay zero. None: all True.
        one_scale: Whether all rows share one scale, as TFLite's formats need it for some layers.
        fixed_scales: (rows,): scales that are kept as they are. None: they are chosen.

    Returns:
        Integers and scales.

    Raises:
        ValueError: Shapes do not match, `bits` is out of range, or the Hessian is singular.
    """
    if not isinstance(bits, int) or not 2 <= bits <= 8:
        raise ValueError(f"bits must be a whole number from 2 to 8, got {bits!r}")
    check_moments(weights, hessian)
    largest = largest_integer(bits)
    weights = np.asarray(weights, np.float64)
    keep = np.ones(weights.shape, bool) if keep is None else np.asarray(keep, bool)
    weights = np.where(keep, weights, 0.0)
    starts = [np.asarray(fixed_scales, np.float64)] if fixed_scales is not None else []
    if not starts:
        diagonal = np.diagonal(hessian, axis1=-2, axis2=-1)
        starts = [
            least_error_scales(weights, diagonal, largest, one_scale),
            widest_scales(weights, largest, one_scale),
        ]
    adjust = fixed_scales is None
    found = [_from_scales(weights, hessian, s, largest, keep, adjust, one_scale) for s in starts]
    return _better_rows(found, weights, hessian, one_scale)


def _from_scales(
    weights: np.ndarray,
    hessian: np.ndarray,
    scales: np.ndarray,
    largest: int,
    keep: np.ndarray,
    adjust: bool,
    one_scale: bool,
) -> RoundedRows:
    """Steps 2 and 3 of the module, from one choice of scales."""
    integers = _start(weights, hessian, scales, largest, keep)
    for _ in range(_SWEEPS):
        integers, moved = _descend(integers, weights, hessian, scales, largest, keep)
        if adjust:
            scales = _best_scales(integers, weights, hessian, scales, one_scale)
        if not moved:
            break
    return RoundedRows(integers, scales)


def _better_rows(
    found: list[RoundedRows], weights: np.ndarray, hessian: np.ndarray, one_scale: bool
) -> RoundedRows:
    """For each row the result of least error; for one scale, the whole result."""
    errors = np.stack([output_error(rows.weights, weights, hessian) for rows in found])
    if one_scale:
        return found[int(errors.sum(axis=1).argmin())]
    best = errors.argmin(axis=0)
    row = np.arange(len(weights))
    return RoundedRows(
        np.stack([rows.integers for rows in found])[best, row],
        np.stack([rows.scales for rows in found])[best, row],
    )


def output_error(weights: np.ndarray, target: np.ndarray, hessian: np.ndarray) -> np.ndarray:
    """Returns the squared error (1) of each row, (rows,).

    Args:
        weights: Rounded weights, (rows, inputs).
        target: The float optimum, (rows, inputs).
        hessian: (inputs, inputs) or (rows, inputs, inputs).
    """
    return quadratic(weights - target, hessian)


def _start(
    weights: np.ndarray, hessian: np.ndarray, scales: np.ndarray, largest: int, keep: np.ndarray
) -> np.ndarray:
    """For each row the better of GPTQ and rounding to nearest."""
    found = [
        nearest_integers(weights, scales[:, None], largest),
        _gptq(weights, hessian, scales, largest, keep),
    ]
    nearest, corrected = (output_error(q * scales[:, None], weights, hessian) for q in found)
    return np.where((corrected < nearest)[:, None], found[1], found[0])


def _gptq(
    weights: np.ndarray, hessian: np.ndarray, scales: np.ndarray, largest: int, keep: np.ndarray
) -> np.ndarray:
    """Rounds input by input, the most important first, and corrects those that follow."""
    if hessian.ndim == 3:
        return _gptq_rows(weights, hessian, scales, largest, keep)
    order = np.argsort(-np.diagonal(hessian), kind="stable")
    upper = _inverse_factor(hessian[np.ix_(order, order)])
    rest, kept = weights[:, order].copy(), keep[:, order]
    integers = np.zeros_like(rest)
    for start in range(0, rest.shape[1], _BLOCK):
        stop = min(start + _BLOCK, rest.shape[1])
        errors = np.zeros((len(rest), stop - start))
        for j in range(start, stop):
            found = nearest_integers(rest[:, j], scales, largest)
            integers[:, j] = np.where(kept[:, j], found, 0.0)
            error = (rest[:, j] - integers[:, j] * scales) / upper[j, j]
            rest[:, j:stop] -= error[:, None] * upper[j, j:stop]
            errors[:, j - start] = error
        rest[:, stop:] -= errors @ upper[start:stop, stop:]
    result = np.empty_like(integers)
    result[:, order] = integers
    return result


def _gptq_rows(
    weights: np.ndarray, hessian: np.ndarray, scales: np.ndarray, largest: int, keep: np.ndarray
) -> np.ndarray:
    """The same for rows with moments of their own, all at once; their inputs are few."""
    upper = np.stack([_inverse_factor(moments) for moments in hessian])
    rest, integers = weights.copy(), np.zeros_like(weights)
    for j in range(rest.shape[1]):
        found = nearest_integers(rest[:, j], scales, largest)
        integers[:, j] = np.where(keep[:, j], found, 0.0)
        error = (rest[:, j] - integers[:, j] * scales) / upper[:, j, j]
        rest[:, j:] -= error[:, None] * upper[:, j, j:]
    return integers


_BLOCK = 64  # inputs whose corrections of later ones are made together


def _descend(
    integers: np.ndarray,
    weights: np.ndarray,
    hessian: np.ndarray,
    scales: np.ndarray,
    largest: int,
    keep: np.ndarray,
) -> tuple[np.ndarray, bool]:
    """One sweep of coordinate descent; returns the integers and whether any moved."""
    integers = integers.copy()
    slope = times(integers * scales[:, None] - weights, hessian)
    moved = False
    for j in range(integers.shape[1]):
        column = hessian[j] if hessian.ndim == 2 else hessian[:, j]
        curvature = column[..., j]
        optimum = integers[:, j] - slope[:, j] / (curvature * scales)
        found = np.where(keep[:, j], nearest_integers(optimum, 1.0, largest), 0.0)
        change = (found - integers[:, j]) * scales
        rows = np.flatnonzero(change)
        if rows.size:
            moved = True
            slope[rows] += change[rows, None] * (column if column.ndim == 1 else column[rows])
            integers[rows, j] = found[rows]
    return integers, moved


def _best_scales(
    integers: np.ndarray,
    weights: np.ndarray,
    hessian: np.ndarray,
    scales: np.ndarray,
    one_scale: bool,
) -> np.ndarray:
    """The scales of least error for these integers; those of rows of zeros stay."""
    turned = times(integers, hessian)
    above, below = (turned * weights).sum(axis=1), (turned * integers).sum(axis=1)
    if one_scale:
        above, below = np.full_like(above, above.sum()), np.full_like(below, below.sum())
    usable = (below > 0) & (above > 0)
    return np.where(usable, above / np.where(usable, below, 1.0), scales)


def _inverse_factor(hessian: np.ndarray) -> np.ndarray:
    """The upper triangular U with H^-1 = U^T U."""
    return np.asarray(lapack.dpotrf(inverse_of(hessian), lower=0, clean=1)[0])
