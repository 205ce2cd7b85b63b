"""Job of `tfnas factorize`: low-rank layers in a trained classifier, files and a report."""

from __future__ import annotations

import pathlib

import keras

from tfnas.compression.file_comparison_table import save_and_compare
from tfnas.compression.fine_tune import check_fits, finetune
from tfnas.compression.progress import Progress
from tfnas.compression.results.factorize_result import FactorizeConfig, FactorizeResult
from tfnas.data.data_split import DataSplit
from tfnas.data.reading import spread
from tfnas.graph.batchnorm import layers_of, recalibrate_batchnorm
from tfnas.jobs.output_folder import output_folder
from tfnas.low_rank.factorize import factorize
from tfnas.low_rank.low_rank_report import FactorizationReport
from tfnas.reports import factorize_report

CALIBRATION = 300  # images for int8 ranges and batchnorm statistics


def factorize_to_files(
    model: keras.Model,
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
        config: The settings.
        progress: Receives phases and epochs.

    Returns:
        The files, measured on the test part, and the report of the factorization.

    Raises:
        ValueError: An argument is outside its rule; before any long work.
    """
    progress = progress or Progress()
    check_fits(model, split)
    with output_folder(directory) as folder:
        return _factorize_to_files(model, split, folder, config, progress)


def _factorize_to_files(
    model: keras.Model,
    split: DataSplit,
    folder: pathlib.Path,
    config: FactorizeConfig,
    progress: Progress,
) -> FactorizeResult:
    progress.phase("factorizing")
    factorized, report = _factorize(model, split, config)
    if config.epochs and report.layers:
        progress.phase(f"training {config.epochs} epochs")
        finetune(factorized, split, config, teacher=model, progress=progress)
    progress.phase("converting and measuring the files on the test part")
    images = spread(split.x_train, CALIBRATION)
    files = save_and_compare(model, factorized, "low rank", split, folder, images)
    result = FactorizeResult(folder, report, files.rows, files.latencies, files.notes)
    factorize_report.write(result, split, config)
    return result


def _factorize(
    model: keras.Model, split: DataSplit, config: FactorizeConfig
) -> tuple[keras.Model, FactorizationReport]:
    rank = config.rank
    factorized, report = factorize(
        model,
        rank=int(rank) if rank is not None and rank == int(rank) else rank,
        energy=config.energy,
        target_macs=config.macs,
        data=spread(split.x_train, config.calibration) if config.calibration else None,
        methods=config.methods,
        exclude=config.exclude,
    )
    if report.layers and layers_of(factorized, keras.layers.BatchNormalization):
        recalibrate_batchnorm(factorized, spread(split.x_train, CALIBRATION))
    return factorized, report
