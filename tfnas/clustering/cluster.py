"""Clustering of a trained model in one call, without training."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from tfnas.clustering.batchnorm_folding import (
    NormalizedKernel,
    foldable,
    folded_copy,
    normalized_kernels,
)
from tfnas.clustering.cluster_plan import ClusterPlan, ClusterTask
from tfnas.clustering.clusterable_kernels import CHANNEL, ClusterableKernel, find_kernels
from tfnas.clustering.clustering_report import ClusteringReport, record_of, report_of
from tfnas.clustering.importance import mean_squares
from tfnas.clustering.shared_values import attach, check_backend
from tfnas.data.data_types import Arrays
from tfnas.data.reading import check_data
from tfnas.graph.compatibility import TRAINED_WITH, check_float
from tfnas.graph.functional import Skipped, clone, walk
from tfnas.graph.functional_form import copyable_form
from tfnas.graph.layer_kernels import LayerSelection, check_any_kernel, check_built
from tfnas.keras_private import own_variables

if TYPE_CHECKING:
    import keras
    import tensorflow as tf


@dataclasses.dataclass(frozen=True, eq=False)
class Prepared:
    """A copy of a model, ready for clustering.

    Args:
        model: The copy, with BatchNormalization folded if requested.
        tasks: The kernels of the copy to cluster.
        skipped: The skipped layers with weights, with the reason.
        folded: Paths of the layers that BatchNormalization was folded into.
        notes: Maps paths of kernels to changes that the converter will make.
        unknown: Notes on what is unknown of the model.
    """

    model: keras.Model
    tasks: list[ClusterTask]
    skipped: list[Skipped]
    folded: list[str]
    notes: dict[str, str]
    unknown: tuple[str, ...] = ()


def cluster(
    model: keras.Model,
    clusters: int | Mapping[str, int | None] = 16,
    *,
    granularity: str = "layer",
    initialization: str = "kmeans++",
    zeros: bool | Literal["auto"] = "auto",
    data: Arrays | tf.data.Dataset | keras.utils.PyDataset | None = None,
    exclude: LayerSelection = (),
    embeddings: bool = True,
    fold: bool | Literal["auto"] = "auto",
    seed: int = 0,
) -> tuple[keras.Model, ClusteringReport]:
    """Clusters the weights of a model to a few shared values; returns a copy and a report.

    The model is not changed. The copy is not compiled, as after `keras.models.clone_model`. In
    further training its shared values stay shared, best with a `tfnas.ClusteringCallback(None)`.
    Each kernel (with granularity "channel" each output channel) has at most `clusters` distinct
    values in the copy, in the saved model, and in the float32 and float16 `.tflite` file. In
    integer files this holds for each channel, which can have its own scale.

    Example:
        >>> import keras, numpy as np, tfnas
        >>> model = keras.Sequential([keras.Input((20,)), keras.layers.Dense(10, name="d")])
        >>> clustered, report = tfnas.cluster(model, 4)
        >>> len(np.unique(clustered.layers[0].kernel)), report.kernels[0].coded
        (4, 66)

    Args:
        model: A built Keras 3 model.
        clusters: Largest number of distinct values of a kernel, 2 to 256, including zero; or a
            dictionary that maps names or patterns of layers to numbers, or to None to skip
            the layer. The first matching item counts; layers without a match are skipped.
        granularity: "layer", or "channel": each output channel has its own values.
        initialization: "kmeans++", "linear", "density" or "quantile"; see
            :mod:`tfnas.clustering.centroids`.
        zeros: Whether exact zeros are a cluster of their own and stay zero: True, False, or
            "auto": if at least 1% of the weights are exact zeros, as in a pruned model.
        data: Typical inputs, a few hundred examples: arrays such as
            (examples, height, width, channels), a `tf.data.Dataset` or a
            `keras.utils.PyDataset`. The squared error of each weight is then weighted by the
            mean square of its input. None: all errors have the same weight.
        exclude: Layers to leave unchanged: names, paths or patterns ("block_*"), layers, classes
            of layers, "first", "last", "depthwise".
        embeddings: Whether the tables of Embedding layers are clustered too.
        fold: Whether BatchNormalization is folded into the kernels before clustering, since the
            converter would multiply them by a factor per channel afterwards: True, False, or
            "auto": where the file would have more distinct values without folding; see
            :mod:`tfnas.clustering.batchnorm_folding`. Folding flattens nested models.
        seed: Seed of the initialization.

    Returns:
        The copy and the report.

    Raises:
        ValueError: An argument is out of range, or the model can't be copied.

    References:
        Han, Mao and Dally, "Deep Compression", ICLR 2016.
    """
    plan = ClusterPlan(clusters, granularity, initialization, zeros, exclude, embeddings, seed)
    check_data(data)
    check_backend()
    prepared = prepare(model, plan, fold)
    copy, kernels = prepared.model, [task.kernel for task in prepared.tasks]
    importance = {} if data is None else mean_squares(copy, kernels, data)
    rows = []
    for task in prepared.tasks:
        kernel, before = task.kernel, task.kernel.numpy()
        shared, labels = plan.labels(task, before, importance.get(id(kernel)))
        tie = attach(copy, kernel, granularity, task.clusters, task.zeros)
        tie.assign(labels)
        kernel.variable.assign(shared)
        note = prepared.notes.get(kernel.path, "")
        rows.append(record_of(kernel, task.clusters, granularity, before, note))
    return copy, report_of(rows, prepared.skipped, prepared.folded, prepared.unknown)


def prepare(
    model: keras.Model, plan: ClusterPlan, fold: bool | Literal["auto"] = "auto"
) -> Prepared:
    """Copies a model for clustering, and folds BatchNormalization.

    Args:
        model: A built Keras 3 model.
        plan: The settings.
        fold: As for :func:`tfnas.cluster`.

    Returns:
        The copy with the kernels to cluster and the skipped layers.

    Raises:
        ValueError: An argument is out of range, or the model can't be copied.
    """
    if not (fold == "auto" or isinstance(fold, bool)):
        raise ValueError(f"fold must be 'auto', True or False, got {fold!r}")
    model = copyable_form(model)
    check_built(model)
    check_float(model, "cluster", TRAINED_WITH)
    kernels, none = find_kernels(model, plan.embeddings)
    check_any_kernel(kernels, none, "clusters and exclude must leave a kernel to cluster")
    tasks, skipped = plan.admit(kernels)
    paths = {task.kernel.path for task in tasks}
    try:
        flow = walk(model)
    except ValueError:
        if fold is True:
            raise
        copy = clone(model)
        unknown = (
            "the connections of the model's layers are unknown: a BatchNormalization after a "
            "kernel multiplies its channels in the file",
        )
        tasks = _copied_tasks(tasks, kernels, find_kernels(copy, plan.embeddings)[0])
        return Prepared(copy, tasks, [*skipped, *none], [], {}, unknown)
    pairs = normalized_kernels(flow)
    to_fold = [p for p in pairs if fold is True or (fold == "auto" and _adds_values(p, plan))]
    calls = foldable(to_fold, paths)
    if calls:
        copy, layers, folded = folded_copy(model, to_fold, paths, flow)
        copied = [_moved(task, *_copied_kernel(task.kernel, layers)) for task in tasks]
    else:
        copy, folded = clone(model), []
        copied = _copied_tasks(tasks, kernels, find_kernels(copy, plan.embeddings)[0])
    notes = {
        p.kernel.name: _note(p, plan)
        for p in pairs
        if p.kernel.name not in folded and _adds_values(p, plan)
    }
    removed = {p.norm.name for p in to_fold if id(p.norm) in calls}
    remaining = [s for s in none if s.name not in removed]
    return Prepared(copy, copied, [*skipped, *remaining], folded, notes)


def _adds_values(pair: NormalizedKernel, plan: ClusterPlan) -> bool:
    """Whether the BatchNormalization gives the kernel in the file more distinct values.

    A factor per channel keeps the number of distinct values per channel.
    """
    return pair.norm_first or plan.granularity != CHANNEL


def _note(pair: NormalizedKernel, plan: ClusterPlan) -> str:
    reason = f": {pair.obstacle}" if pair.obstacle else ""
    axis = "row" if pair.norm_first else "channel"
    return f"BatchNormalization {pair.norm.name} multiplies each {axis} in the file{reason}"


def _copied_tasks(
    tasks: Sequence[ClusterTask],
    kernels: Sequence[ClusterableKernel],
    found: Sequence[ClusterableKernel],
) -> list[ClusterTask]:
    """The tasks for the kernels of a copy, matched by position, since names may differ."""
    index = {id(kernel): i for i, kernel in enumerate(kernels)}
    copies = [found[index[id(task.kernel)]] for task in tasks]
    return [_moved(t, k.layer, k.variable) for t, k in zip(tasks, copies, strict=True)]


def _copied_kernel(kernel: ClusterableKernel, layers: Mapping[int, Any]) -> tuple[Any, Any]:
    """The copies of a kernel's layer and variable."""
    layer = layers[id(kernel.layer)]
    return layer, next(v for v in own_variables(layer) if v.name == kernel.variable.name)


def _moved(task: ClusterTask, layer: Any, variable: Any) -> ClusterTask:
    own = dataclasses.replace(task.kernel, layer=layer, variable=variable)
    return dataclasses.replace(task, kernel=own)
