"""A recorded result of each kind that has a report; nothing is trained, converted or measured."""

import dataclasses
import pathlib
import types

import keras
import numpy as np
from planning import candidate

import tfnas
from tfnas.clustering.clustering_report import ClusteredKernel, ClusteringReport
from tfnas.compression.budget import Budget
from tfnas.compression.file_comparison_table import FileRow
from tfnas.compression.fine_tune_settings import FineTuneSettings
from tfnas.compression.layer_costs import FileLayer
from tfnas.compression.model_analysis import LayerAnalysis, ModelAnalysis
from tfnas.compression.plan_settings import PlanSettings
from tfnas.compression.recipe import Recipe
from tfnas.compression.results.compress_result import CompressResult
from tfnas.compression.results.technique_result import TechniqueResult
from tfnas.compression.technique_context import Context
from tfnas.compression.techniques.registry import technique
from tfnas.compression.techniques.technique import TechniqueOutcome
from tfnas.data.data_split import DataSplit
from tfnas.graph.functional import Skipped
from tfnas.low_rank.low_rank_report import FactoredLayer, FactorizationReport
from tfnas.measure.agreement import PLAIN, Agreement, MetricPair
from tfnas.measure.measurement import Latency, Measurement, Score
from tfnas.measure.quantization_debugger.error_report import (
    FloatLayers,
    LayerError,
    OutputError,
    QuantizationError,
)
from tfnas.measure.throughput import Throughput
from tfnas.nas.measured_trial import MeasuredTrial
from tfnas.nas.search_config import SearchConfig
from tfnas.nas.search_result import ReportRow, SearchResult
from tfnas.pruning.pruning_report import PrunedKernel, PruningReport
from tfnas.pruning.sensitivity import Sensitivity
from tfnas.pruning.structured.channel_report import ChannelPruningReport, GroupChange
from tfnas.reports import compress_report, hypermodel_report, search_report, technique_report
from tfnas.targets.device import Device
from tfnas.tasks.assessment import ACCURACY, Assessment, Metric
from tfnas.tasks.image_classes import ImageClasses

KINDS = (
    "prune",
    "cluster",
    "factorize",
    "prune_channels",
    "qat",
    "compress",
    "search",
    "hypermodel",
)


def write_report(kind, folder, layer="stem", teacher=None, words=None):
    """Writes the report of a recorded result.

    Args:
        kind: One of `KINDS`.
        folder: Where it is written.
        layer: Name of a layer, a class and a data set: whatever a user may choose.
        teacher: Path of a teacher, a setting of searches.
        words: How the report calls examples and their metric.
    """
    folder = pathlib.Path(folder)
    data = split(layer)
    {
        "prune": _prune,
        "cluster": _cluster,
        "factorize": _factorize,
        "prune_channels": _prune_channels,
        "qat": _qat,
        "compress": _compress,
        "search": lambda *arguments: _search(*arguments, teacher),
        "hypermodel": _hypermodel,
    }[kind](folder, data, layer, words)


def split(name):
    """Returns a data set of eight images of three classes in each part."""
    x = np.linspace(0, 255, 8 * 12, dtype=np.float32).reshape(8, 3, 4, 1)
    y = np.arange(8) % 3
    return DataSplit(name, x, y, x, y, x, y, ("cat", name, "dog"))


def file(size, answers=None):
    """Returns a stand-in for a file: its sizes and its answers."""
    predict = lambda x: np.eye(3)[np.zeros(len(x), int)] if answers is None else answers  # noqa: E731
    return types.SimpleNamespace(size=size, gzip_size=size // 2, predict=predict)


def latency(ratio):
    return Latency(
        *(0.2, 0.15, 0.3, ratio, 0.9 * ratio, 1.1 * ratio, 0.1, "reference", 20, 1, True)
    )


def rows(*labels, of=file, metric=None):
    """Returns a measured file for each label, the first without a difference."""
    found = []
    for i, label in enumerate(labels):
        quality = _Recorded(0.91 - 0.013 * i, metric or ACCURACY)
        difference = (-0.013 * i, -0.02, 0.001) if i else None
        found.append(FileRow(label, of(20_480 - 512 * i), quality, difference))
    return found


class _Recorded(Assessment):
    """An assessment whose score was recorded."""

    def __init__(self, value, metric):
        super().__init__(metric, np.zeros(8, bool))
        object.__setattr__(self, "value", value)

    @property
    def score(self):
        return Score(self.metric.name, self.value, 0.85, 0.95, 90)


def metric_in(words):
    """Returns the metric that is called by such words."""
    return Metric(words.metric, scale=100.0, unit=words.points)


def reference(_):
    """Returns a true file, whose kernels can be read."""
    folder = pathlib.Path(tfnas.__file__).parent
    return tfnas.Artifact.load(folder / "measure" / "reference.tflite")


def _technique(folder, data, words, name, settings, reports, labels, notes=(), **extras):
    """Writes the report of one technique."""
    settings = technique(name).settings(**settings)
    training = FineTuneSettings(epochs=2)
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    if name == "qat":
        model = tfnas.quantize_aware(model)
    outcome = TechniqueOutcome(name, settings, model, reports, extras, training)
    times = {label: latency(0.5 - 0.1 * i) for i, label in enumerate(labels)}
    files = rows(*labels, of=reference)
    result = TechniqueResult(folder, [outcome], files, times, list(notes), curves(name))
    task = ImageClasses()
    if words is not None:
        task.noun, task.metric = words.examples, metric_in(words)
    technique_report.write(result, Context(model, task, data, training))


def curves(name):
    """Returns the epochs of a recorded training, and of one that was interrupted."""
    loss = [0.9, 0.3, 0.05, 0.04]
    longer = {"loss": [None, 0.2, 0.1], "sparsity": [None, 0.4, 0.5]}
    return {name: {"loss": loss, "accuracy": [0.6, 0.8, 0.95, 0.96]}, f"{name} again": longer}


def errors(layer):
    """Returns a recorded quantization error of two operators."""
    one = LayerError(layer, "CONV_2D", "int8", (1, 3, 4, 8), 1e-3, 5e-4, 0.01, 1e-4, 72, 8, 1e-5)
    two = LayerError("head", "FULLY_CONNECTED", "float32", (1, 3), 0.0, 0.0, 0.0, 0.0)
    kept = FloatLayers((), 2048, (OutputError("out", 1e-3, 0.02),))
    return QuantizationError("model", "int8", 64, (one, two), (kept,))


def _prune(folder, data, layer, words):
    kernels = (
        PrunedKernel(layer, "Conv2D", (3, 3, 1, 8), 72, 36, "fitted, error 0.012"),
        PrunedKernel("head", "Dense", (96, 3), 2880, 2304),
    )
    report = PruningReport(
        kernels, (Skipped("norm", "BatchNormalization", f"no kernel | {layer}"),)
    )
    curve = Sensitivity(-0.2, (0.3, 0.5), (layer, "head"), (72, 2880), ((-0.3, -0.9), (-0.2, -0.4)))
    settings = {"sparsity": 0.8, "exclude": (layer,), "scope": "sensitivity"}
    labels = ("original, float32", "pruned, float32")
    notes = [f"no sparse file: {layer}"]
    _technique(
        *(folder, data, words, "prune", settings, [report], labels, notes), sensitivity=curve
    )


def _cluster(folder, data, layer, words):
    kernel = ClusteredKernel(
        *(layer, "Conv2D", (3, 3, 1, 8), 16, "layer", 72, 16, 0, 0.0312),
        *(288, 300, 120, 100, 90, "note"),
    )
    report = ClusteringReport((kernel,), (Skipped("head", "Dense", "excluded"),), (layer,), ("N.",))
    labels = ("original, float32", "clustered, float32")
    settings = {"layers": ((layer, 4), ("*", 16))}
    _technique(folder, data, words, "cluster", settings, [report], labels, [f"skipped {layer}"])


def _factorize(folder, data, layer, words):
    factored = FactoredLayer(layer, "Conv2D", "svd", (4,), (8640, 4000), (800, 400), 0.0123)
    left = (Skipped("head", "Dense", f"feeds {layer}"),)
    report = FactorizationReport((factored,), left, (9000, 4360), (900, 500), True, ("A note.",))
    labels = ("original, float32", "low rank, float32")
    settings = {"macs": 0.5, "exclude": (layer,)}
    _technique(folder, data, words, "factorize", settings, [report], labels)


def _prune_channels(folder, data, layer, words):
    groups = (GroupChange(layer, (layer,), 16, 8), GroupChange("b", ("b",), 8, 8, f"as {layer}"))
    report = ChannelPruningReport(groups, (9000, 4500), (900, 470), (f"{layer} is approximate.",))
    labels = ("original, float32", "smaller, float32")
    settings = {"sizes": ((layer, 5), ("body", 8))}
    reports, notes = [report, report], ["int8: failed"]
    _technique(folder, data, words, "prune_channels", settings, reports, labels, notes)


def _qat(folder, data, layer, words):
    labels = ("original, float32", "post-training, int8", "trained, int8")
    settings = {"layers": ((layer, "int4"),)}
    notes = [f"float16: {layer}"]
    _technique(*(folder, data, words, "qat", settings, [None], labels, notes), errors=errors(layer))


def _compress(folder, data, layer, words):
    tried = [
        candidate(Recipe((), "float16", why=f"small, of {layer}"), 0.1, 900, 0.9),
        candidate(Recipe((), "int8", why="fast"), 1.6, 400, 0.5, macs=0.5),
    ]
    labels = ("original, float32", "int8")
    answers = np.eye(3)[np.arange(8) % 2]
    metric = ACCURACY if words is None else metric_in(words)
    tried[1] = dataclasses.replace(
        tried[1],
        file=file(400, answers[[4, 7]]),
        assessment=dataclasses.replace(tried[1].assessment, metric=metric),
    )
    budget = Budget(max_drop=1.0, max_bytes=500)
    pair = MetricPair(0.91, 0.85, (-0.06, -0.09, -0.03))
    same = MetricPair(0.91, 0.9, (-0.01, -0.02, 0.01))
    broken = np.array([4, 7])
    agreed = Agreement(
        *(8, (0.25, 0.1, 0.4), 2, 1, {PLAIN: same, "blur": pair}, {layer: pair}, (0.03, 0.04)),
        broken,
    )
    analyzed = (LayerAnalysis(layer, "Conv2D", 8640, 72, 0.4, 0.02, None),)
    result = CompressResult(
        directory=folder,
        budget=budget,
        effort="normal",
        device=Device(),
        candidates=tried,
        front=tried,
        best=tried[1],
        excesses={"max_drop": 0.6},
        original=(0.9, 1.0, 20_480),
        rows=rows(*labels, metric=metric),
        latencies={label: latency(1.0 - 0.4 * i) for i, label in enumerate(labels)},
        agreement=agreed,
        failures={"int4": f"no kernel for {layer}"},
        model_analysis=ModelAnalysis(analyzed, 900, seconds=3.2),
        plan=PlanSettings(("int8",), reasons=(f"{layer} takes 40% of the time", "int8 first")),
        layers=(FileLayer(layer, "CONV_2D", (8, 3, 3, 1), 8, 1072, 0.5, 16, 8640, None),),
        throughput=[Throughput(i, 8, 1, 100.0 + i, 90.0, 120.0, 1.5, 1.2, 1.7, 20) for i in (0, 1)],
        saved_model=None,
        curves=curves(layer),
    )
    compress_report.write(result, data, FineTuneSettings(epochs=3), words)


def _search(folder, data, layer, words, teacher):
    space = tfnas.MobileNetV2Space((32, 32, 3), 3, "mobile")
    rng = np.random.default_rng(1)
    trials = [_trial(i, space.sample(rng)) for i in range(8)]
    right = np.arange(8) > 1
    files = [
        ReportRow(label, trials[0].measurement, 0.8 - 0.1 * i, np.roll(right, i))
        for i, label in enumerate(("winner, int8", f"{layer}, int8"))
    ]
    result = SearchResult(
        folder, trials[0], trials, trials[:2], files, files[1:], False, target_ratio=0.7
    )
    compression = teacher and tfnas.CompressionSpace(distill=(True,))
    config = SearchConfig(layer, seed=4, teacher=teacher, compression=compression or None)
    search_report.write(result, config, data, words)


def _hypermodel(folder, data, layer, words):
    metric = words.metric if words else "val_accuracy"
    trials = [
        (f"{i}", {metric: 0.8 - 0.1 * i, "size_bytes": 900.0}, {layer: 8 * i}) for i in range(2)
    ]
    config = SearchConfig(layer, seed=4)
    found = {"objectives": (metric,), "interrupted": False}
    hypermodel_report.write(folder, trials, {"2": layer}, config, str(data), **found)


def _trial(number, arch):
    size = 20_000 + 1000 * number
    found = Measurement(
        *(size, size // 2, "0" * 64, "int8", Score("accuracy", 0.9 - 0.01 * number, 0.8, 0.95, 90)),
        *(latency(0.5 + 0.1 * number), 5000 + number, 90_000 + number, 800, arch.key),
    )
    metrics = {"rung": float(number % 2), "epochs": float(1 + number % 2)}
    name = f"{number:02d}"
    return MeasuredTrial(name, arch, found, 0.8 - 0.02 * number, pathlib.Path("x"), metrics)
