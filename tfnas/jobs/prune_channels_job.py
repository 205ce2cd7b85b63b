"""Job of `tfnas prune-channels`: fewer channels in a trained classifier, files and a report."""

from __future__ import annotations

import pathlib
from typing import TYPE_CHECKING, Any

from tfnas.clustering.clustering_callback import ClusteringCallback
from tfnas.compression.file_comparison_table import save_and_compare
from tfnas.compression.fine_tune import (
    cached_teacher_logits,
    check_fits,
    classification_loss,
    finetune,
)
from tfnas.compression.progress import Progress
from tfnas.compression.results.prune_channels_result import PruneChannelsConfig, PruneChannelsResult
from tfnas.data.data_split import DataSplit
from tfnas.data.reading import spread
from tfnas.graph.compatibility import model_compression
from tfnas.jobs.output_folder import output_folder
from tfnas.measure.latency_model.latency_model import LatencyModel
from tfnas.pruning.mask_constraint import keep_zeros
from tfnas.pruning.structured.channel_report import ChannelPruningReport
from tfnas.pruning.structured.iterative import ChannelPruning
from tfnas.pruning.structured.prune_channels import prune_channels
from tfnas.reports import prune_channels_report

if TYPE_CHECKING:
    import keras

CALIBRATION = 300
SCORED = 512  # training examples for the criterion "taylor"


def prune_channels_to_files(
    model: keras.Model,
    split: DataSplit,
    directory: str | pathlib.Path,
    config: PruneChannelsConfig,
    progress: Progress | None = None,
) -> PruneChannelsResult:
    """Removes channels of a classifier and writes model.keras, `.tflite` files and report.md.

    Args:
        model: A trained Keras 3 classifier of images; it stays as it is.
        split: Its data. The test part is used once, at the end.
        directory: Folder for the results.
        config: The settings.
        progress: Receives phases and epochs.

    Returns:
        The files, measured on the test part, and a report of each pruning step.

    Raises:
        ValueError: An argument is outside its rule; before any long work.
    """
    progress = progress or Progress()
    check_fits(model, split)
    with output_folder(directory) as folder:
        smaller, reports = _prune(model, split, config, progress)
        progress.phase("converting and measuring the files on the test part")
        images = spread(split.x_train, CALIBRATION)
        files = save_and_compare(model, smaller, "smaller", split, folder, images)
        result = PruneChannelsResult(folder, reports, files.rows, files.latencies, files.notes)
        prune_channels_report.write(result, split, config)
        return result


def keep_achieved(model: keras.Model) -> list[ClusteringCallback]:
    """Keeps the zeros and shared values of a model through training.

    Args:
        model: A Keras model that may have been pruned or clustered before.

    Returns:
        Callbacks that the training needs for that.
    """
    achieved = model_compression(model)
    if "clusters" in achieved:
        return [ClusteringCallback(None)]  # keeps zeros too
    if "zeros" in achieved:
        keep_zeros(model)
    return []


def _prune(
    model: keras.Model,
    split: DataSplit,
    config: PruneChannelsConfig,
    progress: Progress,
) -> tuple[keras.Model, list[ChannelPruningReport]]:
    options = {
        "criterion": config.criterion,
        "scope": config.scope,
        "round_to": config.round_to,
        "max_ratio": config.max_ratio,
        "exclude": config.exclude,
        "data": (spread(split.x_train, SCORED), spread(split.y_train, SCORED)),
        "loss": classification_loss(model),
        "seed": config.seed,
    }

    teacher_logits = cached_teacher_logits(model, split, config) if config.epochs else None

    def fit(smaller: keras.Model, step: int) -> None:
        first, last = ((config.epochs * n) // config.steps for n in (step - 1, step))
        if last == first:
            return
        progress.phase(f"step {step} of {config.steps}: training {last - first} epochs")
        callbacks = keep_achieved(smaller)
        finetune(
            smaller,
            split,
            config,
            epochs=last - first,
            teacher=model,
            callbacks=callbacks,
            teacher_logits=teacher_logits,
            rebuild=not callbacks,  # gradients of shared values are summed for Adam, not for Muon
            progress=progress,
        )

    if config.steps > 1:
        assert config.macs is not None
        pruning = ChannelPruning(model, config.macs, steps=config.steps, fit=fit, **options)
        return pruning.run()
    target: dict[str, Any] = {"target_macs": config.macs, "target_params": config.params}
    if config.sizes:
        target = {"sizes": dict(config.sizes)}
    if config.latency is not None:
        progress.phase("measuring the latency of single layers")
        latency_model = LatencyModel("int8")
        target = {"target_latency_ratio": config.latency, "latency": latency_model}
    smaller, report = prune_channels(model, **target, **options)
    fit(smaller, 1)
    return smaller, [report]
