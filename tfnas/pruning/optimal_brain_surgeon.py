"""Optimal brain surgeon on one layer: selects weights to prune, and adjusts the others.

A layer that computes `y = W x` (one row of W per output) and is pruned to W' has the error

    E(W') = sum over rows r of  a_r * mean over examples |w'_r x - y_r|^2
          = sum over r of  a_r * (w'_r H w'_r^T - 2 w'_r c_r + mean y_r^2)

with the second moments of its inputs `H = mean x x^T` and `c_r = mean x y_r`. Rows share H
and do not interact, so that for a set S of kept weights the optimum is the solution of the normal
equations (:func:`refit`)

    w'_S = H_SS^{-1} c_S .

From there, removing one more weight j and correcting the others optimally costs

    a_r * w'_j^2 / [H_SS^{-1}]_jj                                                    (1)

(Hassibi and Stork, equation 5). :func:`obs_prune` removes the weights of least cost in a few
rounds, and solves exactly for the kept weights after each round, so that the costs of the next
round are up to date. Each round needs one Cholesky inverse per row; that of the first is shared.

The target y can differ from W x: with x from a network whose earlier layers are pruned and y
from the original network, the layer also corrects errors of the earlier layers. `cross` holds
the moments of that target.

With few examples H is noisy, and so is the optimum. :func:`shrink` moves H toward its diagonal
and the solution toward the original weights.

References:
    Hassibi and Stork, "Second Order Derivatives for Network Pruning: Optimal Brain
    Surgeon", NIPS 1992. Frantar, Singh and Alistarh, "Optimal Brain Compression", NeurIPS 2022.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from scipy.linalg import lapack, solve_triangular


@dataclasses.dataclass(frozen=True, eq=False)
class Pruned:
    """The result of pruning one layer.

    Args:
        weights: (rows, inputs), zero where `keep` is False.
        keep: (rows, inputs), boolean, True for kept weights.
        zeros: Number of removed weights after each round, ascending.
        losses: Increase of E after each round, over that of the optimum without zeros.
    """

    weights: np.ndarray
    keep: np.ndarray
    zeros: tuple[int, ...]
    losses: tuple[float, ...]


def shrink(
    weights: np.ndarray, hessian: np.ndarray, cross: np.ndarray | None, amount: float
) -> tuple[np.ndarray, np.ndarray]:
    """Returns moments that are shrunk toward their diagonal, for layers with few examples.

    `H' = (1 - amount) H + amount diag(H)` and `c' = (1 - amount) c + amount diag(H) w`. With an
    amount of 1 the optimum is the original weights, and the criterion is the magnitude times
    the root-mean-square of the input.

    Args:
        weights: Weights of the layer, (rows, inputs).
        hessian: (inputs, inputs), or (rows, inputs, inputs) with one matrix per row.
        cross: (rows, inputs), mean of input times target. None: `weights @ hessian`.
        amount: In [0, 1].

    Returns:
        The Hessian and the cross moments.

    Raises:
        ValueError: The amount is out of range.

    References:
        Schäfer and Strimmer, "A Shrinkage Approach to Large-Scale Covariance Matrix
        Estimation", 2005, target D (the diagonal).
    """
    if not 0 <= amount <= 1:
        raise ValueError(f"amount must be in [0, 1], got {amount!r}")
    if cross is None:
        cross = times(weights, hessian)
    diagonal = np.diagonal(hessian, axis1=-2, axis2=-1)
    floor = 1e-6 * max(float(diagonal.mean()), 1e-30)
    added = amount * diagonal + np.maximum(floor - diagonal, 0)  # keeps w for constant inputs
    index = np.arange(hessian.shape[-1])
    shrunk = (1 - amount) * hessian
    shrunk[..., index, index] += added
    return shrunk, (1 - amount) * cross + added * weights


def refit(
    weights: np.ndarray, keep: np.ndarray, hessian: np.ndarray, cross: np.ndarray | None = None
) -> np.ndarray:
    """Returns the weights of least error among those that are zero outside `keep`.

    Example:
        >>> h = np.array([[1.0, 0.5], [0.5, 1.0]])
        >>> refit(np.array([[1.0, 1.0]]), np.array([[True, False]]), h)
        array([[1.5, 0. ]])

    Args:
        weights: (rows, inputs), before pruning; the target if `cross` is None.
        keep: (rows, inputs), boolean, True for weights that may be nonzero.
        hessian: (inputs, inputs), or (rows, inputs, inputs) with one matrix per row.
        cross: (rows, inputs), mean of input times target.

    Raises:
        ValueError: Shapes do not match, or the moments of the kept inputs are singular.
    """
    cross = _checked(weights, hessian, cross)
    if keep.shape != weights.shape:
        raise ValueError(f"keep must have the shape {weights.shape}, got {keep.shape}")
    solved = np.zeros_like(cross)
    for rows in _rows_of_one_factor(np.asarray(keep, bool), hessian):
        index = np.flatnonzero(keep[rows[0]])
        if index.size:
            factor = _factor(_moments(hessian, rows[0])[np.ix_(index, index)])
            places = np.ix_(rows, index)
            solved[places] = lapack.dpotrs(factor, cross[places].T, lower=1)[0].T
    return solved


def _rows_of_one_factor(keep: np.ndarray, hessian: np.ndarray) -> list[np.ndarray]:
    """The rows that share their moments and their mask, as those of a layer without channels."""
    if hessian.ndim == 3:
        return [np.array([row]) for row in range(len(keep))]
    packed = np.packbits(keep, axis=1)
    found: dict[bytes, list[int]] = {}
    for row, bits in enumerate(packed):
        found.setdefault(bits.tobytes(), []).append(row)
    return [np.array(rows) for rows in found.values()]


def obs_prune(
    weights: np.ndarray,
    hessian: np.ndarray,
    zeros: int,
    cross: np.ndarray | None = None,
    row_weights: np.ndarray | None = None,
    rounds: int = 4,
) -> Pruned:
    """Removes the weights that change the layer's output least, and refits the others.

    Example:
        >>> pruned = obs_prune(np.array([[2.0, 1.0], [0.1, 3.0]]), np.eye(2), zeros=2)
        >>> pruned.weights
        array([[2., 0.],
               [0., 3.]])

    Args:
        weights: (rows, inputs), before pruning.
        hessian: (inputs, inputs), or (rows, inputs, inputs) with one matrix per row.
        zeros: Number of weights to remove from all rows together.
        cross: (rows, inputs), mean of input times target. None: `weights @ hessian`.
        row_weights: (rows,), weight of each row's squared error. None: 1.
        rounds: Number of rounds; each lowers the number of kept weights by the same factor.

    Returns:
        The refitted weights and the mask, both (rows, inputs), and the loss after each round.

    Raises:
        ValueError: Shapes do not match, `zeros` or `rounds` is out of range, or the moments
            are singular.
    """
    cross = _checked(weights, hessian, cross)
    if not 0 <= zeros <= weights.size:
        raise ValueError(f"zeros must be in [0, {weights.size}], got {zeros!r}")
    if rounds < 1:
        raise ValueError(f"rounds must be at least 1, got {rounds!r}")
    scale = np.ones(len(weights)) if row_weights is None else np.asarray(row_weights, float)
    if scale.shape != (len(weights),):
        raise ValueError(f"row_weights must have the shape {(len(weights),)}, got {scale.shape}")
    start = Start(hessian, cross)
    keep, current, spread = np.ones(weights.shape, bool), start.weights, start.spread
    best = float(scale @ (current * cross).sum(axis=1))
    counts, losses = [], []
    for count in removals(weights.size, zeros, rounds):
        cost = np.where(keep, scale[:, None] * current**2 / spread, -1.0)  # equation (1)
        keep = cheapest(cost, count)
        current, spread = start.without(keep)
        counts.append(count)
        losses.append(best - float(scale @ (current * cross).sum(axis=1)))
    return Pruned(current, keep, tuple(counts), tuple(losses))


def cheapest(cost: np.ndarray, count: int) -> np.ndarray:
    """Returns a boolean array: False for the `count` elements of least cost, True for others.

    Args:
        cost: Cost of each element, of any shape.
        count: Number of elements to select.
    """
    keep = np.ones(cost.shape, bool)
    if count:
        keep.flat[np.argpartition(cost, count - 1, axis=None)[:count]] = False
    return keep


def removals(size: int, zeros: int, rounds: int) -> list[int]:
    """Returns the number of removed weights after each round, ascending up to `zeros`.

    Example:
        >>> removals(100, 75, 2)
        [50, 75]

    Args:
        size: Number of all weights.
        zeros: Number of weights to remove.
        rounds: Number of rounds.
    """
    kept = max(size - zeros, 1) / size
    counts = {round(size * (1 - kept ** (step / rounds))) for step in range(1, rounds)}
    return sorted(count for count in counts | {zeros} if 0 < count <= zeros)


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

    def without(self, keep: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns the optimal weights with the mask `keep`, and diag(H_SS^-1) of each row.

        Args:
            keep: Mask, boolean, (rows, inputs).
        """
        weights, spread = np.zeros_like(self._cross), np.ones_like(self._cross)
        for row, kept in enumerate(keep):
            index, removed = np.flatnonzero(kept), np.flatnonzero(~kept)
            if not index.size:
                continue
            few_removed = removed.size <= index.size
            solve = self._by_removed if few_removed else self._by_kept
            weights[row, index], spread[row, index] = solve(row, index, removed)
        return weights, spread

    def _by_kept(
        self, row: int, index: np.ndarray, removed: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        inverse = inverse_of(_moments(self._hessian, row)[np.ix_(index, index)])
        return inverse @ self._cross[row, index], np.diagonal(inverse)

    def _by_removed(
        self, row: int, index: np.ndarray, removed: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Solves with the removed weights in G = H^-1, which is faster while they are few.

        H_SS^-1 = G_SS - G_SR G_RR^-1 G_RS and w_S = w - G_SR G_RR^-1 w_R.
        """
        inverse, start = _moments(self._inverse, row), self.weights[row]
        if not removed.size:
            return start, np.diagonal(inverse)
        factor = _factor(inverse[np.ix_(removed, removed)])
        right = np.column_stack([inverse[np.ix_(removed, index)], start[removed]])
        half = solve_triangular(factor, right, lower=True, check_finite=False)
        spread = np.diagonal(inverse)[index] - (half[:, :-1] ** 2).sum(axis=0)
        return start[index] - half[:, :-1].T @ half[:, -1], spread


def _moments(hessian: np.ndarray, row: int) -> np.ndarray:
    return hessian if hessian.ndim == 2 else hessian[row]


def _factor(matrix: np.ndarray) -> np.ndarray:
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
    lower = lapack.dpotri(_factor(matrix), lower=1)[0]
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


def check_moments(weights: np.ndarray, hessian: np.ndarray) -> None:
    """Raises ValueError where a Hessian does not fit the weights of a layer.

    Args:
        weights: (rows, inputs).
        hessian: (inputs, inputs), or (rows, inputs, inputs) with one matrix per row.
    """
    rows, inputs = weights.shape
    if hessian.shape not in ((inputs, inputs), (rows, inputs, inputs)):
        raise ValueError(
            f"hessian must have the shape {(inputs, inputs)} or {(rows, inputs, inputs)}, "
            f"got {hessian.shape}"
        )


def _checked(weights: np.ndarray, hessian: np.ndarray, cross: np.ndarray | None) -> np.ndarray:
    """Checks the shapes and returns the cross moments."""
    check_moments(weights, hessian)
    if cross is None:
        return times(np.asarray(weights, np.float64), hessian)
    if cross.shape != weights.shape:
        raise ValueError(f"cross must have the shape {weights.shape}, got {cross.shape}")
    return np.asarray(cross, np.float64)
