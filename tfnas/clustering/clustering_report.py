"""Report of clustering: the values, errors and sizes of each kernel, as a table."""

from __future__ import annotations

import dataclasses
import gzip
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tfnas.clustering.clusterable_kernels import ClusterableKernel
from tfnas.clustering.code_length import codebook_bytes, huffman_bytes
from tfnas.graph.functional import Skipped
from tfnas.search_space.json_records import check_keys
from tfnas.table import Printable, TextTable

_VALUES = ("layer", "kind", "kernel", "note", "values", "after", "error")
_SIZES = ("bytes", "gzip before", "gzip", "coded", "Huffman")


@dataclasses.dataclass(frozen=True)
class ClusteredKernel:
    """One kernel before and after clustering.

    Sizes are of the kernel alone, in bytes. A download or a flash image reaches the gzip size
    directly; the coded sizes need a runtime that decodes them, which TFLite does not.

    Args:
        name: Path of its layer.
        kind: The layer's class.
        shape: Shape of the kernel in Keras.
        clusters: Largest requested number of distinct values.
        granularity: "layer", or "channel": each output channel has its own values.
        before: Distinct values before.
        after: Distinct values after; with "channel" the largest number of a channel.
        zeros: Weights that are exactly zero.
        error: Root-mean-square difference of the weights before and after, relative to the
            root-mean-square of the weights before. Includes changes by training.
        bytes: Size as float32.
        gzip_before: Size of the float32 weights before clustering, with gzip.
        gzip_after: Size of the float32 weights after clustering, with gzip.
        coded: Size as codebook and fixed-length indices.
        huffman: Size as codebook and Huffman-coded indices.
        note: Further information.
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
        """Returns the table row; :meth:`ClusteringReport.headers` names the columns."""
        sizes = [self.bytes, self.gzip_before, self.gzip_after, self.coded, self.huffman]
        return [
            self.name,
            self.kind,
            "x".join(map(str, self.shape)),
            self.note,
            f"{self.before:,}",
            f"{self.after:,}{' per channel' if self.granularity == 'channel' else ''}",
            f"{self.error:.4f}",
            *(f"{size:,}" for size in sizes),
        ]


@dataclasses.dataclass(frozen=True, repr=False)
class ClusteringReport(Printable):
    """The values and sizes of each clustered kernel, and the skipped layers. Prints as tables.

    Example:
        >>> sizes = dict(bytes=4000, gzip_before=3700, gzip_after=500, coded=516, huffman=480)
        >>> counts = dict(clusters=16, before=1000, after=16, zeros=0, error=0.05)
        >>> kernel = ClusteredKernel("d", "Dense", (50, 20), granularity="layer", **counts, **sizes)
        >>> print(ClusteringReport((kernel,)))
        layer  kind   kernel  note  values  after   error
        -----  -----  ------  ----  ------  -----  ------
        d      Dense  50x20          1,000     16  0.0500
        <BLANKLINE>
        Size in bytes:
        layer  bytes  gzip before  gzip  coded  Huffman
        -----  -----  -----------  ----  -----  -------
        d      4,000        3,700   500    516      480
        total  4,000        3,700   500    516      480
        1 kernels, 4,000 bytes as float32: coded 516 (7.8x), with a Huffman code 480
          (8.3x)

    Args:
        kernels: The clustered kernels.
        skipped: The layers with weights that were not clustered, with the reason.
        folded: Paths of the layers that BatchNormalization was folded into.
        notes: Notes on the entire model.
    """

    kernels: tuple[ClusteredKernel, ...]
    skipped: tuple[Skipped, ...] = ()
    folded: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def total(self, name: str) -> int:
        """Returns the sum of a field over the kernels, in bytes.

        Args:
            name: Name of the field, such as "huffman".
        """
        return sum(getattr(kernel, name) for kernel in self.kernels)

    def as_dict(self) -> dict[str, Any]:
        """Returns the report as a dictionary that JSON can hold; :meth:`of` reads it."""
        return dataclasses.asdict(self)

    @classmethod
    def of(cls, fields: Mapping[str, Any]) -> ClusteringReport:
        """Returns the report that :meth:`as_dict` wrote.

        Args:
            fields: The dictionary.

        Raises:
            ValueError: A key is unknown or missing.
        """
        check_keys(cls, fields)
        kernels = []
        for kernel in fields["kernels"]:
            check_keys(ClusteredKernel, kernel)
            kernels.append(ClusteredKernel(**{**kernel, "shape": tuple(kernel["shape"])}))
        skipped = tuple(Skipped(**item) for item in fields.get("skipped", ()))
        texts = {name: tuple(fields.get(name, ())) for name in ("folded", "notes")}
        return cls(tuple(kernels), skipped, **texts)

    def headers(self) -> list[str]:
        """Returns the titles of the columns of values and sizes."""
        return [*_VALUES, *_SIZES]

    def rows(self) -> list[list[str]]:
        """Returns one row per kernel, the totals, and one row per skipped layer."""
        sums = ("bytes", "gzip_before", "gzip_after", "coded", "huffman")
        total = ["total", *[""] * 6, *(f"{self.total(name):,}" for name in sums)]
        skipped = [[s.name, s.kind, "", f"skipped: {s.reason}", *[""] * 8] for s in self.skipped]
        return [*(kernel.row() for kernel in self.kernels), total, *skipped]

    def summary(self) -> str:
        """Returns the sizes in one line."""
        total, coded, huffman = (self.total(name) for name in ("bytes", "coded", "huffman"))
        text = f"{len(self.kernels)} kernels, {total:,} bytes as float32: "
        if coded and huffman:
            text += f"coded {coded:,} ({total / coded:.1f}x), "
            text += f"with a Huffman code {huffman:,} ({total / huffman:.1f}x)"
        return text

    def tables(self) -> list[TextTable]:
        """Returns the columns of :meth:`rows` as two tables: of the values, and of the sizes."""
        count, rows = len(self.kernels), self.rows()
        values = [row[: len(_VALUES)] for row in [*rows[:count], *rows[count + 1 :]]]
        sizes = [[row[0], *row[len(_VALUES) :]] for row in rows[: count + 1]]
        return [
            TextTable(_VALUES, values, right=4),
            TextTable([_VALUES[0], *_SIZES], sizes, title="Size in bytes:"),
        ]

    def footer(self) -> list[str]:
        """Returns the summary, the folded layers and the notes."""
        folded = f"BatchNormalization folded into {', '.join(self.folded)}"
        return [self.summary(), *([folded] if self.folded else []), *self.notes]


def most_values(groups: np.ndarray) -> int:
    """Returns the largest number of distinct values of a group.

    Args:
        groups: The weights of a kernel, (groups, weights that share values).
    """
    return max(len(np.unique(group)) for group in groups)


def record_of(
    kernel: ClusterableKernel, clusters: int, granularity: str, before: np.ndarray, note: str = ""
) -> ClusteredKernel:
    """Measures the present values and sizes of a kernel.

    Args:
        kernel: The kernel.
        clusters: Largest requested number of distinct values.
        granularity: "layer" or "channel".
        before: Its weights before clustering, of its shape.
        note: Further information.

    Returns:
        The numbers of values, the error and the sizes in bytes.
    """
    now = kernel.numpy()
    groups = kernel.groups(now, granularity)
    power = float(np.mean(np.square(before, dtype=np.float64)))
    squared_error = float(np.mean(np.square(now.astype(np.float64) - before)))
    return ClusteredKernel(
        kernel.name,
        kernel.kind,
        kernel.shape,
        clusters,
        granularity,
        len(np.unique(before)),
        most_values(groups),
        int(np.count_nonzero(now == 0)),
        (squared_error / power) ** 0.5 if power else 0.0,
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
    """Returns the report of a model from its parts.

    Args:
        kernels: The clustered kernels.
        skipped: The layers with weights that were not clustered.
        folded: Paths of the layers that BatchNormalization was folded into.
        notes: Notes on the entire model.
    """
    return ClusteringReport(tuple(kernels), tuple(skipped), tuple(folded), tuple(notes))


def _gzipped(array: np.ndarray) -> int:
    return len(gzip.compress(np.ascontiguousarray(array, np.float32).tobytes(), 9, mtime=0))
