"""Result of :func:`tfnas.compress`, and the sentences that it is summarized in."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Any

from tfnas.compression.budget import QUALITY_LIMITS, Budget, CandidateCosts
from tfnas.compression.candidate_store import Candidate
from tfnas.compression.file_comparison_table import FileRow, row_of
from tfnas.compression.layer_costs import FileLayer
from tfnas.compression.model_analysis import ModelAnalysis
from tfnas.compression.plan_settings import PlanSettings
from tfnas.compression.recipe import Recipe
from tfnas.compression.results.file_rows import (
    difference_text,
    more_lines,
    short_headers,
    short_rows,
    size_and_speed,
)
from tfnas.compression.results.printed_result import PrintedResult
from tfnas.compression.targets_from_budget import FEWER_BITS
from tfnas.compression.training_curves import Curves
from tfnas.drawing.pareto_figure import pareto_figure
from tfnas.drawing.pareto_plot import ParetoLabels, ParetoPlot
from tfnas.measure.agreement import Agreement
from tfnas.measure.measurement import Latency
from tfnas.measure.output_agreement import OutputAgreement
from tfnas.measure.throughput import Throughput
from tfnas.targets.device import Device
from tfnas.tasks.assessment import Metric
from tfnas.tasks.judged_parts import Evaluation


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class CompressResult(PrintedResult):
    """Result of :func:`tfnas.compress`.

    Args:
        directory: Folder of the job's files.
        budget: The limits.
        effort: How much was tried: "quick", "normal" or "thorough".
        device: The device of the limits on a device.
        candidates: All candidates, in the order in which they were built.
        front: The Pareto front of quality, size, time and each other cost with a limit.
        best: The candidate that meets the budget best, or the nearest to it.
        excesses: Limits that `best` exceeds -> by how much; empty where it meets all.
        original: The original's float32 file on the examples for choosing: (metric, 1.0, bytes).
        rows: Files on the final examples: the original's float32 file first, then the front.
        latencies: Measured latency of each of those, by label.
        agreement: How the predictions of `best` differ from the original's: classes, or numbers;
            None where the task has no such comparison.
        failures: Recipes, or other things, that failed -> why.
        model_analysis: Costs and sensitivity of the original's layers, measured first.
        plan: What was tried because of that, with the reasons.
        layers: The kernels of `best`.
        throughput: Examples a second of the original's float32 file, then of `best`.
        saved_model: Folder of `best` as a SavedModel; None where there is none.
        by_group: Quality of `best`, and its differences to the original's file, by the groups of
            the final examples; None where they have no groups.
        notes: How the parts of the data were made.
        curves: Training -> name -> value of each epoch.
    """

    directory: pathlib.Path
    budget: Budget
    effort: str
    device: Device
    candidates: list[Candidate]
    front: list[Candidate]
    best: Candidate
    excesses: dict[str, float]
    original: tuple[float, float, int]
    rows: list[FileRow]
    latencies: dict[str, Latency]
    agreement: Agreement | OutputAgreement | None
    failures: dict[str, str]
    model_analysis: ModelAnalysis
    plan: PlanSettings
    layers: tuple[FileLayer, ...]
    throughput: list[Throughput]
    saved_model: pathlib.Path | None
    by_group: Evaluation | None = None
    notes: tuple[str, ...] = ()
    curves: Curves = dataclasses.field(default_factory=dict)

    @property
    def meets(self) -> bool:
        """Whether `best` meets all limits of the budget."""
        return not self.excesses

    def time_ratio(self, row: FileRow) -> tuple[float, float, float]:
        """Returns (ratio, low, high) of a file's latency to the original's."""
        return self.latencies[row.label].ratio_to(self.latencies[self.rows[0].label])

    def plot(self, over: Sequence[str] = ("latency", "bytes")) -> Any:
        """Draws every file that was tried: its quality over its time and over its size.

        A notebook shows the figure. In a script, save it.

        Example:
            >>> result.plot()  # doctest: +SKIP
            >>> result.plot(over=["bytes"]).savefig("files.png")  # doctest: +SKIP

        Args:
            over: "latency", "bytes" or both: a panel for each.

        Returns:
            A `matplotlib.figure.Figure`.

        Raises:
            ValueError: `over` holds something else, or nothing.
            ImportError: matplotlib is not installed.
        """
        return pareto_figure(self.pareto_plot(over))

    def pareto_plot(
        self, over: Sequence[str], title: str = "", labels: ParetoLabels | None = None
    ) -> ParetoPlot:
        """Returns what a plot of the candidates shows, on the examples for choosing.

        Args:
            over: "latency", "bytes" or both.
            title: Title of the plot.
            labels: Words on the axes; None: those of the metric.
        """
        metric, limits = self.best.assessment.metric, self.budget.limits
        labels = labels or ParetoLabels(
            *(metric.name, "examples for choosing", "the original", metric.higher_is_better)
        )
        lines = {"latency": limits.get("max_latency_ratio"), "bytes": limits.get("max_bytes")}
        allowed = self.budget.allowed_drop(metric, self.original[0])
        if allowed is not None:
            lines["quality"] = self.original[0] - metric.gain(allowed)
        size = "size" if self.budget.max_gzip_bytes is None else "gzipped size"
        costs = [candidate.costs for candidate in self.candidates]
        return ParetoPlot(
            [
                (c.assessment.metric.value(c.assessment.values), c.costs.latency, c.costs.bytes)
                for c in self.candidates
            ],
            [self.candidates.index(candidate) for candidate in self.front],
            self.candidates.index(self.best),
            title,
            labels,
            (labels.metric, "latency", size, *self.best.costs.device),
            over=over,
            others={self.rows[0].label: self.original},
            errors=[(c.drop[2] - c.drop[1]) / (2 * metric.scale) for c in self.candidates],
            limits={name: float(limit) for name, limit in lines.items() if limit is not None},
            names=[str(candidate.recipe) for candidate in self.candidates],
            more={
                "gzip, KiB": [each.gzip_bytes / 1024 for each in costs],
                "RAM, KiB": [each.memory / 1024 for each in costs],
                "MACs": [each.macs for each in costs],
                **{name: [e.device[name] for e in costs] for name in self.best.costs.device},
            },
        )

    def _headline(self) -> str:
        costs = self.best.costs
        met = "meets" if self.meets else "exceeds"
        lost = f"{self.best.assessment.metric.text(costs.drop)} lost"
        return (
            f"{self.best.recipe}: {lost}, {costs.bytes:,} bytes, "
            f"{costs.latency:.3f}x, {met} {self.budget}"
        )

    def _table(self) -> tuple[list[str], list[list[str]]]:
        def time(row: FileRow) -> list[str]:
            return ["1" if row is self.rows[0] else f"{self.time_ratio(row)[0]:.3f}x"]

        metric = self.best.assessment.metric
        return short_headers("time", metric=metric), short_rows(self.rows, time)

    def _remarks(self) -> list[str]:
        lines = [
            *remarks(self),
            *more_lines(self.rows, str(self.best.recipe)),
            *self._on_device(),
            *(self.agreement.warnings() if self.agreement else ()),
            *(self.by_group.warnings() if self.by_group else ()),
        ]
        return [verdict(self), *(f"- {line}" for line in lines)]

    def _on_device(self) -> list[str]:
        texts = self.best.costs.device_texts()
        metrics = ", ".join(f"{name} {value}" for name, value in texts.items())
        return [f"{self.best.recipe} on the device: {metrics}"] if texts else []


def answer(result: CompressResult) -> str:
    """Returns in a sentence what the best file gained and lost, on the final examples."""
    row = row_of(result.rows, str(result.best.recipe))
    first = result.rows[0].file.size
    text = size_and_speed(first, row.file.size, result.time_ratio(row))
    return f"{text}, {difference_text(row)}, against the original's float32 file: `best.tflite`."


def verdict(result: CompressResult) -> str:
    """Returns whether the budget is met, and by which file, in a sentence."""
    budget = f"budget ({result.budget})"
    if result.meets:
        return f"{result.best.recipe} keeps the {budget}."
    best = result.best
    if best.costs.refused:
        return f"No file keeps the {budget}. {refusal(best.recipe, best.costs)}."
    metric = best.assessment.metric
    over = [f"{name} by {_excess(name, value, metric)}" for name, value in result.excesses.items()]
    return (
        f"No file keeps the {budget}. The nearest, {best.recipe}, exceeds "
        f"{' and '.join(over)}: relax that, try more effort, or train longer."
    )


def remarks(result: CompressResult) -> list[str]:
    """Returns what the verdict, which is by the examples for choosing, does not say."""
    best, lines = result.best, []
    row = row_of(result.rows, str(best.recipe))
    metric = row.assessment.metric
    lost = metric.drop(row.difference[0]) if row.difference else 0.0
    allowed = result.budget.allowed_drop(metric, result.rows[0].assessment.score.value)
    if result.meets and allowed is not None and lost > allowed:
        limits = result.budget.limits
        over = " and ".join(f"{n} {limits[n]:g}" for n in QUALITY_LIMITS if n in limits)
        lines.append(
            "on the final examples, which were not used to choose, the best file loses "
            f"{metric.text(lost)}, more than {over}"
        )
    if best.costs.drop < 0 and best.recipe.trains:
        lines.append(
            f"the best file is better than the original by {metric.text(-best.costs.drop)}: "
            "it was trained further, and further training might improve the original as well"
        )
    alike = [each for each in result.candidates if each.recipe.steps == best.recipe.steps]
    for other in alike if best.recipe.mode == FEWER_BITS else ():
        if other.recipe.mode == "int8" and other.costs.bytes <= best.costs.bytes:
            lines.append(
                f"{best.recipe} takes {best.costs.bytes:,} bytes, {other.recipe} "
                f"{other.costs.bytes:,}: fewer bits save none here"
            )
    return [*lines, *result.notes]


def refusal(recipe: Recipe, costs: CandidateCosts) -> str:
    """Returns why the device can't run a candidate."""
    return f"The device can't run {recipe}: {costs.refused.rstrip('.')}"


def _excess(name: str, value: float, metric: Metric) -> str:
    if name in ("max_drop", "quality_limit"):
        return metric.text(value * (metric.scale if name == "quality_limit" else 1))
    return f"{value:.0f}" if name == "max_vela_cpu_operators" else f"{value:.0%}"
