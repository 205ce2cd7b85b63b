"""Settings and result of a job that clusters weights."""

from __future__ import annotations

import dataclasses
import pathlib

from tfnas.clustering.cluster_plan import ClusterPlan
from tfnas.clustering.clustering_report import ClusteringReport
from tfnas.compression.file_comparison_table import FileRow
from tfnas.compression.results.file_rows import short_headers, short_rows
from tfnas.compression.results.printed_result import PrintedResult
from tfnas.compression.training_settings import TrainingSettings, check_whole_numbers
from tfnas.measure.measurement import Latency

SPEED_NOTE = (
    "Shared values make a file smaller once it is compressed; TFLite computes with it as with "
    "any other, as fast."
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClusterConfig(TrainingSettings):
    """Settings of a clustering job, beside those of its training.

    Args:
        clusters: Most distinct values of a kernel, or of a channel.
        layers: (name or pattern, clusters) of layers with a number of their own.
        epochs: Epochs of training the shared values; 0: none.
        renew: Optimizer steps between two new assignments of weights to clusters; None: the
            first assignment stays.
        granularity: See :func:`tfnas.cluster`.
        initialization: How k-means begins; see :func:`tfnas.cluster`.
        weighted: Without training, whether errors of weights count by the inputs that they are
            multiplied with.
        exclude: Layers that are not clustered.

    Raises:
        ValueError: An argument is outside its rule.
    """

    clusters: int = 16
    layers: tuple[tuple[str, int], ...] = ()
    epochs: int = 3
    renew: int | None = None
    granularity: str = "layer"
    initialization: str = "kmeans++"
    weighted: bool = True
    exclude: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        check_whole_numbers(self, optional=True, renew=1)
        self.plan()

    def plan(self) -> ClusterPlan:
        """Returns the number of clusters of each layer, and how they are found."""
        own = dict(self.layers)
        clusters = {**own, **({} if "*" in own else {"*": self.clusters})} if own else self.clusters
        return ClusterPlan(
            clusters,
            self.granularity,
            self.initialization,
            exclude=self.exclude,
            seed=self.seed,
        )


@dataclasses.dataclass(frozen=True)
class FileValues:
    """The distinct values of one kernel, counted in the file.

    Args:
        layer: The Keras layer, by the names in the file.
        operator: The operator that reads the kernel.
        weights: Number of weights.
        values: Distinct values among them.
        channel: Distinct values of the output channel that has most.
    """

    layer: str
    operator: str
    weights: int
    values: int
    channel: int


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class ClusterResult(PrintedResult):
    """Result of a clustering job.

    Args:
        directory: Folder of the job's files.
        report: The values of the Keras model, by kernel.
        rows: The files on the test part, the original float32 file first.
        values: The values of each file's kernels, by label.
        latencies: Measured latency of each file, by label.
        notes: What could not be done, and why.
    """

    directory: pathlib.Path
    report: ClusteringReport
    rows: list[FileRow]
    values: dict[str, list[FileValues]]
    latencies: dict[str, Latency]
    notes: list[str]

    def values_cell(self, row: FileRow) -> str:
        """Returns the range of distinct values of a file's kernels as a table's cell."""
        counts = [kernel.values for kernel in self.values[row.label]]
        return f"{min(counts):,} to {max(counts):,}" if counts else ""

    def _headline(self) -> str:
        return f"{len(self.report.kernels)} clustered kernels, {len(self.rows)} files"

    def _details(self) -> list[str]:
        return [str(self.report)]

    def _table(self) -> tuple[list[str], list[list[str]]]:
        rows = short_rows(self.rows, lambda row: [self.values_cell(row)])
        return short_headers("values"), rows

    def _remarks(self) -> list[str]:
        return [*self.notes, SPEED_NOTE]
