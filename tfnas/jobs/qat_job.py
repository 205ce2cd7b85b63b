"""Job of `tfnas qat`: quantization-aware training of a classifier, files and a report."""

from __future__ import annotations

import pathlib
from typing import TYPE_CHECKING

from tfnas.compression.file_comparison_table import compare_files
from tfnas.compression.fine_tune import check_fits, finetune
from tfnas.compression.progress import Progress
from tfnas.compression.results.qat_result import QatConfig, QatResult
from tfnas.data.data_split import DataSplit
from tfnas.data.reading import spread
from tfnas.jobs.output_folder import create_folder
from tfnas.measure.quantization_debugger.quantization_error import quantization_error
from tfnas.optional import require
from tfnas.quantization.quantization_schedule import QuantizationSchedule
from tfnas.quantization.quantize_aware import quantize_aware, strip_quantization, unquantized_layers
from tfnas.reports import qat_report
from tfnas.runtime.files import save_model
from tfnas.tflite.artifact import Artifact
from tfnas.tflite.conversion_error import ConversionError
from tfnas.tflite.convert import to_tflite

if TYPE_CHECKING:
    import keras
    import numpy as np

CALIBRATION = 300
EXAMINED = 128  # training examples for the errors of single layers
_WRITTEN = (
    "model.keras",
    "model_float.keras",
    "report.md",
    "errors.json",
    "errors.png",
    "model_int8.tflite",
    "model_int8x4.tflite",
    "model_int16x8.tflite",
)


def qat_to_files(
    model: keras.Model,
    split: DataSplit,
    directory: str | pathlib.Path,
    config: QatConfig,
    progress: Progress | None = None,
) -> QatResult:
    """Trains a classifier quantization-aware; writes models, `.tflite` file, report and picture.

    Args:
        model: A trained Keras 3 classifier of images; it stays as it is.
        split: Its data. The test part is used once, at the end.
        directory: Folder for the results.
        config: The settings.
        progress: Receives phases and epochs.

    Returns:
        The files, measured on the test part, and the errors of the trained one by layer.

    Raises:
        ValueError: An argument is outside its rule; before any long work.
        ImportError: matplotlib is not installed; as early.
        ConversionError: The model can't be converted.
    """
    progress = progress or Progress()
    require("matplotlib", "the pictures of a report")
    check_fits(model, split)
    images = spread(split.x_train, CALIBRATION)
    trainable = quantize_aware(model, config.spec, data=images)
    folder = create_folder(directory)
    progress.phase(f"converting without training, {config.mode}")
    files, notes = _without_training(model, images, config)
    progress.phase(f"training {config.epochs} epochs on {len(split.x_train)} images")
    finetune(
        trainable,
        split,
        config,
        teacher=model,
        callbacks=[QuantizationSchedule(config.start_epoch, config.freeze_epoch)],
        progress=progress,
    )
    for name in _WRITTEN:  # nothing of an earlier run stays beside this one's
        (folder / name).unlink(missing_ok=True)
    save_model(trainable, folder / "model.keras")
    save_model(strip_quantization(trainable), folder / "model_float.keras")
    progress.phase("converting and measuring the files on the test part")
    trained = to_tflite(trainable, config.spec)
    trained.save(folder / f"model_{config.mode}.tflite")
    rows = compare_files(split, [*files, (f"trained, {config.mode}", trained)])
    examined = spread(split.x_train, EXAMINED)
    errors = quantization_error(trainable, trained, examined, keep_float=())
    result = QatResult(folder, rows, unquantized_layers(trainable), errors, notes)
    qat_report.write(result, split, config)
    return result


def _without_training(
    model: keras.Model, images: np.ndarray, config: QatConfig
) -> tuple[list[tuple[str, Artifact]], list[str]]:
    """Returns the files that the trained one is compared with, and notes on what failed."""
    files, notes = [("float32", to_tflite(model))], []
    try:
        files.append((f"post-training, {config.mode}", to_tflite(model, config.spec, images)))
    except ConversionError as error:
        notes.append(f"no {config.mode} file without training: {error}")
    return files, notes
