"""Report of pruning: the zeros of each kernel, and the skipped layers with the reason."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from tfnas.graph.functional import Skipped
from tfnas.graph.zero_counts import ZeroCounts
from tfnas.pruning.prunable_kernels import PrunableKernel
from tfnas.table import Tabular, TextTable


@dataclasses.dataclass(frozen=True)
class PrunedKernel:
    """The number of zeros of one kernel.

    Args:
        name: Path of its layer.
        kind: The layer's class.
        shape: Shape of the kernel in Keras.
        weights: Number of weights.
        zeros: Number of weights that are exactly zero.
        note: Further information, such as the error of the reconstruction.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    weights: int
    zeros: int
    note: str = ""

    @property
    def sparsity(self) -> float:
        """Returns the fraction of zeros, in [0, 1]."""
        return self.zeros / self.weights


@dataclasses.dataclass(frozen=True, repr=False)
class PruningReport(ZeroCounts, Tabular):
    """The zeros of each pruned kernel, and the skipped layers. Prints as a table.

    Example:
        >>> print(PruningReport((PrunedKernel("head", "Dense", (8, 4), 32, 16),)))
        layer  kind   kernel  note  weights  zeros  sparsity
        -----  -----  ------  ----  -------  -----  --------
        head   Dense  8x4                32     16    0.5000
        16 of 32 weights in 1 kernels are zero: sparsity 0.5000

    Args:
        kernels: The pruned kernels.
        skipped: The layers with weights that were not pruned, with the reason.
    """

    kernels: tuple[PrunedKernel, ...]
    skipped: tuple[Skipped, ...] = ()

    def headers(self) -> list[str]:
        """Returns the titles of the columns."""
        return ["layer", "kind", "kernel", "note", "weights", "zeros", "sparsity"]

    def rows(self) -> list[list[str]]:
        """Returns one row per kernel and per skipped layer."""
        pruned = [
            [
                kernel.name,
                kernel.kind,
                "x".join(map(str, kernel.shape)),
                kernel.note,
                f"{kernel.weights:,}",
                f"{kernel.zeros:,}",
                f"{kernel.sparsity:.4f}",
            ]
            for kernel in self.kernels
        ]
        skipped = [[s.name, s.kind, "", f"skipped: {s.reason}", "", "", ""] for s in self.skipped]
        return [*pruned, *skipped]

    def tables(self) -> list[TextTable]:
        """Returns the table of the kernels and skipped layers."""
        return [TextTable(self.headers(), self.rows(), right=4)]

    def notes(self) -> list[str]:
        """Returns the number of zeros in all kernels."""
        return [
            f"{self.zeros:,} of {self.weights:,} weights in {len(self.kernels)} kernels are zero: "
            f"sparsity {self.sparsity:.4f}"
        ]


def report_of(
    kernels: Sequence[PrunableKernel],
    skipped: Sequence[Skipped],
    notes: Mapping[str, str] | None = None,
) -> PruningReport:
    """Counts the present zeros of kernels.

    Args:
        kernels: The kernels.
        skipped: The skipped layers.
        notes: Maps the names of kernels to notes.

    Returns:
        The report, with the kernels in the given order.
    """
    rows = []
    for kernel in kernels:
        zeros = int(np.count_nonzero(kernel.numpy() == 0))
        kind = type(kernel.layer).__name__
        note = (notes or {}).get(kernel.name, "")
        rows.append(PrunedKernel(kernel.name, kind, kernel.shape, kernel.size, zeros, note))
    return PruningReport(tuple(rows), tuple(skipped))
