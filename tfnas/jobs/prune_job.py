"""Job of `tfnas prune`: prunes weights of a trained classifier, writes files and a report."""

from __future__ import annotations

import pathlib
from typing import TYPE_CHECKING, Any

from tfnas.compression.file_comparison_table import compare_files, convert_all
from tfnas.compression.fine_tune import check_fits, classification_loss, finetune, training_steps
from tfnas.compression.progress import Progress
from tfnas.compression.results.prune_result import PruneConfig, PruneResult
from tfnas.data.data_split import DataSplit
from tfnas.data.reading import spread
from tfnas.graph.functional import clone
from tfnas.jobs.output_folder import create_folder
from tfnas.optional import require
from tfnas.pruning.masks import granularity
from tfnas.pruning.prune import BY_OUTPUT, OBS, prune
from tfnas.pruning.pruning_callback import PruningCallback
from tfnas.pruning.pruning_report import PruningReport
from tfnas.pruning.sensitivity import SPARSITIES, Sensitivity, sensitivity
from tfnas.reports import prune_report
from tfnas.runtime.files import save_model
from tfnas.schedules import polynomial
from tfnas.tflite.artifact import Artifact
from tfnas.tflite.conversion_error import ConversionError
from tfnas.tflite.convert import to_tflite
from tfnas.tflite.file_sparsity import file_sparsity

if TYPE_CHECKING:
    import keras

CALIBRATION = 300
SCORED = 512  # training examples for gradient criteria and reconstruction
RAMP = 0.6  # fraction of the training in which the sparsity grows
BY_SENSITIVITY = "sensitivity"
_WRITTEN = (
    "model.keras",
    "model_float32.tflite",
    "model_int8.tflite",
    "model_float32_sparse.tflite",
    "kernels.csv",
    "report.md",
    "sensitivity.json",
    "sensitivity.png",
)


def prune_to_files(
    model: keras.Model,
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
        config: The settings.
        progress: Receives phases and epochs.

    Returns:
        The files, measured on the test part, and the report of the pruning.

    Raises:
        ValueError: An argument is outside its rule; before any long work.
        ImportError: A picture is due and matplotlib is not installed; as early.
    """
    progress = progress or Progress()
    if config.scope == BY_SENSITIVITY:
        require("matplotlib", "the pictures of a report")
    check_fits(model, split)
    _check_arguments(model, split, config)
    folder = create_folder(directory)
    found = _sensitivity(model, split, config, progress)
    scope: Any = found.suggest(config.sparsity) if found else config.scope
    prune_model = _while_training if config.epochs else _without_training
    pruned, report = prune_model(model, split, config, scope, progress)
    for name in _WRITTEN:  # nothing of an earlier run stays beside this one's
        (folder / name).unlink(missing_ok=True)
    save_model(pruned, folder / "model.keras")
    progress.phase("converting and measuring the files on the test part")
    files, notes = _files(model, pruned, split, config, folder)
    rows = compare_files(split, files)
    counts = {label: file_sparsity(file) for label, file in files if "unpruned" not in label}
    result = PruneResult(folder, report, rows, counts, found, notes)
    prune_report.write(result, split, config)
    return result


def _check_arguments(model: keras.Model, split: DataSplit, config: PruneConfig) -> None:
    """Prunes a copy that is thrown away, so that a bad argument fails before long work."""
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


def _sensitivity(
    model: keras.Model, split: DataSplit, config: PruneConfig, progress: Progress
) -> Sensitivity | None:
    if config.scope != BY_SENSITIVITY:
        return None
    progress.phase(f"measuring each layer's sensitivity on {len(split.x_val)} validation images")
    loss = classification_loss(model)

    def quality(candidate: keras.Model) -> float:
        # The loss, not the accuracy: it also moves where no class changes.
        return -float(loss(split.y_val, candidate.predict(split.x_val, verbose=0)))

    return sensitivity(
        model,
        quality,
        _sparsities(config),
        granularity=config.granularity,
        exclude=config.exclude,
        seed=config.seed,
        **_scoring(model, split, config),
    )


def _sparsities(config: PruneConfig) -> list[float]:
    """Sparsities to measure, up to the highest of the granularity, the target well inside."""
    highest = granularity(config.granularity).max_sparsity
    ratios = [highest * fraction for fraction in SPARSITIES]
    if config.sparsity >= ratios[-1]:
        ratios.append((config.sparsity + highest) / 2)
    return ratios if highest == 1.0 else [*ratios, highest]


def _without_training(
    model: keras.Model, split: DataSplit, config: PruneConfig, scope: Any, progress: Progress
) -> tuple[keras.Model, PruningReport]:
    progress.phase("pruning without training")
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
    model: keras.Model, split: DataSplit, config: PruneConfig, scope: Any, progress: Progress
) -> tuple[keras.Model, PruningReport]:
    progress.phase(f"pruning while training, {config.epochs} epochs on {len(split.x_train)} images")
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
        progress=progress,
    )
    return copy, pruning.report


def _scoring(model: keras.Model, split: DataSplit, config: PruneConfig) -> dict[str, Any]:
    examples = spread(split.x_train, SCORED), spread(split.y_train, SCORED)
    return {"criterion": config.criterion, "data": examples, "loss": classification_loss(model)}


def _files(
    model: keras.Model,
    pruned: keras.Model,
    split: DataSplit,
    config: PruneConfig,
    folder: pathlib.Path,
) -> tuple[list[tuple[str, Artifact]], list[str]]:
    """Returns (label, file) of the unpruned and the pruned model, and what failed to convert."""
    images = spread(split.x_train, CALIBRATION)
    files, notes = convert_all({"unpruned": model, "pruned": pruned}, images)
    if config.sparse:
        try:
            files.append(("pruned, float32 sparse", to_tflite(pruned, "float32", sparse=True)))
        except ConversionError as error:
            notes.append(f"no sparse file: {error}")
    if not any(label.startswith("pruned") for label, _ in files):
        raise ConversionError(f"no model could be converted: {'; '.join(notes)}")
    for label, file in files:
        if not label.startswith("unpruned"):
            file.save(folder / f"model_{label.removeprefix('pruned, ').replace(' ', '_')}.tflite")
    return files, notes
