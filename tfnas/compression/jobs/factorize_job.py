"""A trained classifier and a data set, to one of low rank, its files and a report."""

from __future__ import annotations

import dataclasses
import math
import pathlib
from typing import Any

import keras

from tfnas.compression.file_comparison_table import FileRow, save_and_compare
from tfnas.compression.fine_tune import check_fits, finetune
from tfnas.compression.progress import Progress
from tfnas.compression.training_settings import TrainingSettings, check_whole_numbers
from tfnas.data.datasets import DataSplit, spread
from tfnas.graph.batchnorm import layers_of, recalibrate_batchnorm
from tfnas.low_rank.factorizable_layers import METHODS
from tfnas.low_rank.factorize import factorize
from tfnas.low_rank.low_rank_report import FactorizationReport
from tfnas.measure.measurement import Latency
from tfnas.reports import factorize_report

CALIBRATION = 300  # images behind the int8 files and BatchNormalization


@dataclasses.dataclass(frozen=True, kw_only=True)
class FactorizeConfig(TrainingSettings):
    """What a run was asked for: one of `macs`, `energy` and `rank`.

    Args:
        macs: Most multiply-accumulates; in (0, 1]: a share.
        energy: Share of each layer's output that stays, in (0, 1].
        rank: Channels between factors; below 1: a share of the full rank.
        epochs: Epochs of training; 0: none.
        methods: See :func:`tfnas.factorize`.
        exclude: Layers that stay.
        calibration: Training images that weigh the errors; 0: none do.

    Raises:
        ValueError: An argument is outside its rule.
    """

    macs: float | None = None
    energy: float | None = None
    rank: float | None = None
    epochs: int = 5
    methods: tuple[str, ...] = METHODS
    exclude: tuple[str, ...] = ()
    calibration: int = 300

    def __post_init__(self) -> None:
        given = [n for n in ("macs", "energy", "rank") if getattr(self, n) is not None]
        if len(given) != 1:
            raise ValueError(
                f"exactly one of macs, energy and rank must be given, got "
                f"{', '.join(given) or 'none'}"
            )
        for name in given:
            value = getattr(self, name)
            if not (isinstance(value, int | float) and 0 < value < math.inf):
                raise ValueError(f"{name} must be a finite number above 0, got {value!r}")
        super().__post_init__()
        check_whole_numbers(self, calibration=0)


@dataclasses.dataclass(frozen=True, eq=False)
class FactorizeResult:
    """What a run leaves.

    Args:
        directory: The run's folder.
        report: What became of each layer.
        rows: The files on the test part, the original float32 file first.
        latencies: Measured time of each file, by label.
        notes: What could not be done, and why.
    """

    directory: pathlib.Path
    report: FactorizationReport
    rows: list[FileRow]
    latencies: dict[str, Latency]
    notes: list[str]

    def __str__(self) -> str:
        return factorize_report.summary(self)


def factorize_to_files(
    model: Any,
    split: DataSplit,
    directory: str | pathlib.Path,
    config: FactorizeConfig,
    progress: Progress | None = None,
) -> FactorizeResult:
    """Factorizes a classifier and writes model.keras, `.tflite` files and report.md.

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
    told.phase("factorizing")
    smaller, report = _factorized(model, split, config)
    folder.mkdir(parents=True, exist_ok=True)
    if config.epochs and report.layers:
        told.phase(f"training {config.epochs} epochs")
        finetune(smaller, split, config, teacher=model, progress=told)
    told.phase("converting and measuring the files on the test part")
    images = spread(split.x_train, CALIBRATION)
    found = save_and_compare(model, smaller, "low rank", split, folder, images)
    result = FactorizeResult(folder, report, found.rows, found.latencies, found.notes)
    factorize_report.write(result, split, config)
    return result


def _factorized(
    model: Any, split: DataSplit, config: FactorizeConfig
) -> tuple[Any, FactorizationReport]:
    rank = config.rank
    smaller, report = factorize(
        model,
        rank=int(rank) if rank is not None and rank == int(rank) else rank,
        energy=config.energy,
        target_macs=config.macs,
        data=spread(split.x_train, config.calibration) if config.calibration else None,
        methods=config.methods,
        exclude=config.exclude,
    )
    if report.layers and layers_of(smaller, keras.layers.BatchNormalization):
        recalibrate_batchnorm(smaller, spread(split.x_train, CALIBRATION))
    return smaller, report
