"""Truncated singular value decompositions of kernels, optionally weighted by data.

The best approximation of a matrix at a given rank keeps the largest singular values, and its
squared error is the sum of the discarded squares (Eckart-Young). That is the output error of a
layer y = x K only if inputs are white. With second moments C = E x^T x of the inputs, the expected
squared error of the output is tr (K - K')^T C (K - K') = |R (K - K')|^2, where R^T R = C. The best
K' of a rank is then K V V^T, where V holds the first right singular vectors of R K. This form
needs no inverse, so that C may be singular. Errors are relative: fractions of the squared kernel,
or of the squared output.

References:
    Eckart and Young, "The approximation of one matrix by another of lower rank", 1936.
    Zhang et al., "Accelerating Very Deep Convolutional Networks for Classification and
    Detection", TPAMI 2015, sections 2.2 and 2.3: the output's error; k x 1 then 1 x k.
    Jaderberg et al., "Speeding up Convolutional Neural Networks with Low Rank Expansions",
    BMVC 2014, scheme 2.
"""

from __future__ import annotations

import numpy as np

RIDGE = 1e-8  # of the mean second moment: orders directions that never occur


def root_of(moments: np.ndarray) -> np.ndarray:
    """Returns a square root R of second moments C: R^T R = C plus a tiny ridge.

    Example:
        >>> root_of(np.diag([4.0, 9.0])).round(3).tolist()
        [[2.0, 0.0], [0.0, 3.0]]

    Args:
        moments: C, (inputs, inputs), symmetric with no negative eigenvalue.

    Returns:
        R, (inputs, inputs), upper triangular; the identity where the moments are all zero.

    Raises:
        numpy.linalg.LinAlgError: An eigenvalue is negative.
    """
    level = np.trace(moments) / len(moments)
    if level <= 0:
        return np.eye(len(moments))
    return np.linalg.cholesky(moments + RIDGE * level * np.eye(len(moments))).T


def weighted(root: np.ndarray | None, matrix: np.ndarray) -> np.ndarray:
    """Returns the product of R and a matrix; the matrix itself without R (white inputs).

    Args:
        root: R, (inputs, inputs), see :func:`root_of`; None: the identity.
        matrix: A matrix, (inputs, columns).
    """
    return matrix if root is None else root @ matrix


def relative_error(
    kernel: np.ndarray, other: np.ndarray, moments: np.ndarray | None = None
) -> float:
    """Returns tr (K - K')^T C (K - K') / tr K^T C K; 0 where the denominator is 0.

    Example:
        >>> relative_error(np.eye(2), np.diag([1.0, 0.0]))
        0.5

    Args:
        kernel: K, (inputs, outputs).
        other: K', of the same shape.
        moments: Second moments C of the inputs; None: white inputs.
    """
    total, error = (
        float(np.sum(part * weighted(moments, part))) for part in (kernel, kernel - other)
    )
    return max(error, 0.0) / total if total > 0 else 0.0


class Svd:
    """All truncated singular value decompositions of a kernel.

    `errors[r]` is the error at rank r, from 0 to the full rank.

    Example:
        >>> kernel = np.diag([2.0, 1.0])
        >>> Svd(kernel).errors.tolist(), Svd(kernel, np.diag([1.0, 8.0])).errors.round(3).tolist()
        ([1.0, 0.2, 0.0], [1.0, 0.333, 0.0])
        >>> left, right = Svd(kernel, np.diag([1.0, 8.0])).factors(1)
        >>> (left @ right).round(6).tolist()
        [[0.0, 0.0], [0.0, 1.0]]

    Args:
        kernel: K, (inputs, outputs).
        moments: Second moments C of the inputs, (inputs, inputs); None: white inputs.
    """

    def __init__(self, kernel: np.ndarray, moments: np.ndarray | None = None) -> None:
        self._kernel = kernel
        root = None if moments is None else root_of(moments)
        _, singular, self._right = np.linalg.svd(weighted(root, kernel), full_matrices=False)
        self.errors = discarded(singular**2)
        self.full = len(singular)

    def factors(self, rank: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns factors (inputs, rank) and (rank, outputs) whose product is optimal.

        Args:
            rank: From 1 to `full`.
        """
        right = self._right[:rank]
        return balanced(self._kernel @ right.T, right)


class Spatial:
    """All decompositions of a k x k kernel into k x 1 and then 1 x k.

    This decomposes the kernel as a matrix (kernel row, input) x (kernel column, output). With data,
    its rows are weighted by the second moments of a column of a patch, averaged over the columns,
    and the second factor is then fitted to the output by least squares on entire patches.

    Example:
        >>> found = Spatial(np.ones((3, 3, 4, 5)))
        >>> found.full, float(found.errors[1].round(12))
        (12, 0.0)
        >>> [factor.shape for factor in found.factors(2)]
        [(3, 1, 4, 2), (1, 3, 2, 5)]

    Args:
        kernel: (height, width, inputs, outputs).
        moments: Second moments of patches, square of size height * width * inputs; None: white
            inputs.
    """

    def __init__(self, kernel: np.ndarray, moments: np.ndarray | None = None) -> None:
        height, width, inputs, outputs = self._shape = kernel.shape
        self._matrix = kernel.transpose(0, 2, 1, 3).reshape(height * inputs, width * outputs)
        self._flat = kernel.reshape(-1, outputs)
        self._root = None if moments is None else root_of(moments)
        column = None
        if moments is not None:
            parts = moments.reshape(height, width, inputs, height, width, inputs)
            column = np.einsum("awibwj->aibj", parts).reshape(height * inputs, -1) / width
        root = None if column is None else root_of(column)
        _, singular, self._right = np.linalg.svd(weighted(root, self._matrix), full_matrices=False)
        self.full = len(singular)
        self.errors = discarded(singular**2) if self._root is None else self._fitted_errors()

    def factors(self, rank: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns (height, 1, inputs, rank) and (1, width, rank, outputs).

        Args:
            rank: From 1 to `full`.
        """
        height, width, inputs, outputs = self._shape
        right = self._right[:rank]
        left = self._matrix @ right.T
        if self._root is not None:
            fitted = least_squares(self._root, self._reduction(left), self._flat)
            right = fitted.reshape(rank, width * outputs)
        left, right = balanced(left, right)
        vertical = left.reshape(height, 1, inputs, rank)
        return vertical, right.reshape(rank, width, outputs).swapaxes(0, 1)[None]

    def _reduction(self, left: np.ndarray) -> np.ndarray:
        """The matrix that maps a patch to (rank, width): the first factor at each column."""
        height, width, inputs, _ = self._shape
        first = left.reshape(height, inputs, -1)
        spread = np.einsum("air,wv->awirv", first, np.eye(width))
        return spread.reshape(height * width * inputs, -1)

    def _fitted_errors(self) -> np.ndarray:
        reduction = self._reduction(self._matrix @ self._right.T)
        explained = explained_rows(self._root, reduction, self._flat) ** 2
        width = self._shape[1]
        return unexplained(explained.sum(axis=1).reshape(-1, width).sum(axis=1))


def discarded(energies: np.ndarray) -> np.ndarray:
    """Returns the fraction lost when the first r energies are kept, for each r from 0.

    Example:
        >>> discarded(np.array([3.0, 1.0])).tolist()
        [1.0, 0.25, 0.0]

    Args:
        energies: Squared singular values, in descending order.
    """
    tails = np.concatenate([np.cumsum(energies[::-1])[::-1], [0.0]])
    return tails / tails[0] if tails[0] > 0 else np.zeros(len(tails))


def unexplained(explained: np.ndarray) -> np.ndarray:
    """Returns the same as :func:`discarded`, for energies in any order.

    Args:
        explained: Squared singular values or energies, in any order.
    """
    return np.minimum.accumulate(np.maximum(discarded(explained), 0.0))


def explained_rows(
    root: np.ndarray | None, reduction: np.ndarray, kernel: np.ndarray
) -> np.ndarray:
    """Returns rows whose squares are the output energy that each column of a reduction explains.

    The best linear map from the first n columns explains the sum of squares of the first n rows:
    the columns are orthonormalized in order.

    Args:
        root: R, see :func:`root_of`.
        reduction: M, (inputs, reduced).
        kernel: K, (inputs, outputs).
    """
    basis, _ = np.linalg.qr(weighted(root, reduction))
    return basis.T @ weighted(root, kernel)


def least_squares(root: np.ndarray | None, reduction: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """Returns the Z that minimizes |R (M Z - K)|^2; see :func:`explained_rows`.

    Args:
        root: R, (inputs, inputs); None: the identity.
        reduction: M, (inputs, columns).
        kernel: K, (inputs, outputs).
    """
    return np.linalg.lstsq(weighted(root, reduction), weighted(root, kernel), rcond=None)[0]


def balanced(left: np.ndarray, right: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Scales two factors so that corresponding columns and rows have equal norms.

    The product stays the same, and the gradients of both factors get similar sizes.

    Example:
        >>> left, right = balanced(np.array([[8.0]]), np.array([[2.0]]))
        >>> left.item(), right.item()
        (4.0, 4.0)

    Args:
        left: (n, rank).
        right: (rank, m).

    Returns:
        The scaled factors, of the same shapes.
    """
    columns, rows = np.linalg.norm(left, axis=0), np.linalg.norm(right, axis=1)
    usable = (columns > 0) & (rows > 0)
    scale = np.sqrt(np.where(usable, rows, 1.0) / np.where(usable, columns, 1.0))
    return left * scale, right / scale[:, None]
