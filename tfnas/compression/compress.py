"""One call: a trained model, its data and a budget to the files that keep it.

The model given is the teacher of whatever is trained. Half of the test part chooses, the other
half is looked at once, at the end: what the model was trained on can't tell what it knows.
"""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Mapping
from typing import Any

from tfnas.compression import job_folder
from tfnas.compression.budget import Budget
from tfnas.compression.candidate_store import Candidate, CandidateStore, front
from tfnas.compression.device_costs import Target
from tfnas.compression.effort import EFFORTS, Effort
from tfnas.compression.file_comparison_table import FileRow, compare_files
from tfnas.compression.fine_tune import check_fits
from tfnas.compression.inputs import given_model
from tfnas.compression.layer_costs import FileLayer, file_layers
from tfnas.compression.model_analysis import ModelAnalysis
from tfnas.compression.plan_reasons import PlanReasons, decide_plan
from tfnas.compression.planner import plan
from tfnas.compression.progress import Progress
from tfnas.compression.techniques.recipe_steps import StepRunner
from tfnas.compression.training_settings import TrainingSettings
from tfnas.data.datasets import DataSplit
from tfnas.graph.functional import last_activation
from tfnas.measure.agreement import Agreement, agreement
from tfnas.measure.latency import benchmark
from tfnas.measure.measurement import Latency
from tfnas.measure.throughput import Throughput, throughput
from tfnas.optional import require
from tfnas.reports import compress_report
from tfnas.targets.device import Device
from tfnas.tflite.artifact import Artifact
from tfnas.tflite.saved_model import to_saved_model

WHOLE = "original, float32"  # label of the original's file
BATCHES, THREADS = (1, 8, 32), (1, 2)  # of the throughput
LONGEST = 500.0  # ms that a batch may take there


@dataclasses.dataclass(frozen=True, eq=False)
class CompressResult:
    """What :func:`compress` leaves.

    Args:
        directory: Its folder.
        budget: What was asked for.
        effort: How much was tried: "quick", "normal" or "thorough".
        device: The device that limits are for, where there are such.
        candidates: All files that were made, in their order.
        front: Those that no other is better than in accuracy, size, time and what limits ask of
            the device.
        best: The one that keeps the budget best, or the nearest.
        excesses: Limits that it does not keep -> by how much; empty where it keeps all.
        original: The original's float32 file on the examples to choose by: (accuracy, 1.0,
            bytes).
        rows: Files on the last examples: the original's float32 file first, then the front.
        latencies: Measured time of each of those, by label.
        same: How the best one's answers differ from the original's.
        failures: Recipes, or other things, that could not be made -> why.
        survey: What was seen of the original before anything was tried.
        decisions: What the plan made of that, with the reasons.
        layers: The best one's kernels.
        throughput: Examples a second of the original's float32 file, then the best one's.
        saved_model: Folder of the best one as a SavedModel; None where there is none.
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
    same: Agreement
    failures: dict[str, str]
    survey: ModelAnalysis
    decisions: PlanReasons
    layers: tuple[FileLayer, ...]
    throughput: list[Throughput]
    saved_model: pathlib.Path | None

    @property
    def meets(self) -> bool:
        """Whether the best one keeps the budget."""
        return not self.excesses

    def __str__(self) -> str:
        return compress_report.summary(self)


DISTILL = 0.3  # of the loss: what a model learned twice over is more in the labels


def compress(
    model: Any,
    data: DataSplit | str | pathlib.Path | None,
    budget: Budget | Mapping[str, Any],
    *,
    directory: str | pathlib.Path = "compressed",
    effort: str = "normal",
    epochs: int | None = None,
    batch_size: int = 64,
    learning_rate: float = 2e-3,
    augment: tuple[str, ...] = (),
    seed: int = 0,
    overwrite: bool = False,
    accelerator: str = "ethos-u55-128",
    runtime_flash: int = 0,
    runtime_ram: int = 0,
    progress: Progress | None = None,
) -> CompressResult:
    """Makes a trained classifier small enough, and proves what that costs.

    It looks at the model for some seconds, decides what to try, and tells why. The same call on
    the same folder goes on where it was stopped; what an earlier call had ended with is then in
    its folder `earlier`.

    Example:
        >>> import tfnas
        >>> model = tfnas.load_model("model.keras")  # doctest: +SKIP
        >>> budget = {"max_drop": 1.0, "max_bytes": 100_000}
        >>> result = tfnas.compress(model, "digits", budget)  # doctest: +SKIP
        >>> result.best.file.save("small.tflite")  # doctest: +SKIP

    Args:
        model: A trained Keras 3 classifier of images that takes the data's pixels, 0 to 255; it
            stays as it is. Or the path of its file; or a finished search, as
            :func:`tfnas.search` returned it or as its folder, of which the best is taken.
        data: A :class:`~tfnas.data.DataSplit`, or what :func:`tfnas.data.load` takes. Training
            and validation images train; half of the test images chooses, the other half is
            measured once. None: the data of the search.
        budget: A :class:`tfnas.Budget` or its fields: max_drop in points, max_bytes,
            max_gzip_bytes, max_latency_ratio and max_macs as shares of the original's, max_memory
            in bytes; of a microcontroller max_flash_bytes and max_ram_bytes; of an accelerator
            max_vela_ms, max_vela_cycles, max_vela_sram_bytes, max_vela_flash_bytes and
            max_vela_cpu_operators, as its compiler expects them.
        effort: "quick": number formats alone, seconds each. "normal": training for integers and
            fewer channels too, and for gzipped bytes zeros and few values. "thorough": more of
            all, and longer.
        directory: Folder for everything.
        epochs: Epochs of each step that trains; None: by the effort.
        batch_size: Examples a training step.
        learning_rate: Adam's, at the start of its decay.
        augment: Changes of the training images: "flip" mirrors, "shift" moves a few pixels.
        seed: Seed of everything; as for
            :class:`tfnas.compression.training_settings.TrainingSettings`.
        overwrite: Whether what the folder holds is removed first.
        accelerator: The NPU that the limits max_vela_... are for; see :func:`tfnas.vela`.
        runtime_flash: Bytes that the firmware takes beside the file, of max_flash_bytes.
        runtime_ram: Bytes that it takes beside the activations, of max_ram_bytes.
        progress: Is told what happens and why.

    Returns:
        The Pareto set of files, the best one for the budget, and what stands in its way.

    Raises:
        ValueError: An argument is outside its rule, or the folder holds another job; before any
            long work.
        ImportError: matplotlib, or the package ethos-u-vela that a limit needs, is not installed;
            as early.
    """
    asked = Budget.of(budget)
    target = Target.of(asked, Device(accelerator, runtime_flash, runtime_ram))
    if effort not in EFFORTS:
        raise ValueError(f"effort must be one of {', '.join(EFFORTS)}, got {effort!r}")
    tries = EFFORTS[effort]
    if not isinstance(progress, Progress | None):
        raise ValueError(
            f"progress must be a tfnas.compression.progress.Progress, got {progress!r}"
        )
    require("matplotlib", "the pictures of a report")
    model, split = given_model(model, data)
    check_fits(model, split)
    _check_model(model)
    split = split.for_given_model(seed)
    settings = TrainingSettings(
        epochs=_epochs(tries, len(split.x_train), batch_size) if epochs is None else epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        distill=DISTILL,
        augment=tuple(augment),
        seed=seed,
    )
    folder = pathlib.Path(directory)
    if overwrite:
        job_folder.empty(folder)
    job_folder.claim(folder, model, split, settings)
    job_folder.set_aside(folder)
    told = progress or Progress()
    runner = StepRunner(model, split, settings, told)
    gzipped, timed = asked.max_gzip_bytes is not None, asked.max_latency_ratio is not None
    store = CandidateStore(runner, folder, gzipped, target, timed)
    told.phase("looking at the model: where its cost is, and what it bears")
    decisions = decide_plan(asked, tries, store.analyze_model(bool(tries.epochs)), target.device)
    for line in decisions.told:
        told.phase(f"plan: {line}")
    steps = plan(asked, tries, decisions)
    outcome: Candidate | None = None
    while (recipe := _next(steps, outcome)) is not None:
        outcome = store.make(recipe)
    return _finished(store, asked, effort, decisions, told, settings)


def _check_model(model: Any) -> None:
    """Raises ValueError for what no step or measurement could take, before any work."""
    if None in model.inputs[0].shape[1:]:
        raise ValueError(f"model must take images of one size, got {model.inputs[0].shape[1:]}")
    if model.outputs[0].shape[-1] > 1 and last_activation(model) == "sigmoid":
        raise ValueError(
            "model must end in a softmax or in logits, of which one class is true, got a sigmoid "
            f"of {model.outputs[0].shape[-1]} units"
        )


def _epochs(effort: Effort, examples: int, batch_size: int) -> int:
    return max(effort.epochs, -(-effort.steps * batch_size // max(1, examples)))


def _next(steps: Any, outcome: Candidate | None) -> Any:
    try:
        return steps.send(outcome)
    except StopIteration:
        return None


def _finished(
    store: CandidateStore,
    budget: Budget,
    effort: str,
    decisions: PlanReasons,
    told: Progress,
    settings: TrainingSettings,
) -> CompressResult:
    if not store.candidates:
        raise RuntimeError(f"no file could be made: {'; '.join(store.failures.values())}")
    told.phase("measuring the front on images that nothing was chosen by")
    best_ones = front(store.candidates, store.gzipped)
    files = [(WHOLE, store.whole)]
    files += [(str(candidate.recipe), candidate.file) for candidate in best_ones]
    rows = compare_files(store.split, files)
    # Beside each other, which tells more of their times than when each was made.
    times = benchmark([file for _, file in files])
    latencies = {label: time for (label, _), time in zip(files, times, strict=True)}
    ratios = [time.ratio / times[0].ratio for time in times[1:]]
    best_ones = front(store.retimed(best_ones, ratios), store.gzipped)
    kept = {WHOLE, *(str(candidate.recipe) for candidate in best_ones)}
    rows = [row for row in rows if row.label in kept]
    best = chosen(best_ones, budget)
    best.file.save(store.folder / "best.tflite")
    twin = store.twin(best.recipe)
    told.phase(f"telling what {best.recipe} is: the same model? its layers, its throughput")
    result = CompressResult(
        store.folder,
        budget,
        effort,
        store.target.device,
        store.candidates,
        best_ones,
        best,
        budget.excesses(best.costs),
        (float(store.right.mean()), 1.0, store.whole.size),
        rows,
        latencies,
        _same(store, best, twin, rows),
        store.failures,
        store.analyze_model(pruning=False),
        decisions,
        file_layers(twin, best.file, store.split.x_val),
        _throughput([store.whole, best.file], store.split, times[0].median_ms),
        _saved_model(store, twin),
    )
    compress_report.write(result, store.split, settings)
    return result


def _same(store: CandidateStore, best: Candidate, twin: Any, rows: list[FileRow]) -> Agreement:
    split = store.split
    answers = {row.label: row.answers for row in rows}
    known = answers[WHOLE], answers[str(best.recipe)]
    return agreement(
        store.whole,
        best.file,
        split.x_test,
        split.y_test,
        split.class_names,
        (store.runner.original, twin),
        answers=known,
    )


def _throughput(files: list[Artifact], split: DataSplit, ms: float) -> list[Throughput]:
    """Over the batches that take no more than a moment, and as many threads as cores."""
    batches = [size for size in BATCHES if size == 1 or size * ms <= LONGEST]
    threads = [count for count in THREADS if count <= (os.cpu_count() or 1)]
    return throughput(files, split.x_test[: max(BATCHES)], batches, threads, rounds=12)


def _saved_model(store: CandidateStore, twin: Any) -> pathlib.Path | None:
    """The Keras model behind the best file, for servers."""
    try:
        return to_saved_model(twin, store.folder / "saved_model")
    except Exception as error:  # hours of work are not lost for what Keras can't export
        store.failures["SavedModel"] = " ".join(str(error).split())
        return None


def chosen(candidates: list[Candidate], budget: Budget) -> Candidate:
    """Returns the candidate that keeps a budget best, or the one nearest to it.

    With a limit on the drop, of those that keep all limits, the least in size x time; without,
    the most accurate. Where none keeps all, the least sum of excesses.

    Args:
        candidates: At least one.
        budget: The limits.
    """
    gzipped = budget.max_gzip_bytes is not None
    fine = [c for c in candidates if not budget.excesses(c.costs)]
    if not fine:
        return min(candidates, key=lambda c: sum(budget.excesses(c.costs).values()))
    if budget.max_drop is None:
        return min(fine, key=lambda c: c.costs.drop)
    return min(fine, key=lambda c: c.row(gzipped)[1] * c.costs.latency_ratio)
