"""Technique: lets the weights of a kernel share a few values."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tfnas.compression.techniques.technique import (
    Applied,
    ReportSection,
    Technique,
    TechniqueOutcome,
    report_section,
)
from tfnas.settings_fields import check_options, documented, option, parse_pairs

if TYPE_CHECKING:
    import keras

    from tfnas.clustering.cluster import Prepared
    from tfnas.clustering.cluster_plan import ClusterPlan
    from tfnas.clustering.clustering_callback import ClusteringCallback
    from tfnas.clustering.clustering_report import ClusteringReport
    from tfnas.compression.technique_context import Context
    from tfnas.tflite.artifact import Artifact

RENEWAL = 5  # optimizer steps between two assignments of weights to clusters
SPEED_NOTE = (
    "Shared values make a file smaller once it is compressed; TFLite computes with it as with "
    "any other, as fast."
)


def parse_counts(texts: Sequence[str]) -> tuple[tuple[str, int], ...]:
    """Parses the values of --layers, NAME=K.

    Args:
        texts: The texts.

    Raises:
        ValueError: A text has another form.
    """
    return parse_pairs(texts, "layers", "NAME=K", whole=True)


@documented
@dataclasses.dataclass(frozen=True, kw_only=True)
class ClusterSettings:
    """Settings of weight clustering; see :func:`tfnas.cluster`.

    Example:
        >>> ClusterSettings(clusters=8, granularity="channel").renew
        5
    """

    clusters: int = option(
        16, "largest number of distinct values of a kernel, or of a channel, up to 256", low=2
    )
    layers: tuple[tuple[str, int], ...] = option(
        (), "numbers of values of single layers: NAME=K", parse=parse_counts
    )
    renew: int = option(
        RENEWAL,
        "steps between two new assignments of weights to clusters; 0: the first one stays",
        low=0,
    )
    granularity: str = option(
        "layer",
        "whether a layer or each of its output channels has values of its own",
        choices=("layer", "channel"),
    )
    initialization: str = option(
        "kmeans++",
        "initialization of k-means",
        choices=("kmeans++", "linear", "density", "quantile"),
    )
    weighted: bool = option(
        True, "without training: weight the error of each kernel element by its inputs"
    )
    exclude: tuple[str, ...] = option(
        (), "layers to leave as they are: names, patterns, first, last, depthwise"
    )
    fold: bool = option(
        True, "fold BatchNormalization where the file would have more values without", flag=False
    )

    def __post_init__(self) -> None:
        self.plan(0)
        check_options(self)

    def plan(self, seed: int) -> ClusterPlan:
        """Returns the number of clusters of each layer, and how they are found.

        Args:
            seed: Seed of the initialization.
        """
        from tfnas.clustering.cluster_plan import ClusterPlan

        own = dict(self.layers)
        clusters = {**own, **({} if "*" in own else {"*": self.clusters})} if own else self.clusters
        return ClusterPlan(
            clusters, self.granularity, self.initialization, exclude=self.exclude, seed=seed
        )


class WeightClustering(Technique[ClusterSettings]):
    """Lets the weights of a kernel share a few values."""

    name = "cluster"
    rank = 60
    keeps_itself = True
    summary = "give the weights of each kernel of a .keras model a few shared values"
    label = "clustered"
    settings = ClusterSettings
    example = "--clusters=16 --epochs=3"
    learning_rate_scale = 1 / 3

    def for_amount(
        self, amount: float, *, brief: bool = False, weights: float | None = None
    ) -> ClusterSettings:
        """Returns the settings of a number of values.

        BatchNormalization is not folded: in int8 it only scales each channel, so that the file has
        as few distinct integers as the kernel has values.

        Args:
            amount: The number.
            brief: As for the base class.
        """
        return ClusterSettings(clusters=int(amount), fold=False)

    def check(self, model: keras.Model, settings: ClusterSettings, context: Context) -> None:
        """Prepares a copy that is thrown away, so that a bad argument fails before long work."""
        from tfnas.clustering.cluster import prepare

        prepare(model, settings.plan(context.seed), "auto" if settings.fold else False)

    def apply(self, model: keras.Model, settings: ClusterSettings, context: Context) -> Applied:
        """Clusters a copy at once, or returns one with the callback that trains the values."""
        from tfnas.clustering.cluster import cluster, prepare

        plan = settings.plan(context.seed)
        if not context.settings.epochs:
            context.progress.phase("clustering without training")
            clustered, report = cluster(
                model,
                plan.clusters,
                granularity=plan.granularity,
                initialization=plan.initialization,
                data=context.calibration() if settings.weighted else None,
                exclude=plan.exclude,
                fold="auto" if settings.fold else False,
                seed=plan.seed,
            )
            return Applied(clustered, lambda: report, trains=False)
        prepared = prepare(model, plan, "auto" if settings.fold else False)
        callback = _callback(prepared, settings, context)
        context.progress.phase(f"training the values, {context.training_text()}")
        return Applied(prepared.model, lambda: _report(prepared, callback), [callback])

    def column(self) -> str:
        """The range of the numbers of values of a file's kernels."""
        return "values"

    def cell(self, file: Artifact) -> str:
        """Returns the range of the numbers of distinct values of a file's kernels."""
        counts = [kernel.values for kernel in count_values(file)]
        return f"{min(counts):,} to {max(counts):,}" if counts else ""

    def title(self, outcome: TechniqueOutcome) -> str:
        """Returns the largest number of values."""
        return f"Kernels of at most {outcome.settings.clusters} values"

    def remarks(self, outcome: TechniqueOutcome, files: Mapping[str, Artifact]) -> list[str]:
        """Returns what shared values are good for."""
        return [SPEED_NOTE]

    def sections(
        self, outcome: TechniqueOutcome, files: Mapping[str, Artifact]
    ) -> list[ReportSection]:
        """Returns the values of the model's kernels and of the files' kernels."""
        report = outcome.reports[0]
        folded = ", ".join(report.folded) if report.folded else "no layer"
        texts = [
            f"{report.summary()}.",
            f"BatchNormalization was folded into {folded}.",
            *report.notes,
        ]
        headers = ["file", "layer", "operator", "weights", "values", "values a channel"]
        rows = [
            [label, k.layer, k.operator, *(f"{n:,}" for n in (k.weights, k.values, k.channel))]
            for label, file in files.items()
            if not label.startswith(("original", "post-training"))
            for k in count_values(file)
        ]
        kernels = dataclasses.replace(
            report_section("The kernels", report, 4), texts=texts, prose=[3]
        )
        return [kernels, ReportSection("The values in the files", headers, rows, 3)]

    def products(self, outcome: TechniqueOutcome, files: Mapping[str, Artifact]) -> dict[str, str]:
        """Returns the report as JSON."""
        import json

        return {"clustering.json": json.dumps(outcome.reports[0].as_dict(), indent=1)}


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
    import numpy as np

    from tfnas.tflite.file_weights import read_kernels

    channels_last, found = ("DEPTHWISE_CONV_2D", "CONV_3D", "BATCH_MATMUL"), []
    for kernel in read_kernels(file):
        channels = np.moveaxis(kernel.values, -1 if kernel.operator in channels_last else 0, 0)
        most = max(len(np.unique(channel)) for channel in channels)
        values, weights = len(np.unique(kernel.values)), kernel.values.size
        found.append(FileValues(kernel.layer, kernel.operator, weights, values, most))
    return found


def _callback(
    prepared: Prepared, settings: ClusterSettings, context: Context
) -> ClusteringCallback:
    from tfnas.clustering.clusterable_kernels import find_kernels
    from tfnas.clustering.clustering_callback import ClusteringCallback

    kernels = find_kernels(prepared.model)[0]
    counts = {id(task.kernel.variable): task.clusters for task in prepared.tasks}
    clusters: int | dict[str, int | None]
    exclude: list[Any] = []
    if len(set(counts.values())) == 1:
        # By layer: a trainer around the model, such as a Distiller, gives them longer paths.
        clusters = prepared.tasks[0].clusters
        chosen = {id(k.layer) for k in kernels if id(k.variable) in counts}
        others = {id(k.layer): k.layer for k in kernels if id(k.layer) not in chosen}
        exclude = list(others.values())
    else:
        # The copy may be flat: then its layers have other paths than the plan's.
        clusters = {k.name: counts[id(k.variable)] for k in kernels if id(k.variable) in counts}
    return ClusteringCallback(
        clusters,
        settings.renew or None,
        "step",
        granularity=settings.granularity,
        initialization=settings.initialization,
        exclude=exclude,
        seed=context.seed,
    )


def _report(prepared: Prepared, callback: ClusteringCallback) -> ClusteringReport:
    from tfnas.clustering.clustering_report import ClusteringReport

    # With a teacher a Distiller holds the model, and its kernels have longer names.
    own = {id(task.kernel.variable): task.kernel for task in prepared.tasks}
    rows = []
    for trained, row in zip(callback.kernels, callback.report.kernels, strict=True):
        kernel = own[id(trained.variable)]
        note = prepared.notes.get(kernel.path, "")
        rows.append(dataclasses.replace(row, name=kernel.name, note=note))
    return ClusteringReport(
        tuple(rows), tuple(prepared.skipped), tuple(prepared.folded), prepared.unknown
    )
