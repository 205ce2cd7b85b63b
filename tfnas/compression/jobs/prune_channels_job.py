"""A trained classifier and a data set, to one with fewer channels, its files and a report."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any

from tfnas.clustering.clustering_callback import ClusteringCallback
from tfnas.compression.file_comparison_table import FileRow, save_and_compare
from tfnas.compression.fine_tune import check_fits, classification_loss, finetune, kept_answers
from tfnas.compression.progress import Progress
from tfnas.compression.training_settings import TrainingSettings, check_whole_numbers
from tfnas.data.datasets import DataSplit, spread
from tfnas.graph.compatibility import model_compression
from tfnas.measure.latency_model.latency_model import LatencyModel
from tfnas.measure.measurement import Latency
from tfnas.pruning.mask_constraint import keep_zeros
from tfnas.pruning.structured.channel_report import ChannelPruningReport
from tfnas.pruning.structured.channel_selection import MOST
from tfnas.pruning.structured.iterative import ChannelPruning
from tfnas.pruning.structured.prune_channels import prune_channels
from tfnas.reports import prune_channels_report

CALIBRATION = 300
SCORED = 512  # training examples behind the criterion "taylor"


@dataclasses.dataclass(frozen=True, kw_only=True)
class PruneChannelsConfig(TrainingSettings):
    """What a shrinking run was asked for: one of `macs`, `params`, `latency` and `sizes`.

    Args:
        macs: Most multiply-accumulates; in (0, 1]: a share.
        params: Most weights; in (0, 1]: a share.
        latency: Most time of the int8 file by its layers' times, as a share in (0, 1).
        sizes: Channels that stay, a layer: (name, number) pairs or a mapping.
        epochs: Epochs of training, spread over the steps; 0: none.
        steps: Steps of pruning and training; more than 1 with `macs` as a share alone.
        criterion: See :func:`tfnas.prune_channels`, as the next three.
        scope: "global", "group" or "saving".
        round_to: Multiple that sizes shall have; None: any size.
        max_ratio: Share of a group's channels that may go, in (0, 1].
        exclude: Layers whose channels stay.

    Raises:
        ValueError: An argument is outside its rule.
    """

    macs: float | None = None
    params: float | None = None
    latency: float | None = None
    sizes: tuple[tuple[str, int], ...] | Mapping[str, int] = ()
    epochs: int = 5
    steps: int = 1
    criterion: str = "l2"
    scope: str = "global"
    round_to: int | None = None
    max_ratio: float = MOST
    exclude: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "sizes", tuple(dict(self.sizes).items()))
        targets = ("macs", "params", "latency", "sizes")
        given = [n for n in targets if getattr(self, n) not in (None, ())]
        if len(given) != 1:
            raise ValueError(
                f"exactly one of macs, params, latency and sizes must be given, got "
                f"{', '.join(given) or 'none'}"
            )
        super().__post_init__()
        check_whole_numbers(self, steps=1)
        if self.steps > 1 and not (self.macs is not None and self.macs < 1):
            raise ValueError(f"steps must be 1 unless macs is a share, got {self.steps}")
        if self.steps > max(self.epochs, 1):
            raise ValueError(f"steps must be at most epochs {self.epochs}, got {self.steps}")


@dataclasses.dataclass(frozen=True, eq=False)
class PruneChannelsResult:
    """What a shrinking run leaves.

    Args:
        directory: The run's folder.
        reports: What each step took away.
        rows: The files on the test part, the original float32 file first.
        latencies: Measured time of each file, by label.
        notes: What could not be done, and why.
    """

    directory: pathlib.Path
    reports: list[ChannelPruningReport]
    rows: list[FileRow]
    latencies: dict[str, Latency]
    notes: list[str]

    def __str__(self) -> str:
        return prune_channels_report.summary(self)


def prune_channels_to_files(
    model: Any,
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
        config: What to do.
        progress: Is told what happens.

    Raises:
        ValueError: An argument is outside its rule; before any long work.
    """
    told, folder = progress or Progress(), pathlib.Path(directory)
    check_fits(model, split)
    smaller, reports = _shrunk(model, split, config, folder, told)
    told.phase("converting and measuring the files on the test part")
    images = spread(split.x_train, CALIBRATION)
    found = save_and_compare(model, smaller, "smaller", split, folder, images)
    result = PruneChannelsResult(folder, reports, found.rows, found.latencies, found.notes)
    prune_channels_report.write(result, split, config)
    return result


def held(model: Any) -> list[ClusteringCallback]:
    """Keeps through training what pruning or clustering achieved; returns callbacks for it."""
    found = model_compression(model)
    if "clusters" in found:
        return [ClusteringCallback(None)]  # zeros stay too
    if "zeros" in found:
        keep_zeros(model)
    return []


def _shrunk(
    model: Any, split: DataSplit, config: PruneChannelsConfig, folder: pathlib.Path, told: Progress
) -> tuple[Any, list[ChannelPruningReport]]:
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

    said = kept_answers(model, split, config) if config.epochs else None

    def fit(smaller: Any, step: int) -> None:
        first, last = ((config.epochs * n) // config.steps for n in (step - 1, step))
        if last == first:
            return
        told.phase(f"step {step} of {config.steps}: training {last - first} epochs")
        kept = held(smaller)
        finetune(
            smaller,
            split,
            config,
            epochs=last - first,
            teacher=model,
            callbacks=kept,
            told=said,
            rebuild=not kept,  # the gradients of shared values are summed for Adam
            progress=told,
        )

    if config.steps > 1:
        assert config.macs is not None
        pruning = ChannelPruning(model, config.macs, steps=config.steps, fit=fit, **options)
        folder.mkdir(parents=True, exist_ok=True)
        return pruning.run()
    target: dict[str, Any] = {"target_macs": config.macs, "target_params": config.params}
    if config.sizes:
        target = {"sizes": dict(config.sizes)}
    if config.latency is not None:
        told.phase("measuring layers alone")
        prices = LatencyModel("int8")
        target = {"target_latency_ratio": config.latency, "latency": prices}
    smaller, report = prune_channels(model, **target, **options)
    folder.mkdir(parents=True, exist_ok=True)
    fit(smaller, 1)
    return smaller, [report]
