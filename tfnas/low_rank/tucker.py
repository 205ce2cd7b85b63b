"""Tucker-2: a k x k kernel as 1 x 1, a smaller k x k core, and 1 x 1.

The first 1 x 1 maps the input's channels to fewer, the last one maps few to the output's; a
reduction that reduces nothing is left out, so that a core alone with a 1 x 1 behind it (Zhang
2015) or before it is one of the choices. The starting point is the truncated higher-order SVD:
singular vectors of the kernel unfolded along its inputs and along its outputs. With data,
channels are weighted by their second moments on average over the positions of a patch. Given
the first factor, the core and the last one are then fitted to the output in closed form
(reduced-rank regression on whole patches; without data a step of HOOI), so that errors are
exact. A few steps of HOOI refine the first factor at the ranks that are wanted.

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
        moments: Second moments of patches, (height * width * inputs,) twice; None: white.
    """

    def __init__(self, kernel: np.ndarray, moments: np.ndarray | None = None) -> None:
        high, wide, inputs, outputs = kernel.shape
        self._size = high, wide
        self._kernel = kernel.reshape(high * wide, inputs, outputs)
        self._flat = kernel.reshape(-1, outputs)
        self._moments, self._root, self._channels = moments, None, None
        if moments is not None:
            parts = moments.reshape(high * wide, inputs, high * wide, inputs)
            self._root = root_of(moments)
            self._channels = root_of(np.einsum("pipj->ij", parts) / (high * wide))
        self.full = min(inputs, high * wide * outputs), min(outputs, high * wide * inputs)
        self._basis = self._directions(self._kernel)
        self._explained = self._explain(self._basis)

    def errors(self, first: int) -> np.ndarray:
        """Returns the error of the ranks (first, r), r from 0 to `full[1]`.

        The factors of :meth:`factors` have no more.

        Args:
            first: Channels behind the first factor, from 1 to `full[0]`.
        """
        rows = self._rows(self._explained, first)
        gram = rows.T @ rows
        energies = np.maximum(np.linalg.eigvalsh(gram)[::-1][: self.full[1]], 0.0)
        whole = float(np.sum(weighted(self._root, self._flat) ** 2))
        if whole <= 0:
            return np.zeros(self.full[1] + 1)
        missed = max(whole - float(energies.sum()), 0.0)
        share = float(energies.sum()) / whole
        return np.minimum(discarded(energies) * share + missed / whole, 1.0)

    def factors(self, first: int, last: int) -> Factors:
        """Returns (inputs, first), (height, width, first, last) and (last, outputs).

        One that would reduce nothing is None, and the core has taken it up.

        Args:
            first: Channels behind the first factor, from 1 to `full[0]`.
            last: Channels before the last one, from 1 to `full[1]`.
        """
        basis, explained = self._basis, self._explained
        least, best = np.inf, None
        for _ in range(STEPS + 1):
            # The directions of the output that the first factor serves best ...
            right = _right_vectors(self._rows(explained, first), last)
            found = self._fitted(basis[:, :first], right)
            error = relative_error(self._flat, self._joined(found), self._moments)
            if error < least:
                least, best = error, found
            if first > len(self._kernel) * last:  # more than these directions can use
                break
            # ... and the first factor that serves these directions best.
            basis = self._directions(self._kernel @ right.T)[:, :first]
            explained = self._explain(basis)
        assert best is not None
        return self._shared_out(*best)

    def _directions(self, kernel: np.ndarray) -> np.ndarray:
        """Directions of the inputs that a kernel uses, the most used first."""
        unfolded = kernel.transpose(1, 0, 2).reshape(kernel.shape[1], -1)
        rank = min(unfolded.shape)
        basis = unfolded @ _right_vectors(weighted(self._channels, unfolded), rank).T
        return np.linalg.qr(basis)[0]

    def _explain(self, basis: np.ndarray) -> np.ndarray:
        if self._root is None:  # what follows, of an identity
            turned = np.einsum("ir,pio->rpo", basis, self._kernel, optimize=True)
            return turned.reshape(-1, self._flat.shape[1])
        return explained_rows(self._root, self._reduction(basis), self._flat)

    def _rows(self, explained: np.ndarray, first: int) -> np.ndarray:
        return explained[: first * len(self._kernel)]

    def _reduction(self, basis: np.ndarray) -> np.ndarray:
        """What maps a patch to (reduced, positions): the first factor at each position."""
        spread = np.einsum("ir,pq->pirq", basis, np.eye(len(self._kernel)))
        return spread.reshape(self._flat.shape[0], -1)

    def _fitted(self, basis: np.ndarray, right: np.ndarray) -> _Parts:
        """The factors, the core fitted to the others."""
        if self._root is None:
            core = np.einsum("ir,pio,so->rps", basis, self._kernel, right, optimize=True)
        else:
            core = least_squares(self._root, self._reduction(basis), self._flat @ right.T)
        return basis, core.reshape(basis.shape[1], -1, len(right)).swapaxes(0, 1), right

    def _joined(self, factors: _Parts) -> np.ndarray:
        joined = np.einsum("ir,prs,so->pio", *factors, optimize=True)
        return joined.reshape(self._flat.shape)

    def _shared_out(self, first: np.ndarray, core: np.ndarray, last: np.ndarray) -> Factors:
        """Factors of one scale; what reduces nothing goes into the core."""
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
    """The first right singular vectors, (count, columns)."""
    return np.linalg.svd(matrix, full_matrices=len(matrix) < count)[2][:count]
