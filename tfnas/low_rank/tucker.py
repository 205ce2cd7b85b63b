"""Tucker-2 decomposition: a k x k kernel becomes 1 x 1, a smaller k x k core, and 1 x 1.

The first 1 x 1 reduces the input channels, the last one expands to the output channels. A factor
that would not reduce its channels is left out, so the core with a single 1 x 1 after it (Zhang
2015) or before it is among the options. The starting point is the truncated higher-order SVD:
singular vectors of the kernel unfolded along its inputs and along its outputs. With data,
channels are weighted by their second moments, averaged over the positions of a patch. Given the
first factor, the core and the last one are fitted to the output in closed form (reduced-rank
regression on entire patches; without data a step of HOOI), so that errors are exact. A few steps
of HOOI refine the first factor at the chosen ranks.

References:
    Kim et al., "Compression of Deep Convolutional Neural Networks for Fast and Low Power
    Mobile Applications", ICLR 2016, sections 3.1 and 3.2.
    De Lathauwer et al., "On the best rank-1 and rank-(R1, ..., RN) approximation of
    higher-order tensors", SIAM J. Matrix Anal. 2000: HOOI.
"""

from __future__ import annotations

import numpy as np

from tfnas.low_rank.svd import (
    balanced,
    discarded,
    explained_rows,
    least_squares,
    relative_error,
    root_of,
    weighted,
)

STEPS = 2  # of HOOI

Factors = tuple[np.ndarray | None, np.ndarray, np.ndarray | None]
_Parts = tuple[np.ndarray, np.ndarray, np.ndarray]


class Tucker:
    """All Tucker-2 decompositions of a kernel.

    Example:
        >>> kernel = np.random.default_rng(0).normal(size=(3, 3, 4, 6))
        >>> found = Tucker(kernel)
        >>> found.full, float(found.errors(4)[6].round(12))
        ((4, 6), 0.0)
        >>> [factor.shape for factor in found.factors(2, 3)]
        [(4, 2), (3, 3, 2, 3), (3, 6)]

    Args:
        kernel: (height, width, inputs, outputs).
        moments: Second moments of patches, square of size height * width * inputs; None: white
            inputs.
    """

    def __init__(self, kernel: np.ndarray, moments: np.ndarray | None = None) -> None:
        height, width, inputs, outputs = kernel.shape
        self._size = height, width
        self._kernel = kernel.reshape(height * width, inputs, outputs)
        self._flat = kernel.reshape(-1, outputs)
        self._moments, self._root, self._channels = moments, None, None
        if moments is not None:
            parts = moments.reshape(height * width, inputs, height * width, inputs)
            self._root = root_of(moments)
            self._channels = root_of(np.einsum("pipj->ij", parts) / (height * width))
        self.full = min(inputs, height * width * outputs), min(outputs, height * width * inputs)
        self._basis = self._directions(self._kernel)
        self._explained = self._explain(self._basis)

    def errors(self, first: int) -> np.ndarray:
        """Returns the errors of the ranks (first, r), for r from 0 to `full[1]`.

        They are upper bounds for the factors of :meth:`factors`.

        Args:
            first: Channels after the first factor, from 1 to `full[0]`.
        """
        rows = self._rows(self._explained, first)
        gram = rows.T @ rows
        energies = np.maximum(np.linalg.eigvalsh(gram)[::-1][: self.full[1]], 0.0)
        total = float(np.sum(weighted(self._root, self._flat) ** 2))
        if total <= 0:
            return np.zeros(self.full[1] + 1)
        missed = max(total - float(energies.sum()), 0.0)
        explained = float(energies.sum()) / total
        return np.minimum(discarded(energies) * explained + missed / total, 1.0)

    def factors(self, first: int, last: int) -> Factors:
        """Returns (inputs, first), (height, width, first, last) and (last, outputs).

        A 1 x 1 factor that would not reduce its channels is None: it is merged into the core.

        Args:
            first: Channels after the first factor, from 1 to `full[0]`.
            last: Channels before the last factor, from 1 to `full[1]`.
        """
        basis, explained = self._basis, self._explained
        best_error, best = np.inf, None
        for _ in range(STEPS + 1):
            # The output directions that the first factor explains best ...
            right = _right_vectors(self._rows(explained, first), last)
            factors = self._fitted(basis[:, :first], right)
            error = relative_error(self._flat, self._joined(factors), self._moments)
            if error < best_error:
                best_error, best = error, factors
            if first > len(self._kernel) * last:  # these directions span fewer dimensions
                break
            # ... and the first factor that explains these directions best.
            basis = self._directions(self._kernel @ right.T)[:, :first]
            explained = self._explain(basis)
        assert best is not None
        return self._balanced(*best)

    def _directions(self, kernel: np.ndarray) -> np.ndarray:
        """Input directions of a kernel, by descending energy."""
        unfolded = kernel.transpose(1, 0, 2).reshape(kernel.shape[1], -1)
        rank = min(unfolded.shape)
        basis = unfolded @ _right_vectors(weighted(self._channels, unfolded), rank).T
        return np.linalg.qr(basis)[0]

    def _explain(self, basis: np.ndarray) -> np.ndarray:
        if self._root is None:  # the same as below for an identity
            rows = np.einsum("ir,pio->rpo", basis, self._kernel, optimize=True)
            return rows.reshape(-1, self._flat.shape[1])
        return explained_rows(self._root, self._reduction(basis), self._flat)

    def _rows(self, explained: np.ndarray, first: int) -> np.ndarray:
        return explained[: first * len(self._kernel)]

    def _reduction(self, basis: np.ndarray) -> np.ndarray:
        """The matrix that maps a patch to (reduced, positions): the first factor at each one."""
        spread = np.einsum("ir,pq->pirq", basis, np.eye(len(self._kernel)))
        return spread.reshape(self._flat.shape[0], -1)

    def _fitted(self, basis: np.ndarray, right: np.ndarray) -> _Parts:
        """All factors, with the core fitted to the first and last one."""
        if self._root is None:
            core = np.einsum("ir,pio,so->rps", basis, self._kernel, right, optimize=True)
        else:
            core = least_squares(self._root, self._reduction(basis), self._flat @ right.T)
        return basis, core.reshape(basis.shape[1], -1, len(right)).swapaxes(0, 1), right

    def _joined(self, factors: _Parts) -> np.ndarray:
        joined = np.einsum("ir,prs,so->pio", *factors, optimize=True)
        return joined.reshape(self._flat.shape)

    def _balanced(self, first: np.ndarray, core: np.ndarray, last: np.ndarray) -> Factors:
        """Balances the factors' norms; merges factors that reduce nothing into the core."""
        inputs, outputs = self._kernel.shape[1:]
        head: np.ndarray | None = None
        tail: np.ndarray | None = None
        if first.shape[1] == inputs:
            core = np.einsum("ir,prs->pis", first, core)
        else:
            unfolded = core.swapaxes(0, 1)
            head, scaled = balanced(first, unfolded.reshape(len(unfolded), -1))
            core = scaled.reshape(unfolded.shape).swapaxes(0, 1)
        if len(last) == outputs:
            core = core @ last
        else:
            scaled, tail = balanced(core.reshape(-1, core.shape[-1]), last)
            core = scaled.reshape(core.shape)
        return head, core.reshape(*self._size, *core.shape[1:]), tail


def _right_vectors(matrix: np.ndarray, count: int) -> np.ndarray:
    """The first right singular vectors of a matrix, (count, columns)."""
    return np.linalg.svd(matrix, full_matrices=len(matrix) < count)[2][:count]
