"""Job of `tfnas cluster`: clusters weights of a trained classifier, writes files and a report."""

from __future__ import annotations

import dataclasses
import json
import pathlib
from typing import TYPE_CHECKING

import numpy as np

from tfnas.clustering.cluster import Prepared, cluster, prepare
from tfnas.clustering.clusterable_kernels import find_kernels
from tfnas.clustering.clustering_callback import ClusteringCallback
from tfnas.clustering.clustering_report import ClusteringReport
from tfnas.compression.file_comparison_table import save_and_compare
from tfnas.compression.fine_tune import check_fits, finetune
from tfnas.compression.progress import Progress
from tfnas.compression.results.cluster_result import ClusterConfig, ClusterResult, FileValues
from tfnas.data.data_split import DataSplit
from tfnas.data.reading import spread
from tfnas.jobs.output_folder import create_folder
from tfnas.reports import cluster_report
from tfnas.runtime.files import write_atomically
from tfnas.tflite.artifact import Artifact
from tfnas.tflite.file_weights import FileKernel, read_kernels

if TYPE_CHECKING:
    import keras

CALIBRATION = 300
_CHANNELS_LAST = ("DEPTHWISE_CONV_2D", "CONV_3D", "BATCH_MATMUL")


def cluster_to_files(
    model: keras.Model,
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
        config: The settings.
        progress: Receives phases and epochs.

    Returns:
        The files, measured on the test part, and the report of the clustering.

    Raises:
        ValueError: An argument is outside its rule; before any long work.
    """
    progress = progress or Progress()
    check_fits(model, split)
    prepared = prepare(model, config.plan())
    folder = create_folder(directory)
    if config.epochs:
        report = _with_training(model, prepared, split, config, progress)
        clustered = prepared.model
    else:
        clustered, report = _without_training(model, split, config, progress)
    write_atomically(folder / "clustering.json", json.dumps(report.as_dict(), indent=1))
    progress.phase("converting and measuring the files on the test part")
    images = spread(split.x_train, CALIBRATION)
    files = save_and_compare(model, clustered, "clustered", split, folder, images)
    values = {row.label: count_values(row.file) for row in files.rows}
    result = ClusterResult(folder, report, files.rows, values, files.latencies, files.notes)
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
    return [_count(kernel) for kernel in read_kernels(file)]


def _count(kernel: FileKernel) -> FileValues:
    axis = -1 if kernel.operator in _CHANNELS_LAST else 0
    channels = np.moveaxis(kernel.values, axis, 0)
    return FileValues(
        kernel.layer,
        kernel.operator,
        kernel.values.size,
        len(np.unique(kernel.values)),
        max(len(np.unique(channel)) for channel in channels),
    )


def _without_training(
    model: keras.Model, split: DataSplit, config: ClusterConfig, progress: Progress
) -> tuple[keras.Model, ClusteringReport]:
    progress.phase("clustering without training")
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


def _with_training(
    model: keras.Model,
    prepared: Prepared,
    split: DataSplit,
    config: ClusterConfig,
    progress: Progress,
) -> ClusteringReport:
    """Trains the prepared copy in place."""
    progress.phase(f"training the values, {config.epochs} epochs on {len(split.x_train)} images")
    # The copy may be flat: then its layers have other paths than the plan's.
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
        progress=progress,
    )
    # With a teacher a Distiller holds the model, and its kernels have longer names.
    own = {id(task.kernel.variable): task.kernel for task in prepared.tasks}
    rows = []
    for trained, row in zip(clustering.kernels, clustering.report.kernels, strict=True):
        kernel = own[id(trained.variable)]
        note = prepared.notes.get(kernel.path, "")
        rows.append(dataclasses.replace(row, name=kernel.name, note=note))
    return ClusteringReport(
        tuple(rows), tuple(prepared.skipped), tuple(prepared.folded), prepared.unknown
    )
