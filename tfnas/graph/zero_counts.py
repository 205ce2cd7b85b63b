"""Sums of weights and zeros over kernels, for records of a model or of a file."""

from __future__ import annotations

from typing import Protocol


class CountedKernel(Protocol):
    """A kernel whose weights and zeros are counted."""

    @property
    def weights(self) -> int:
        """Number of weights."""

    @property
    def zeros(self) -> int:
        """Number of weights that are exactly zero."""


class ZeroCounts:
    """Mixin of records with a field `kernels`."""

    kernels: tuple[CountedKernel, ...]

    @property
    def weights(self) -> int:
        """Returns the number of weights of all kernels."""
        return sum(kernel.weights for kernel in self.kernels)

    @property
    def zeros(self) -> int:
        """Returns the number of weights that are exactly zero."""
        return sum(kernel.zeros for kernel in self.kernels)

    @property
    def sparsity(self) -> float:
        """Returns the fraction of zeros in all kernels, in [0, 1]."""
        return self.zeros / self.weights if self.weights else 0.0
