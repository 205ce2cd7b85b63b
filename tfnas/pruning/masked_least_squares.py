"""Least squares of the rows of a layer, each row with its own zeros.

A row with the mask S has the optimum w_S = H_SS^-1 c_S, so each needs a factorization of its own,
n^3 / 3 operations. Where rows share their moments, conjugate gradients need H only as a product
with all rows at once, some dozen times, which is faster from some hundred inputs on. There the
moments are scaled to a diagonal of 1.

References:
    Meng et al., "ALPS: Improved Optimization for Highly Sparse One-Shot Pruning for Large
    Language Models", NeurIPS 2024 (conjugate gradients under masks).
"""

from __future__ import annotations

import numpy as np
from scipy.linalg import lapack, solve_triangular

_LARGE = 128  # inputs from which on iterations are faster
FEW_ROWS = 128  # that are solved one after the other; the spread of more is that of so many
_TOLERANCE = 1e-5  # of the gradient, relative to that of zeros
_STEPS = 200


class Start:
    """The optimum without zeros, from which the optimum for any mask is computed.

    Args:
        hessian: (inputs, inputs), or (rows, inputs, inputs).
        cross: (rows, inputs).
    """

    def __init__(self, hessian: np.ndarray, cross: np.ndarray) -> None:
        self._hessian, self._cross = hessian, cross
        shared = hessian.ndim == 2
        self._inverse = (
            inverse_of(hessian) if shared else np.stack([inverse_of(h) for h in hessian])
        )
        self.weights = cross @ self._inverse if shared else times(cross, self._inverse)
        diagonal = np.diagonal(self._inverse, axis1=-2, axis2=-1)
        self.spread = np.broadcast_to(diagonal, cross.shape)

    def without(self, keep: np.ndarray, near: np.ndarray | None = None) -> np.ndarray:
        """Returns the optimal weights with a mask, (rows, inputs).

        Args:
            keep: The mask, boolean, (rows, inputs).
            near: Weights that are near the optimum, (rows, inputs). None: those without zeros.
        """
        weights, rows = np.zeros_like(self._cross), np.arange(len(keep))
        if are_many(self._hessian, len(keep)):
            near = self.weights if near is None else near
            weights, rows = solve_masked(self._hessian, self._cross, keep, near)
        for row in rows:
            weights[row, keep[row]] = self._solved(int(row), keep[row])[0]
        return weights

    def spread_without(self, keep: np.ndarray) -> np.ndarray:
        """Returns diag(H_SS^-1) of each row with a mask, (rows, inputs).

        With many inputs it is computed for some rows. For the others each input has the mean of
        these: what it can be replaced by hardly depends on which of a thousand inputs are kept.

        Args:
            keep: The mask, boolean, (rows, inputs).
        """
        rows = np.arange(len(keep))
        if are_many(self._hessian, len(keep)):
            rows = np.random.default_rng(0).permutation(rows)[:FEW_ROWS]
        spread = np.ones(keep.shape)
        for row in rows:
            spread[row, keep[row]] = self._solved(int(row), keep[row])[1]
        return self._completed(spread, keep, rows) if len(rows) < len(keep) else spread

    def _completed(self, spread: np.ndarray, keep: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """The spread of all rows, from that of some."""
        power = np.diagonal(self._hessian)
        known = np.where(keep[rows], spread[rows] * power, 0.0)  # at least 1: 1 is alone
        count = keep[rows].sum(axis=0)
        ratio = known.sum(axis=0) / np.maximum(count, 1)
        ratio = np.where(count > 0, ratio, known.sum() / max(int(count.sum()), 1))
        found = np.broadcast_to(ratio / power, keep.shape).copy()
        found[rows] = spread[rows]
        return found

    def _solved(self, row: int, keep: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The kept weights of one row, and their spread."""
        index, removed = np.flatnonzero(keep), np.flatnonzero(~keep)
        if not index.size:
            return np.zeros(0), np.zeros(0)
        few_removed = removed.size <= index.size
        return (self._by_removed if few_removed else self._by_kept)(row, index, removed)

    def _by_kept(
        self, row: int, index: np.ndarray, removed: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        inverse = inverse_of(moments_of_row(self._hessian, row)[np.ix_(index, index)])
        return inverse @ self._cross[row, index], np.diagonal(inverse)

    def _by_removed(
        self, row: int, index: np.ndarray, removed: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Solves with the removed weights in G = H^-1, which is faster while they are few.

        H_SS^-1 = G_SS - G_SR G_RR^-1 G_RS and w_S = w - G_SR G_RR^-1 w_R.
        """
        inverse, start = moments_of_row(self._inverse, row), self.weights[row]
        if not removed.size:
            return start, np.diagonal(inverse)
        factor = factor_of(inverse[np.ix_(removed, removed)])
        right = np.column_stack([inverse[np.ix_(removed, index)], start[removed]])
        half = solve_triangular(factor, right, lower=True, check_finite=False)
        spread = np.diagonal(inverse)[index] - (half[:, :-1] ** 2).sum(axis=0)
        return start[index] - half[:, :-1].T @ half[:, -1], spread


def are_many(hessian: np.ndarray, rows: int) -> bool:
    """Returns whether rows share their moments, and are so many that iterations are faster.

    Args:
        hessian: (inputs, inputs), or (rows, inputs, inputs) with one matrix per row.
        rows: Number of rows with masks of their own.
    """
    return hessian.ndim == 2 and len(hessian) >= _LARGE and rows > FEW_ROWS


def moments_of_row(hessian: np.ndarray, row: int) -> np.ndarray:
    """Returns the moments of one row, (inputs, inputs).

    Args:
        hessian: (inputs, inputs), or (rows, inputs, inputs) with one matrix per row.
        row: Index of the row.
    """
    return hessian if hessian.ndim == 2 else hessian[row]


def factor_of(matrix: np.ndarray) -> np.ndarray:
    """Returns the lower triangular factor of Cholesky, of a positive definite matrix.

    Args:
        matrix: (inputs, inputs), symmetric.

    Raises:
        ValueError: It is singular.
    """
    factor, info = lapack.dpotrf(matrix, lower=1)
    if info or not np.isfinite(factor[-1, -1]):
        raise ValueError(
            f"hessian must be positive definite, got a singular matrix of shape "
            f"{matrix.shape}: shrink it first"
        )
    return factor


def inverse_of(matrix: np.ndarray) -> np.ndarray:
    """Returns the inverse of a positive definite matrix.

    Args:
        matrix: (inputs, inputs), symmetric.

    Raises:
        ValueError: It is singular.
    """
    lower = lapack.dpotri(factor_of(matrix), lower=1)[0]
    return np.tril(lower) + np.tril(lower, -1).T


def times(weights: np.ndarray, hessian: np.ndarray) -> np.ndarray:
    """Returns w H of each row w, (rows, inputs).

    Args:
        weights: (rows, inputs).
        hessian: (inputs, inputs), or (rows, inputs, inputs) with one matrix per row.
    """
    if hessian.ndim == 2:
        return weights @ hessian
    return np.einsum("ri,rij->rj", weights, hessian)


def solve_masked(
    hessian: np.ndarray, cross: np.ndarray, keep: np.ndarray, start: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the weights of least error outside the zeros, and the rows that were not solved.

    Example:
        >>> h = np.array([[1.0, 0.5], [0.5, 1.0]])
        >>> solve_masked(h, np.array([[1.5, 1.5]]), np.array([[True, False]]), np.zeros((1, 2)))
        (array([[1.5, 0. ]]), array([], dtype=int64))

    Args:
        hessian: Second moments of the inputs, (inputs, inputs), positive definite.
        cross: Moments of inputs and targets, (rows, inputs).
        keep: (rows, inputs), boolean, False for zeros.
        start: Weights to begin with, (rows, inputs).

    Returns:
        The weights, (rows, inputs), and the indices of rows that have not converged.
    """
    scale = 1.0 / np.sqrt(np.diagonal(hessian))
    matrix = (hessian * scale[:, None] * scale).astype(np.float32)
    mask = keep.astype(np.float32)
    target = (cross * scale).astype(np.float32) * mask
    found = (start / scale).astype(np.float32) * mask
    residual = (target - found @ matrix) * mask
    direction = residual.copy()
    square = (residual**2).sum(axis=1)
    least = _TOLERANCE**2 * (target**2).sum(axis=1)
    for _ in range(_STEPS):
        rows = np.flatnonzero(square > least)
        if not rows.size:
            break
        along = direction[rows]
        turned = (along @ matrix) * mask[rows]
        step = square[rows] / (along * turned).sum(axis=1)
        found[rows] += step[:, None] * along
        rest = residual[rows] - step[:, None] * turned
        new = (rest**2).sum(axis=1)
        direction[rows] = rest + (new / square[rows])[:, None] * along
        residual[rows], square[rows] = rest, new
    return found.astype(np.float64) * scale, np.flatnonzero(square > least)
