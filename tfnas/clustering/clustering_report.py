"""What clustering did to a model, and what it weighs: records that print as a table."""

from __future__ import annotations

import dataclasses
import gzip
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tfnas.clustering.clusterable_kernels import ClusterableKernel
from tfnas.clustering.code_length import codebook_bytes, huffman_bytes
from tfnas.graph.functional import Skipped
from tfnas.search_space.architecture import check_keys
from tfnas.table import table


@dataclasses.dataclass(frozen=True)
class ClusteredKernel:
    """One kernel before and after.

    Sizes are those of the kernel alone. Gzip is what a download or a flash image can have
    without more; the coded sizes need a runtime that decodes them, which TFLite is not.

    Args:
        name: Path of its layer.
        kind: The layer's class.
        shape: Shape of the kernel, as Keras has it.
        clusters: Values that were asked for at most.
        granularity: "layer", or "channel": each output channel has values of its own.
        before: Distinct values before.
        after: Distinct values after, of the channel that has most with "channel".
        zeros: Weights that are exactly zero.
        error: Root-mean-square distance of the weights from those before they were clustered,
            as a share of the root-mean-square of those. Training since then is in it.
        bytes: Size as float32.
        gzip_before: Size of the float32 numbers before, after gzip.
        gzip_after: Size of the float32 numbers now, after gzip.
        coded: Size as codebook and indices of a fixed length.
        huffman: Size as codebook and Huffman-coded indices.
        note: What else is to be known.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    clusters: int
    granularity: str
    before: int
    after: int
    zeros: int
    error: float
    bytes: int
    gzip_before: int
    gzip_after: int
    coded: int
    huffman: int
    note: str = ""

    def row(self) -> list[str]:
        """Returns the record as a table's row; see :attr:`ClusteringReport.HEADERS`."""
        sizes = [self.bytes, self.gzip_before, self.gzip_after, self.coded, self.huffman]
        return [
            self.name,
            self.kind,
            "x".join(map(str, self.shape)),
            self.note,
            f"{self.before:,}",
            f"{self.after:,}{' a channel' if self.granularity == 'channel' else ''}",
            f"{self.error:.4f}",
            *(f"{size:,}" for size in sizes),
        ]


@dataclasses.dataclass(frozen=True)
class ClusteringReport:
    """Values and sizes of a model's kernels, and the layers left alone. Prints as a table.

    Args:
        kernels: The kernels that were clustered.
        skipped: The layers with weights that were not, and why.
        folded: The layers that BatchNormalization was folded into.
        notes: What holds for the model as a whole.
    """

    HEADERS = (
        *("layer", "kind", "kernel", "note", "values", "after", "error", "bytes"),
        *("gzip before", "gzip", "coded", "Huffman"),
    )

    kernels: tuple[ClusteredKernel, ...]
    skipped: tuple[Skipped, ...] = ()
    folded: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def total(self, name: str) -> int:
        """Returns the sum of a field over the kernels, such as "huffman", in bytes."""
        return sum(getattr(kernel, name) for kernel in self.kernels)

    def as_dict(self) -> dict[str, Any]:
        """Returns the record as values that JSON knows; see :meth:`of`."""
        return dataclasses.asdict(self)

    @classmethod
    def of(cls, fields: Mapping[str, Any]) -> ClusteringReport:
        """Returns the record that :meth:`as_dict` wrote.

        Raises:
            ValueError: A key is unknown or missing.
        """
        check_keys(cls, fields)
        kernels = []
        for kernel in fields["kernels"]:
            check_keys(ClusteredKernel, kernel)
            kernels.append(ClusteredKernel(**{**kernel, "shape": tuple(kernel["shape"])}))
        skipped = tuple(Skipped(**entry) for entry in fields.get("skipped", ()))
        texts = {name: tuple(fields.get(name, ())) for name in ("folded", "notes")}
        return cls(tuple(kernels), skipped, **texts)

    def rows(self) -> list[list[str]]:
        """Returns a row a kernel, the totals, and a row a skipped layer; see `HEADERS`."""
        sums = ("bytes", "gzip_before", "gzip_after", "coded", "huffman")
        total = ["total", *[""] * 6, *(f"{self.total(name):,}" for name in sums)]
        left = [[s.name, s.kind, "", f"left: {s.reason}", *[""] * 8] for s in self.skipped]
        return [*(kernel.row() for kernel in self.kernels), total, *left]

    def summary(self) -> str:
        """Returns the sizes in one line."""
        whole, coded, huffman = (self.total(name) for name in ("bytes", "coded", "huffman"))
        text = f"{len(self.kernels)} kernels, {whole:,} bytes as float32: "
        if coded and huffman:
            text += f"coded {coded:,} ({whole / coded:.1f}x), "
            text += f"with a Huffman code {huffman:,} ({whole / huffman:.1f}x)"
        return text

    def __str__(self) -> str:
        lines = [table(self.HEADERS, self.rows(), right=4), self.summary()]
        if self.folded:
            lines.append(f"BatchNormalization folded into {', '.join(self.folded)}")
        return "\n".join([*lines, *self.notes])


def record_of(
    kernel: ClusterableKernel, clusters: int, granularity: str, before: np.ndarray, note: str = ""
) -> ClusteredKernel:
    """Measures a kernel as it is now.

    Args:
        kernel: The kernel.
        clusters: Values that were asked for at most.
        granularity: "layer" or "channel".
        before: Its weights before they were clustered.
        note: What else is to be known.
    """
    now = kernel.numpy()
    groups = kernel.groups(now, granularity)
    power = float(np.mean(np.square(before, dtype=np.float64)))
    apart = float(np.mean(np.square(now.astype(np.float64) - before)))
    return ClusteredKernel(
        kernel.name,
        kernel.kind,
        kernel.shape,
        clusters,
        granularity,
        len(np.unique(before)),
        max(len(np.unique(group)) for group in groups),
        int(np.count_nonzero(now == 0)),
        (apart / power) ** 0.5 if power else 0.0,
        4 * kernel.size,
        _gzipped(before),
        _gzipped(now),
        codebook_bytes(groups),
        huffman_bytes(groups),
        note,
    )


def report_of(
    kernels: Sequence[ClusteredKernel],
    skipped: Sequence[Skipped],
    folded: Sequence[str] = (),
    notes: Sequence[str] = (),
) -> ClusteringReport:
    """Returns the records of a model as one."""
    return ClusteringReport(tuple(kernels), tuple(skipped), tuple(folded), tuple(notes))


def _gzipped(array: np.ndarray) -> int:
    return len(gzip.compress(np.ascontiguousarray(array, np.float32).tobytes(), 9, mtime=0))
