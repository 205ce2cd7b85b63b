"""The options of each layer: methods and ranks, with their MACs and errors."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from functools import cached_property, reduce

import numpy as np

from tfnas.low_rank.factorizable_layers import FactorizableLayer
from tfnas.low_rank.svd import Spatial, Svd, relative_error
from tfnas.low_rank.tucker import Tucker

FIRST_RANKS = 32  # of Tucker-2 that are tried, at most


@dataclasses.dataclass(frozen=True)
class Option:
    """One way to replace a layer.

    Args:
        method: "svd", "spatial" or "tucker".
        ranks: One rank, or two for "tucker".
        macs: Multiply-accumulates per example over all uses.
        error: Fraction of the squared output (without data, of the squared kernel) that is lost.
    """

    method: str
    ranks: tuple[int, ...]
    macs: int
    error: float

    @property
    def loss(self) -> float:
        """Returns -log of the kept fraction: these losses add up over layers (Zhang 2015)."""
        return -math.log(max(1.0 - self.error, 1e-12))


def joined_kernel(kernels: Sequence[np.ndarray]) -> np.ndarray:
    """Returns the kernel that equals a sequence of factors, (height, width, inputs, outputs).

    Args:
        kernels: The factors' kernels, in order; along each axis at most one is longer than 1.
    """
    return reduce(np.matmul, kernels)


class Options:
    """All options of a layer; decompositions are computed when they are first needed.

    Args:
        unit: The layer.
        moments: Second moments of its patches (inputs, inputs), for choosing factors; None:
            the identity (white inputs).
        measured: Second moments for computing errors; None: the same.
    """

    def __init__(
        self,
        unit: FactorizableLayer,
        moments: np.ndarray | None = None,
        measured: np.ndarray | None = None,
    ) -> None:
        self.unit, self.moments = unit, moments
        self._measured = moments if measured is None else measured

    @cached_property
    def svd(self) -> Svd:
        """Returns the decompositions of a 1 x 1 kernel."""
        return Svd(self.unit.flat, self.moments)

    @cached_property
    def spatial(self) -> Spatial:
        """Returns the decompositions into k x 1 and 1 x k."""
        return Spatial(self.unit.kernel, self.moments)

    @cached_property
    def tucker(self) -> Tucker:
        """Returns the decompositions into 1 x 1, core and 1 x 1."""
        return Tucker(self.unit.kernel, self.moments)

    def kernels(self, option: Option) -> tuple[np.ndarray, ...]:
        """Returns an option's kernels, in order, each (height, width, inputs, outputs).

        Args:
            option: An option of this layer.
        """
        if option.method == "spatial":
            return self.spatial.factors(*option.ranks)
        if option.method == "svd":
            left, right = self.svd.factors(*option.ranks)
            return left[None, None], right[None, None]
        head, core, tail = self.tucker.factors(*option.ranks)
        first, last = (None if part is None else part[None, None] for part in (head, tail))
        return tuple(part for part in (first, core, last) if part is not None)

    def error(self, kernels: Sequence[np.ndarray]) -> float:
        """Returns the fraction of the squared output (or kernel) that factors lose.

        Args:
            kernels: The factors' kernels, in order.
        """
        joined = joined_kernel(kernels).reshape(self.unit.flat.shape)
        return relative_error(self.unit.flat, joined, self._measured)

    def cheapest_within(self, max_error: float) -> Option | None:
        """Returns the cheapest of the best options whose exact error is at most `max_error`.

        Exact errors fall along the options, so this is a binary search.

        Args:
            max_error: Largest error, as a fraction in [0, 1].
        """
        low, high = 0, len(self.best)
        while low < high:
            middle = (low + high) // 2
            if self.error(self.kernels(self.best[middle])) <= max_error:
                high = middle
            else:
                low = middle + 1
        return self.best[low] if low < len(self.best) else None

    def full(self, method: str) -> tuple[int, ...]:
        """Returns the full ranks of a method.

        Args:
            method: "svd", "spatial" or "tucker".
        """
        return self.tucker.full if method == "tucker" else (getattr(self, method).full,)

    def macs(self, method: str, ranks: tuple[int, ...]) -> int:
        """Returns the multiply-accumulates per example at given ranks, over all uses.

        Args:
            method: "svd", "spatial" or "tucker".
            ranks: One rank, or two for "tucker".
        """
        before, between, after = self.unit.positions
        height, width, inputs, outputs = self.unit.kernel.shape
        if method == "svd":
            return after * ranks[0] * (inputs + outputs)
        if method == "spatial":
            return ranks[0] * (between * height * inputs + after * width * outputs)
        first, last = ranks
        head = before * inputs * first if first < inputs else 0
        tail = after * last * outputs if last < outputs else 0
        return head + after * height * width * first * last + tail

    def at(self, method: str, ranks: tuple[int, ...]) -> Option:
        """Returns the option of a method at given ranks.

        Args:
            method: "svd", "spatial" or "tucker".
            ranks: One rank, or two for "tucker".
        """
        errors = (
            self.tucker.errors(ranks[0]) if method == "tucker" else getattr(self, method).errors
        )
        return Option(method, ranks, self.macs(method, ranks), float(errors[ranks[-1]]))

    @cached_property
    def best(self) -> list[Option]:
        """Returns the Pareto-optimal options that save MACs, by ascending MACs."""
        found: list[Option] = []
        for method in self.unit.methods:
            first_ranks = self._first_ranks() if method == "tucker" else [()]
            for first in first_ranks:
                found += self._of_method(method, first)
        found.sort(key=lambda option: (option.macs, option.error))
        kept: list[Option] = []
        for option in found:
            if not kept or option.error < kept[-1].error:
                kept.append(option)
        return kept

    def _of_method(self, method: str, first: tuple[int, ...]) -> list[Option]:
        """The options of a method that save MACs; for Tucker-2 those of one first rank."""
        errors = self.tucker.errors(*first) if first else getattr(self, method).errors
        options = []
        for rank in range(1, len(errors)):
            ranks = (*first, rank)
            macs = self.macs(method, ranks)
            if macs < self.unit.macs:
                options.append(Option(method, ranks, macs, float(errors[rank])))
        return options

    def _first_ranks(self) -> list[tuple[int, ...]]:
        most = self.tucker.full[0]
        grid = np.unique(np.linspace(1, most, min(most, FIRST_RANKS)).round().astype(int))
        return [(int(n),) for n in grid if self.macs("tucker", (int(n), 1)) < self.unit.macs]
