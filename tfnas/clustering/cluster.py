"""Clustering a finished model, without training."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from tfnas.clustering.batchnorm_folding import Normalized, foldable, folded_copy, normalized_kernels
from tfnas.clustering.cluster_plan import ClusterPlan, Task
from tfnas.clustering.clusterable_kernels import CHANNEL, ClusterableKernel, find_kernels
from tfnas.clustering.clustering_report import ClusteringReport, record_of, report_of
from tfnas.clustering.importance import mean_squares
from tfnas.clustering.shared_values import attach, check_backend
from tfnas.data.datasets import check_data
from tfnas.graph.compatibility import TRAINED_WITH, check_float
from tfnas.graph.functional import Skipped, clone, walk
from tfnas.graph.layer_kernels import check_built


@dataclasses.dataclass(frozen=True, eq=False)
class Prepared:
    """A copy of a model that is to be clustered.

    Args:
        model: The copy, BatchNormalization folded where that was wanted.
        tasks: Its kernels to be clustered.
        skipped: The layers with weights left alone, and why.
        folded: Paths of the layers that BatchNormalization was folded into.
        notes: What the converter will do to some kernels, by the kernel's path.
        unknown: What is not known of the model.
    """

    model: Any
    tasks: list[Task]
    skipped: list[Skipped]
    folded: list[str]
    notes: dict[str, str]
    unknown: tuple[str, ...] = ()


def cluster(
    model: Any,
    clusters: Any = 16,
    *,
    granularity: str = "layer",
    initialization: str = "kmeans++",
    zeros: Any = "auto",
    data: Any = None,
    exclude: Any = (),
    embeddings: bool = False,
    fold: Any = "auto",
    seed: int = 0,
) -> tuple[Any, ClusteringReport]:
    """Returns a copy of a model whose kernels hold few values, and a report.

    The model stays as it is. Like a clone of Keras' the copy is not compiled; when it is
    trained further its shared values stay shared, best with a `tfnas.ClusteringCallback(None)`.
    A kernel, or a channel of one with granularity "channel", holds at most as many distinct
    values in the copy, once saved, and in the float32 and float16 `.tflite` file; as integers
    each channel does, which a file may give a scale of its own.

    Example:
        >>> import keras, numpy as np, tfnas
        >>> model = keras.Sequential([keras.Input((20,)), keras.layers.Dense(10, name="d")])
        >>> clustered, report = tfnas.cluster(model, 4)
        >>> len(np.unique(clustered.layers[0].kernel)), report.kernels[0].coded
        (4, 66)

    Args:
        model: A built Keras 3 model.
        clusters: Most distinct values of a kernel, 2 to 256, a zero among them; or a
            dictionary name or pattern -> number, or None to leave alone. The first entry that
            fits a layer counts; what none fits is left alone.
        granularity: "layer", or "channel": each output channel has values of its own.
        initialization: "kmeans++", "linear", "density" or "quantile"; see
            :mod:`tfnas.clustering.centroids`.
        zeros: Whether exact zeros stay, and all stay zeros' alone: True, False, or "auto": in a
            pruned model, one with 1% exact zeros or more.
        data: Typical inputs, by which an error of a weight counts as much as the mean square
            of the input that it meets: a few hundred examples, as arrays, a `tf.data.Dataset`
            or a `keras.utils.PyDataset`. None: all count the same.
        exclude: What to leave alone: names, paths or patterns ("block_*"), layers, classes of
            layers, "first", "last", "depthwise".
        embeddings: Whether tables of embeddings are clustered too.
        fold: Whether BatchNormalization is folded into the kernels that are clustered, which
            the converter would else multiply by a factor a channel afterwards: True, False, or
            "auto": where the file would hold more values for it; see
            :mod:`tfnas.clustering.batchnorm_folding`. A model with folded layers is flat.
        seed: Seed of draws.

    Returns:
        The copy and the report.

    Raises:
        ValueError: An argument is outside its rule, or the model can't be copied.

    References:
        Han, Mao and Dally, "Deep Compression", ICLR 2016.
    """
    plan = ClusterPlan(clusters, granularity, initialization, zeros, exclude, embeddings, seed)
    check_data(data)
    check_backend()
    prepared = prepare(model, plan, fold)
    copy, kernels = prepared.model, [task.kernel for task in prepared.tasks]
    counted = {} if data is None else mean_squares(copy, kernels, data)
    rows = []
    for task in prepared.tasks:
        kernel, before = task.kernel, task.kernel.numpy()
        shared, labels = plan.labels(task, before, counted.get(id(kernel)))
        tie = attach(copy, kernel, granularity, task.clusters, task.zeros)
        tie.assign(labels)
        kernel.variable.assign(shared)
        note = prepared.notes.get(kernel.path, "")
        rows.append(record_of(kernel, task.clusters, granularity, before, note))
    return copy, report_of(rows, prepared.skipped, prepared.folded, prepared.unknown)


def prepare(model: Any, plan: ClusterPlan, fold: Any = "auto") -> Prepared:
    """Returns a copy with its kernels found, and BatchNormalization folded into those.

    Raises:
        ValueError: An argument is outside its rule, or the model can't be copied.
    """
    if not (fold == "auto" or isinstance(fold, bool)):
        raise ValueError(f"fold must be 'auto', True or False, got {fold!r}")
    check_built(model)
    check_float(model, "cluster", TRAINED_WITH)
    kernels, none = find_kernels(model, plan.embeddings)
    tasks, skipped = plan.admit(kernels)
    paths = {task.kernel.path for task in tasks}
    try:
        flow = walk(model)
    except ValueError:
        if fold is True:
            raise
        copy = clone(model)
        unknown = (
            "the connections of the model's layers are not known: a BatchNormalization behind "
            "a kernel multiplies its channels in the file",
        )
        tasks = _twins(tasks, kernels, find_kernels(copy, plan.embeddings)[0])
        return Prepared(copy, tasks, [*skipped, *none], [], {}, unknown)
    pairs = normalized_kernels(flow)
    wanted = [p for p in pairs if fold is True or (fold == "auto" and _adds_values(p, plan))]
    calls = foldable(wanted, paths)
    if calls:
        copy, layers, folded = folded_copy(model, wanted, paths, flow)
        twins = [_moved(task, *_copied(task.kernel, layers)) for task in tasks]
    else:
        copy, folded = clone(model), []
        twins = _twins(tasks, kernels, find_kernels(copy, plan.embeddings)[0])
    notes = {
        p.kernel.name: _note(p, plan)
        for p in pairs
        if p.kernel.name not in folded and _adds_values(p, plan)
    }
    gone = {p.norm.name for p in wanted if id(p.norm) in calls}
    left = [s for s in none if s.name not in gone]
    return Prepared(copy, twins, [*skipped, *left], folded, notes)


def _adds_values(pair: Normalized, plan: ClusterPlan) -> bool:
    """Whether the file's kernel would hold more values for a BatchNormalization.

    A factor a channel leaves each channel as many.
    """
    return pair.behind or plan.granularity != CHANNEL


def _note(pair: Normalized, plan: ClusterPlan) -> str:
    why = f": {pair.hindrance}" if pair.hindrance else ""
    per = "row" if pair.behind else "channel"
    return f"BatchNormalization {pair.norm.name} multiplies each {per} in the file{why}"


def _twins(
    tasks: Sequence[Task], kernels: Sequence[ClusterableKernel], found: Sequence[ClusterableKernel]
) -> list[Task]:
    """The tasks with a copy's kernels, by their place: Keras may name the copy's otherwise."""
    place = {id(kernel): i for i, kernel in enumerate(kernels)}
    twins = [found[place[id(task.kernel)]] for task in tasks]
    return [_moved(t, k.layer, k.variable) for t, k in zip(tasks, twins, strict=True)]


def _copied(kernel: ClusterableKernel, layers: Mapping[int, Any]) -> tuple[Any, Any]:
    """The copies of a kernel's layer and variable."""
    layer = layers[id(kernel.layer)]
    weights = [*layer._trainable_variables, *layer._non_trainable_variables]
    return layer, next(v for v in weights if v.name == kernel.variable.name)


def _moved(task: Task, layer: Any, variable: Any) -> Task:
    own = dataclasses.replace(task.kernel, layer=layer, variable=variable)
    return dataclasses.replace(task, kernel=own)
