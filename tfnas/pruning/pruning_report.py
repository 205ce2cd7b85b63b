"""Report of pruning: the zeros of each kernel, and the skipped layers with the reason."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from tfnas.graph.functional import Skipped
from tfnas.pruning.prunable_kernels import PrunableKernel
from tfnas.table import table


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
        """Fraction of zeros, in [0, 1]."""
        return self.zeros / self.weights


@dataclasses.dataclass(frozen=True)
class PruningReport:
    """The zeros of each pruned kernel, and the skipped layers. Prints as a table.

    Args:
        kernels: The pruned kernels.
        skipped: The layers with weights that were not pruned, with the reason.
    """

    kernels: tuple[PrunedKernel, ...]
    skipped: tuple[Skipped, ...] = ()

    @property
    def weights(self) -> int:
        """Number of weights of the pruned kernels."""
        return sum(kernel.weights for kernel in self.kernels)

    @property
    def zeros(self) -> int:
        """Number of zeros in the pruned kernels."""
        return sum(kernel.zeros for kernel in self.kernels)

    @property
    def sparsity(self) -> float:
        """Fraction of zeros in the pruned kernels, in [0, 1]."""
        return self.zeros / self.weights if self.weights else 0.0

    def rows(self) -> list[list[str]]:
        """Returns one row per kernel and per skipped layer; `HEADERS` names the columns."""
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

    HEADERS = ("layer", "kind", "kernel", "note", "weights", "zeros", "sparsity")

    def __str__(self) -> str:
        total = (
            f"{self.zeros:,} of {self.weights:,} weights in {len(self.kernels)} kernels are zero: "
            f"sparsity {self.sparsity:.4f}"
        )
        return table(self.HEADERS, self.rows(), right=4) + "\n" + total


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
    """
    rows = []
    for kernel in kernels:
        zeros = int(np.count_nonzero(kernel.numpy() == 0))
        kind = type(kernel.layer).__name__
        note = (notes or {}).get(kernel.name, "")
        rows.append(PrunedKernel(kernel.name, kind, kernel.shape, kernel.size, zeros, note))
    return PruningReport(tuple(rows), tuple(skipped))
