"""The `tfnas cluster` job: a trained classifier, a data set, k values -> files and a report."""

from __future__ import annotations

import dataclasses
import json
import pathlib
from typing import Any

import numpy as np

from tfnas.clustering.cluster import Prepared, cluster, prepare
from tfnas.clustering.cluster_plan import ClusterPlan
from tfnas.clustering.clusterable_kernels import find_kernels
from tfnas.clustering.clustering_callback import ClusteringCallback
from tfnas.clustering.clustering_report import ClusteringReport
from tfnas.compression.file_comparison_table import FileRow, save_and_compare
from tfnas.compression.fine_tune import check_fits, finetune
from tfnas.compression.progress import Progress
from tfnas.compression.training_settings import TrainingSettings, check_whole_numbers
from tfnas.data.datasets import DataSplit, spread
from tfnas.measure.measurement import Latency
from tfnas.reports import cluster_report
from tfnas.runtime.files import write_atomically
from tfnas.tflite.artifact import Artifact
from tfnas.tflite.file_weights import FileKernel, read_kernels

CALIBRATION = 300
_CHANNELS_LAST = ("DEPTHWISE_CONV_2D", "CONV_3D", "BATCH_MATMUL")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClusterConfig(TrainingSettings):
    """What a clustering run was asked for.

    Args:
        clusters: Most values of a kernel, or of a channel.
        layers: (name or pattern, most values) of layers with a number of their own.
        epochs: Epochs of training the shared values; 0: none.
        renew: Steps between two renewals of which weights share a value; None: never.
        granularity: See :func:`tfnas.cluster`, as the next three.
        initialization: What k-means begins with.
        weighted: Without training, whether errors of weights count by the inputs they meet.
        exclude: Layers left alone.

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
        """Returns what is to be clustered, and how."""
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
        layer: The Keras layer, as far as the names in the file tell.
        operator: The operator that takes the kernel.
        weights: Number of weights.
        values: Distinct numbers among those that are stored.
        channel: The same of the output channel that has most.
    """

    layer: str
    operator: str
    weights: int
    values: int
    channel: int


@dataclasses.dataclass(frozen=True, eq=False)
class ClusterResult:
    """What a clustering run leaves.

    Args:
        directory: The run's folder.
        report: The values of the Keras model.
        rows: The files on the test part, the original float32 file first.
        values: The values of each file's kernels, by label.
        latencies: Measured time of each file, by label.
        notes: What could not be done, and why.
    """

    directory: pathlib.Path
    report: ClusteringReport
    rows: list[FileRow]
    values: dict[str, list[FileValues]]
    latencies: dict[str, Latency]
    notes: list[str]

    def __str__(self) -> str:
        return cluster_report.summary(self)


def cluster_to_files(
    model: Any,
    split: DataSplit,
    directory: str | pathlib.Path,
    config: ClusterConfig,
    progress: Progress | None = None,
) -> ClusterResult:
    """Clusters a classifier and writes model.keras, `.tflite` files and report.md.

    Args:
        model: A trained Keras 3 classifier of images; it stays as it is.
        split: Its data. The test part is used once, at the end.
        directory: Folder for the results.
        config: What to do.
        progress: Is told what happens.

    Raises:
        ValueError: An argument is outside its rule; before any long work.
    """
    told, folder = progress or Progress(), pathlib.Path(directory)
    check_fits(model, split)
    prepared = prepare(model, config.plan())
    folder.mkdir(parents=True, exist_ok=True)
    if config.epochs:
        report = _trained(model, prepared, split, config, told)
        clustered = prepared.model
    else:
        clustered, report = _at_once(model, split, config, told)
    write_atomically(folder / "clustering.json", json.dumps(report.as_dict(), indent=1))
    told.phase("converting and measuring the files on the test part")
    images = spread(split.x_train, CALIBRATION)
    found = save_and_compare(model, clustered, "clustered", split, folder, images)
    values = {row.label: count_values(row.file) for row in found.rows}
    result = ClusterResult(folder, report, found.rows, values, found.latencies, found.notes)
    cluster_report.write(result, split, config)
    return result


def count_values(file: Artifact) -> list[FileValues]:
    """Counts the distinct values of each kernel of a file, in the order of execution.

    Example:
        >>> import keras, tfnas
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, name="d")])
        >>> _ = model.layers[0].kernel.assign([[1, 2, 3], [1, 2, 3], [1, 3, 4], [1, 2, 3]])
        >>> count_values(tfnas.to_tflite(model))[0]
        FileValues(layer='d', operator='FULLY_CONNECTED', weights=12, values=4, channel=2)

    Args:
        file: The file.
    """
    return [_counted(kernel) for kernel in read_kernels(file)]


def _counted(kernel: FileKernel) -> FileValues:
    axis = -1 if kernel.operator in _CHANNELS_LAST else 0
    channels = np.moveaxis(kernel.values, axis, 0)
    return FileValues(
        kernel.layer,
        kernel.operator,
        kernel.values.size,
        len(np.unique(kernel.values)),
        max(len(np.unique(channel)) for channel in channels),
    )


def _at_once(
    model: Any, split: DataSplit, config: ClusterConfig, told: Progress
) -> tuple[Any, ClusteringReport]:
    told.phase("clustering without training")
    plan = config.plan()
    return cluster(
        model,
        plan.clusters,
        granularity=plan.granularity,
        initialization=plan.initialization,
        data=spread(split.x_train, CALIBRATION) if config.weighted else None,
        exclude=plan.exclude,
        seed=plan.seed,
    )


def _trained(
    model: Any, prepared: Prepared, split: DataSplit, config: ClusterConfig, told: Progress
) -> ClusteringReport:
    """Trains the prepared copy in place."""
    told.phase(f"training the values, {config.epochs} epochs on {len(split.x_train)} images")
    # The copy may be flat, and its layers have other paths than those asked for.
    names = {id(k.variable): k.name for k in find_kernels(prepared.model)[0]}
    tasks = {names[id(task.kernel.variable)]: task for task in prepared.tasks}
    clustering = ClusteringCallback(
        {name: task.clusters for name, task in tasks.items()},
        config.renew,
        "step",
        granularity=config.granularity,
        initialization=config.initialization,
        seed=config.seed,
    )
    finetune(
        prepared.model,
        split,
        config,
        teacher=model,
        callbacks=[clustering],
        progress=told,
    )
    # With a teacher the trained model is around this one, and names are longer once more.
    own = {id(task.kernel.variable): task.kernel for task in prepared.tasks}
    rows = []
    for trained, row in zip(clustering.kernels, clustering.report.kernels, strict=True):
        kernel = own[id(trained.variable)]
        note = prepared.notes.get(kernel.path, "")
        rows.append(dataclasses.replace(row, name=kernel.name, note=note))
    return ClusteringReport(
        tuple(rows), tuple(prepared.skipped), tuple(prepared.folded), prepared.unknown
    )
