"""One call from a trained model, its data and a budget to files that meet the budget.

The model is the teacher of everything that is trained. Half of the test part is for choosing among
files; the other half measures the chosen ones once, at the end, since the images that a model was
trained on can't tell its accuracy.
"""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

from tfnas.compression.budget import Budget
from tfnas.compression.candidate_store import Candidate, CandidateStore, best_for_budget, front
from tfnas.compression.device_costs import Target
from tfnas.compression.effort import EFFORTS, Effort
from tfnas.compression.file_comparison_table import compare_files
from tfnas.compression.fine_tune_settings import FineTuneSettings
from tfnas.compression.layer_costs import file_layers
from tfnas.compression.plan_settings import PlanSettings, decide_plan
from tfnas.compression.planner import first_state, next_step
from tfnas.compression.planner_state import Tolerance
from tfnas.compression.progress import Progress
from tfnas.compression.recipe import RecipeStep
from tfnas.compression.results.compress_result import CompressResult
from tfnas.compression.technique_context import Context
from tfnas.compression.techniques.registry import techniques
from tfnas.data.data_split import DataSplit
from tfnas.data.examples import ExampleSet
from tfnas.jobs.compress_folder import compress_folder, identity_of, set_aside
from tfnas.jobs.inputs import check_task, load_model_and_data
from tfnas.measure.agreement import Agreement
from tfnas.measure.latency import benchmark
from tfnas.measure.throughput import Throughput, throughput
from tfnas.optional import require
from tfnas.reports import compress_report
from tfnas.reports.content import Words
from tfnas.targets.device import Device
from tfnas.tasks.image_classes import ImageClasses
from tfnas.tasks.task import Task
from tfnas.tflite.artifact import Artifact
from tfnas.tflite.saved_model import to_saved_model

if TYPE_CHECKING:
    import keras

    from tfnas.nas.search_result import SearchResult

ORIGINAL = "original, float32"  # label of the original's file
BATCHES, THREADS = (1, 8, 32), (1, 2)  # of the throughput
MAX_BATCH_MS = 500.0  # larger batches are left out of the throughput
DISTILL = 0.3  # fraction of the loss: a model trained once more learns more from the labels


def compress(
    model: keras.Model | str | os.PathLike[str] | SearchResult,
    data: DataSplit | str | pathlib.Path | None,
    budget: Budget | Mapping[str, float],
    *,
    directory: str | pathlib.Path = "compressed",
    effort: Literal["quick", "normal", "thorough"] = "normal",
    epochs: int | None = None,
    batch_size: int = 64,
    learning_rate: float = 2e-3,
    augment: tuple[str, ...] = (),
    seed: int = 0,
    task: Task | None = None,
    overwrite: bool = False,
    accelerator: str = "ethos-u55-128",
    runtime_flash: int = 0,
    runtime_ram: int = 0,
    progress: Progress | None = None,
) -> CompressResult:
    """Compresses a trained classifier until its `.tflite` file meets a budget.

    It analyzes the model for some seconds, plans what to try, and reports the reasons. The model
    is also the teacher of what is trained. Call it again with the same arguments and the same
    folder to continue a job that was stopped: candidates that exist are read, not built again.
    Where a call finds the report and files of an earlier, finished call in its folder, perhaps
    for another budget, it moves them to the subfolder `earlier` before it starts.

    Example:
        A finished job takes some seconds to hours, by the effort:

        >>> import tfnas
        >>> model = tfnas.load_model("model.keras")  # doctest: +SKIP
        >>> budget = {"max_drop": 1.0, "max_bytes": 100_000}
        >>> result = tfnas.compress(model, "digits", budget)  # doctest: +SKIP
        >>> result.best.file.save("small.tflite")  # doctest: +SKIP

        Arguments are checked before any work:

        >>> try:
        ...     tfnas.compress("model.keras", "digits", {"max_bytes": -1})
        ... except ValueError as error:
        ...     print(error)
        max_bytes must be a finite number above 0, got -1

    Args:
        model: A trained Keras 3 classifier of images that takes pixels from 0 to 255, (batch,
            height, width, channels), and returns (batch, classes); it is not changed. Or the path
            of its file. Or a finished search, as the result of :func:`tfnas.search` or as its
            folder: then the best model of the search is compressed.
        data: A :class:`~tfnas.data.DataSplit`, or what :func:`tfnas.data.load` takes. Models are
            trained on the training and validation images. One half of the test images decides
            which files are chosen; the other half is used once, to measure the chosen files.
            None: the data of the search.
        budget: A :class:`tfnas.Budget`, or a dictionary of its fields, such as `{"max_drop": 1.0,
            "max_bytes": 100_000}`: at most 1 point of accuracy lost, at most 100,000 bytes.
        effort: "quick": number formats without training, seconds each. "normal": also
            quantization-aware training and channel pruning, and for gzipped bytes pruning and
            clustering of weights. "thorough": more of all, with longer training.
        directory: Folder of all files: a new or an empty one, or that of an earlier call.
        epochs: Epochs of each step that trains; None: chosen by `effort`.
        batch_size: Images per training step.
        learning_rate: Learning rate of Adam at the start of its decay.
        augment: Random changes of the training images: "flip" mirrors them, "shift" moves them
            by a few pixels.
        seed: Seed of all random draws. It also replaces the seed of random layers that were given
            one, such as `Dropout(0.5, seed=42)`; see
            :class:`tfnas.FineTuneSettings`.
        task: What the model is for; None: it classifies images, one label each.
        overwrite: Whether the files of an earlier call in the folder, also of another model, are
            removed first. Files that `compress` did not write stay.
        accelerator: The accelerator (NPU) that the limits `max_vela_...` are for; see
            :func:`tfnas.vela`.
        runtime_flash: Bytes of flash that the firmware needs besides the file; they count toward
            `max_flash_bytes`.
        runtime_ram: Bytes of RAM that the firmware needs besides the activations; they count
            toward `max_ram_bytes`.
        progress: Is told each phase, with its reasons, and the end of each epoch; None: nothing
            is shown.

    Returns:
        The Pareto front of files, the best one for the budget, and the limits that it exceeds.

    Raises:
        ValueError: An argument is outside its rule, or the folder holds another job or files that
            are not of a job. It is raised before any long work.
        ImportError: matplotlib is not installed, or ethos-u-vela where a limit `max_vela_...` is
            set. It is raised before any long work.
        RuntimeError: No model could be converted.
    """
    budget = Budget.of(budget)
    target = Target.of(budget, Device(accelerator, runtime_flash, runtime_ram))
    if effort not in EFFORTS:
        raise ValueError(f"effort must be one of {', '.join(EFFORTS)}, got {effort!r}")
    amounts = EFFORTS[effort]
    if not isinstance(progress, Progress | None):
        raise ValueError(
            f"progress must be a tfnas.compression.progress.Progress, got {progress!r}"
        )
    require("matplotlib", "the pictures of a report")
    check_task(task)
    task = task or ImageClasses()
    model, split = load_model_and_data(model, data)
    task.check(model, split)
    task.check_judgment(model, split)
    _check_model(model, task)
    split = split.for_given_model(seed)
    settings = FineTuneSettings(
        epochs=_epochs(amounts, len(split.train), batch_size) if epochs is None else epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        distill=DISTILL if task.distills else 0.0,
        augment=tuple(augment),
        seed=seed,
    )
    task.check_fine_tuning(settings.augment, settings.distill)
    progress = progress or Progress()
    context = Context(model, task, split, settings, progress)
    folder = compress_folder(pathlib.Path(directory))
    folder.claim(identity_of(context), overwrite)
    set_aside(folder.path)
    gzipped, timed = budget.max_gzip_bytes is not None, budget.max_latency_ratio is not None
    store = CandidateStore(context, folder.path, gzipped, target, timed)
    plan = _tried(store, budget, amounts)
    result = _result(store, budget, effort, plan, progress)
    compress_report.write(result, split, settings, Words.of(task))
    return result


def _tried(store: CandidateStore, budget: Budget, effort: Effort) -> PlanSettings:
    """Analyzes the model, and builds one candidate after another as the planner says."""
    progress = store.context.progress
    progress.phase("analyzing the model: the costs and the sensitivity of its layers")
    analysis = store.analyze_model(bool(effort.epochs))
    plan = dataclasses.replace(
        decide_plan(budget, effort, analysis, store.target.device),
        more=_further_techniques(trained=bool(effort.epochs)),
    )
    for line in plan.reasons:
        progress.phase(f"plan: {line}")
    baseline = store.assessment
    tolerance = Tolerance.of(baseline.metric, baseline.score.value)
    state, recipe = next_step(first_state(budget, effort, plan, tolerance=tolerance), None)
    while recipe is not None:
        state, recipe = next_step(state, store.make(recipe))
    return plan


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


def _check_model(model: keras.Model, task: Task) -> None:
    """Raises ValueError for models that a later step or measurement could not take."""
    for each in model.inputs:
        if None in each.shape[1:]:
            raise ValueError(f"model must take inputs of one size, got {each.shape[1:]}")
    task.check_for_compress(model)


def _epochs(effort: Effort, examples: int, batch_size: int) -> int:
    return max(effort.epochs, -(-effort.steps * batch_size // max(1, examples)))


def _result(
    store: CandidateStore,
    budget: Budget,
    effort: str,
    plan_settings: PlanSettings,
    progress: Progress,
) -> CompressResult:
    """Measures the front on the final images and chooses the best file."""
    if not store.candidates:
        raise RuntimeError(f"no model could be converted: {'; '.join(store.failures.values())}")
    progress.phase("measuring the front on the final images, which nothing was chosen by")
    candidates = front(store.candidates, store.gzipped)
    files = [(ORIGINAL, store.baseline)]
    files += [(str(candidate.recipe), candidate.file) for candidate in candidates]
    rows = compare_files(store.context.task, store.data.test, files)
    # Side by side: more precise than the latencies measured when each file was made.
    times = benchmark([file for _, file in files])
    latencies = {label: time for (label, _), time in zip(files, times, strict=True)}
    ratios = [time.ratio / times[0].ratio for time in times[1:]]
    candidates = front(store.retimed(candidates, ratios), store.gzipped)
    kept = {ORIGINAL, *(str(candidate.recipe) for candidate in candidates)}
    rows = [row for row in rows if row.label in kept]
    best = best_for_budget(candidates, budget)
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
        throughput=_throughput([store.baseline, best.file], store.data.test, times[0].median_ms),
        saved_model=_saved_model(store, model),
    )


def _agreement(store: CandidateStore, best: Candidate, model: keras.Model) -> Agreement | None:
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
