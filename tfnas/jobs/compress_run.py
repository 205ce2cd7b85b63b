"""Builds, measures and chooses the files of a job of `compress`."""

from __future__ import annotations

import dataclasses
import os
import pathlib
from typing import TYPE_CHECKING

from tfnas.compression.budget import Budget
from tfnas.compression.candidate_store import Candidate, CandidateStore
from tfnas.compression.choice import limited_costs, measured_front
from tfnas.compression.device_costs import Target, target_notes
from tfnas.compression.effort import EFFORTS, Effort
from tfnas.compression.file_comparison_table import FileRow, compare_files, row_of
from tfnas.compression.file_sizes import untrained_size
from tfnas.compression.layer_costs import file_layers
from tfnas.compression.plan_settings import PlanSettings, decide_plan
from tfnas.compression.planner import first_state, next_step
from tfnas.compression.recipe import RecipeStep
from tfnas.compression.results.compress_result import CompressResult
from tfnas.compression.technique_context import Context
from tfnas.compression.techniques.registry import techniques
from tfnas.compression.tolerance import Tolerance
from tfnas.compression.training_curves import FILE, TrainingCurves
from tfnas.data.examples import ExampleSet, notes_of
from tfnas.loading import Loading
from tfnas.measure.agreement import Agreement
from tfnas.measure.latency import benchmark
from tfnas.measure.measurement import Latency
from tfnas.measure.output_agreement import OutputAgreement
from tfnas.measure.throughput import Throughput, throughput
from tfnas.reports import compress_report
from tfnas.reports.content import Words
from tfnas.tasks.judged_parts import Evaluation, evaluation_of, members_of
from tfnas.tflite.artifact import Artifact
from tfnas.tflite.saved_model import to_saved_model

if TYPE_CHECKING:
    import keras


ORIGINAL = "original, float32"  # label of the original's file
BATCHES, THREADS = (1, 8, 32), (1, 2)  # of the throughput
MAX_BATCH_MS = 500.0  # larger batches are left out of the throughput


def run_compression(
    context: Context,
    folder: pathlib.Path,
    budget: Budget,
    target: Target,
    effort: str,
    loading: Loading,
) -> CompressResult:
    """Tries what the plan says, chooses files and writes the report.

    Args:
        context: The model, its task and data, and how steps are trained.
        folder: Folder of the job.
        budget: The limits.
        target: The device of the files.
        effort: How much is tried.
        loading: How the models of an earlier run are read.

    Raises:
        RuntimeError: No model could be converted.
    """
    gzipped, timed = budget.max_gzip_bytes is not None, budget.max_latency_ratio is not None
    context = context.replace(curves=TrainingCurves(folder / FILE))
    store = CandidateStore(
        *(context, folder, gzipped, target, timed), limited_costs(budget), loading
    )
    metric, values = store.assessment.metric, store.assessment.values
    tolerance = Tolerance.of(metric, metric.value(values), budget)
    plan = _tried(store, budget, EFFORTS[effort], tolerance)
    result = _result(store, budget, effort, plan, tolerance)
    words = Words.of(context.task)
    compress_report.write(result, context.data, context.settings, words, target)
    return result


def _tried(
    store: CandidateStore, budget: Budget, effort: Effort, tolerance: Tolerance
) -> PlanSettings:
    """Analyzes the model, and builds one candidate after another as the planner says."""
    progress = store.context.progress
    progress.phase("analyzing the model: the costs and the sensitivity of its layers")
    analysis = store.analyze_model(bool(effort.epochs))
    plan = dataclasses.replace(
        decide_plan(budget, effort, analysis, store.target.device),
        more=_further_techniques(trained=bool(effort.epochs)),
        sized=bool(effort.epochs),
    )
    for line in plan.reasons:
        progress.phase(f"plan: {line}")
    if tolerance.allowed is not None and tolerance.allowed < 0:
        better = store.assessment.metric.text(-tolerance.allowed)
        progress.phase(f"plan: quality_limit is better than the original by {better}")
    state, recipe = next_step(first_state(budget, effort, plan, tolerance=tolerance), None)
    while recipe is not None:
        known = state.remarks
        if recipe.untrained:
            outcome = untrained_size(recipe, store.context, store.folder, store.target)
            state, recipe = next_step(state, outcome)
        else:
            state, recipe = next_step(state, store.make(recipe))
        for line in state.remarks[len(known) :]:
            progress.phase(f"plan: {line}")
    return dataclasses.replace(plan, reasons=(*plan.reasons, *state.remarks))


def _further_techniques(trained: bool) -> tuple[RecipeStep, ...]:
    """Returns the steps of techniques that the planner has no rule of its own for.

    Args:
        trained: Whether techniques that train are among them.
    """
    return tuple(
        RecipeStep(each.name, amount)
        for each in techniques()
        if trained or not each.trains
        for amount in each.choices
    )


def _result(
    store: CandidateStore,
    budget: Budget,
    effort: str,
    plan_settings: PlanSettings,
    tolerance: Tolerance,
) -> CompressResult:
    """Measures the front on the final examples and chooses the best file."""
    if not store.candidates:
        raise RuntimeError(f"no model could be converted: {'; '.join(store.failures.values())}")
    progress = store.context.progress
    noun = store.context.task.noun
    progress.phase(f"measuring the front on the final {noun}, not used to choose")
    candidates, best, latencies = _timed_front(store, budget, tolerance)
    files = [(ORIGINAL, store.baseline)]
    files += [(str(candidate.recipe), candidate.file) for candidate in candidates]
    rows = compare_files(store.context.task, store.data.test, files)
    best.file.save(store.folder / "best.tflite")
    model = store.model_of(best.recipe)
    progress.phase(f"examining {best.recipe}: agreement with the original, layers, throughput")
    return CompressResult(
        directory=store.folder,
        budget=budget,
        effort=effort,
        device=store.target.device,
        candidates=store.candidates,
        front=candidates,
        best=best,
        excesses=budget.excesses(best.costs),
        original=(store.assessment.score.value, 1.0, store.baseline.size),
        rows=rows,
        latencies=latencies,
        agreement=_agreement(store, best, model),
        failures=store.failures,
        model_analysis=store.analyze_model(pruning=False),
        plan=plan_settings,
        layers=file_layers(model, best.file, store.typical_inputs()),
        throughput=_throughput(
            [store.baseline, best.file], store.data.test, latencies[ORIGINAL].median_ms
        ),
        saved_model=_saved_model(store, model),
        by_group=_by_group(rows, best, store.data.test),
        notes=(
            *notes_of(store.data),
            *target_notes(store.target, best.file),
            *_measured_on(latencies[ORIGINAL]),
        ),
        curves={} if store.context.curves is None else store.context.curves.curves,
    )


def _measured_on(latency: Latency) -> list[str]:
    """A note on the device that latencies are of; none for this machine."""
    if not latency.device:
        return []
    return [f"latencies were measured on {latency.device}; throughput and layers on this machine"]


def _by_group(rows: list[FileRow], best: Candidate, test: ExampleSet) -> Evaluation | None:
    """Returns the quality of the best file by the groups of the test data; None without groups."""
    groups = getattr(test, "groups", None)
    if groups is None:
        return None
    row = row_of(rows, str(best.recipe))
    return evaluation_of([row.assessment, rows[0].assessment], members_of(groups))


def _timed_front(
    store: CandidateStore, budget: Budget, tolerance: Tolerance
) -> tuple[list[Candidate], Candidate, dict[str, Latency]]:
    """Returns the front, the best of all candidates, and the latency of each file by label.

    Side by side: more precise than the latencies measured when each file was made.
    """
    latencies: dict[str, Latency] = {}

    def measure(candidates: list[Candidate]) -> None:
        labels = [ORIGINAL, *(str(candidate.recipe) for candidate in candidates)]
        files = [store.baseline, *(candidate.file for candidate in candidates)]
        times = benchmark(files, measure_on=store.target.measure_on)
        latencies.update(zip(labels, times, strict=True))
        store.retimed(candidates, [time.ratio / times[0].ratio for time in times[1:]])

    kept, best = measured_front(lambda: store.candidates, budget, tolerance, measure)
    labels = [ORIGINAL, *(str(candidate.recipe) for candidate in kept)]
    return kept, best, {label: latencies[label] for label in labels}


def _agreement(
    store: CandidateStore, best: Candidate, model: keras.Model
) -> Agreement | OutputAgreement | None:
    return store.context.task.agreement(
        (store.baseline, best.file), store.data, (store.context.original, model)
    )


def _throughput(files: list[Artifact], test: ExampleSet, ms: float) -> list[Throughput]:
    """Measures batches of at most `MAX_BATCH_MS`, on at most as many threads as processors."""
    batches = [size for size in BATCHES if size == 1 or size * ms <= MAX_BATCH_MS]
    threads = [count for count in THREADS if count <= (os.cpu_count() or 1)]
    return throughput(files, test.first(max(BATCHES)).x, batches, threads, rounds=12)


def _saved_model(store: CandidateStore, model: keras.Model) -> pathlib.Path | None:
    """Exports the Keras model behind the best file for servers."""
    try:
        return to_saved_model(model, store.folder / "saved_model")
    except Exception as error:  # a failed export must not lose hours of work
        store.failures["SavedModel"] = " ".join(str(error).split())
        return None
