"""The `tfnas prune` job: a trained classifier, a data set, a ratio -> files and a report."""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Any

from tfnas.compression.file_comparison_table import FileRow, compare_files, convert_all
from tfnas.compression.fine_tune import check_fits, classification_loss, finetune, training_steps
from tfnas.compression.progress import Progress
from tfnas.compression.training_settings import TrainingSettings
from tfnas.data.datasets import DataSplit, spread
from tfnas.graph.functional import clone
from tfnas.optional import require
from tfnas.pruning.masks import granularity
from tfnas.pruning.prune import BY_OUTPUT, OBS, prune
from tfnas.pruning.pruning_callback import PruningCallback
from tfnas.pruning.pruning_report import PruningReport
from tfnas.pruning.sensitivity import SPARSITIES, Sensitivity, sensitivity
from tfnas.reports import prune_report
from tfnas.runtime.files import save_model
from tfnas.schedules import check_ratio, polynomial
from tfnas.tflite.artifact import Artifact
from tfnas.tflite.convert import ConversionError, to_tflite
from tfnas.tflite.file_sparsity import FileSparsity, file_sparsity

CALIBRATION = 300
SCORED = 512  # training examples behind gradient criteria and reconstruction
RAMP = 0.6  # share of the training in which the ratio grows
BY_SENSITIVITY = "sensitivity"
_WRITTEN = (
    *("model.keras", "model_float32.tflite", "model_int8.tflite", "model_float32_sparse.tflite"),
    *("kernels.csv", "report.md", "sensitivity.json", "sensitivity.png"),
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PruneConfig(TrainingSettings):
    """What a pruning run was asked for.

    Args:
        sparsity: Share of zeros at the end, in [0, 1).
        epochs: Epochs of training while the ratio grows; 0: prune without training.
        criterion: See :func:`tfnas.prune`.
        granularity: See :func:`tfnas.prune`.
        scope: "layer", "global", "erk", "output" (with "obs"), or "sensitivity": ratios spread
            by what each layer alone was measured to cost on the validation part.
        exclude: Layers left alone; see :func:`tfnas.prune`.
        reconstruct: Without training, whether the kept weights make up for the others.
        sparse: Whether kernels are also stored without their zeros where that helps.
    """

    sparsity: float
    epochs: int = 0
    criterion: str = "magnitude"
    granularity: str = "element"
    scope: str = "layer"
    exclude: tuple[str, ...] = ()
    reconstruct: bool = True
    sparse: bool = True

    def __post_init__(self) -> None:
        check_ratio(self.sparsity, name="sparsity")
        super().__post_init__()


@dataclasses.dataclass(frozen=True, eq=False)
class PruneResult:
    """What a pruning run leaves.

    Args:
        directory: The run's folder.
        report: The zeros of the Keras model.
        rows: The files on the test part, the unpruned float32 file first.
        sparsities: The zeros of the pruned files, by label.
        sensitivity: What each layer alone costs, where it was measured.
        notes: What could not be done, and why.
    """

    directory: pathlib.Path
    report: PruningReport
    rows: list[FileRow]
    sparsities: dict[str, FileSparsity]
    sensitivity: Sensitivity | None
    notes: list[str]

    def __str__(self) -> str:
        return prune_report.summary(self)


def prune_to_files(
    model: Any,
    split: DataSplit,
    directory: str | pathlib.Path,
    config: PruneConfig,
    progress: Progress | None = None,
) -> PruneResult:
    """Prunes a classifier and writes model.keras, `.tflite` files, report.md and pictures.

    Args:
        model: A trained Keras 3 classifier of images; it stays as it is.
        split: Its data. The test part is used once, at the end.
        directory: Folder for the results.
        config: What to do.
        progress: Is told what happens.

    Raises:
        ValueError: An argument is outside its rule; before any long work.
        ImportError: A picture is due and matplotlib is not installed; as early.
    """
    told, folder = progress or Progress(), pathlib.Path(directory)
    if config.scope == BY_SENSITIVITY:
        require("matplotlib", "the pictures of a report")
    check_fits(model, split)
    _check_arguments(model, split, config)
    folder.mkdir(parents=True, exist_ok=True)
    found = _measured(model, split, config, told)
    scope: Any = found.suggest(config.sparsity) if found else config.scope
    prune_now = _while_training if config.epochs else _at_once
    pruned, report = prune_now(model, split, config, scope, told)
    for name in _WRITTEN:  # nothing of an earlier run stays beside this one's
        (folder / name).unlink(missing_ok=True)
    save_model(pruned, folder / "model.keras")
    told.phase("converting and measuring the files on the test part")
    files, notes = _files(model, pruned, split, config, folder)
    rows = compare_files(split, files)
    counts = {label: file_sparsity(file) for label, file in files if "unpruned" not in label}
    result = PruneResult(folder, report, rows, counts, found, notes)
    prune_report.write(result, split, config)
    return result


def _check_arguments(model: Any, split: DataSplit, config: PruneConfig) -> None:
    """One pruning of a copy, thrown away: every bad argument shows before long work."""
    scope = "layer" if config.scope in (BY_SENSITIVITY, BY_OUTPUT) else config.scope
    if config.criterion == OBS and (config.epochs or config.scope == BY_SENSITIVITY):
        raise ValueError(
            "criterion 'obs' goes with epochs 0 and the scopes layer, erk and output, got "
            f"{config.epochs} epochs and {config.scope!r}"
        )
    if config.scope == BY_OUTPUT and config.criterion != OBS:
        raise ValueError(f"scope 'output' goes with criterion 'obs', got {config.criterion!r}")
    prune(
        model,
        config.sparsity,
        criterion="magnitude" if config.criterion == OBS else config.criterion,
        granularity=config.granularity,
        scope=scope,
        exclude=config.exclude,
        data=(split.x_train[:8], split.y_train[:8]),
        loss=classification_loss(model),
        seed=config.seed,
    )


def _measured(
    model: Any, split: DataSplit, config: PruneConfig, told: Progress
) -> Sensitivity | None:
    if config.scope != BY_SENSITIVITY:
        return None
    told.phase(f"measuring each layer's sensitivity on {len(split.x_val)} validation images")
    loss = classification_loss(model)

    def quality(candidate: Any) -> float:
        # The loss, not the accuracy: it also moves where no class changes.
        return -float(loss(split.y_val, candidate.predict(split.x_val, verbose=0)))

    return sensitivity(
        model,
        quality,
        _tried(config),
        granularity=config.granularity,
        exclude=config.exclude,
        seed=config.seed,
        **_scoring(model, split, config),
    )


def _tried(config: PruneConfig) -> list[float]:
    """Ratios to measure: what the granularity can reach, the one asked for well inside."""
    highest = granularity(config.granularity).max_sparsity
    ratios = [highest * share for share in SPARSITIES]
    if config.sparsity >= ratios[-1]:
        ratios.append((config.sparsity + highest) / 2)
    return ratios if highest == 1.0 else [*ratios, highest]


def _at_once(
    model: Any, split: DataSplit, config: PruneConfig, scope: Any, told: Progress
) -> tuple[Any, PruningReport]:
    told.phase("pruning without training")
    return prune(
        model,
        config.sparsity,
        granularity=config.granularity,
        scope=scope,
        exclude=config.exclude,
        reconstruct=config.reconstruct,
        seed=config.seed,
        **_scoring(model, split, config),
    )


def _while_training(
    model: Any, split: DataSplit, config: PruneConfig, scope: Any, told: Progress
) -> tuple[Any, PruningReport]:
    told.phase(f"pruning while training, {config.epochs} epochs on {len(split.x_train)} images")
    copy = clone(model)
    steps = training_steps(split, config.epochs, config.batch_size)
    schedule = polynomial(
        config.sparsity,
        end=int(RAMP * steps),
        by="step",
        frequency=max(1, min(100, steps // 20)),
    )
    scoring = _scoring(model, split, config)
    pruning = PruningCallback(
        schedule,
        granularity=config.granularity,
        scope=scope,
        exclude=config.exclude,
        seed=config.seed,
        **scoring,
    )
    finetune(
        copy,
        split,
        config,
        teacher=model,
        callbacks=[pruning],
        progress=told,
    )
    return copy, pruning.report


def _scoring(model: Any, split: DataSplit, config: PruneConfig) -> dict[str, Any]:
    examples = spread(split.x_train, SCORED), spread(split.y_train, SCORED)
    return {"criterion": config.criterion, "data": examples, "loss": classification_loss(model)}


def _files(
    model: Any, pruned: Any, split: DataSplit, config: PruneConfig, folder: pathlib.Path
) -> tuple[list[tuple[str, Artifact]], list[str]]:
    """(label, file) of the unpruned and the pruned model, and what could not be made."""
    images = spread(split.x_train, CALIBRATION)
    files, notes = convert_all({"unpruned": model, "pruned": pruned}, images)
    if config.sparse:
        try:
            files.append(("pruned, float32 sparse", to_tflite(pruned, "float32", sparse=True)))
        except ConversionError as error:
            notes.append(f"no file without zeros: {error}")
    if not any(label.startswith("pruned") for label, _ in files):
        raise ConversionError(f"no file could be made: {'; '.join(notes)}")
    for label, file in files:
        if not label.startswith("unpruned"):
            file.save(folder / f"model_{label.removeprefix('pruned, ').replace(' ', '_')}.tflite")
    return files, notes
