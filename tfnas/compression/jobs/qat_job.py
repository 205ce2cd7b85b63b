"""A trained classifier and a data set, to a quantization-aware one, its files and a report."""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Any

from tfnas.compression.file_comparison_table import FileRow, compare_files
from tfnas.compression.fine_tune import check_fits, finetune
from tfnas.compression.progress import Progress
from tfnas.compression.training_settings import TrainingSettings, check_whole_numbers
from tfnas.data.datasets import DataSplit, spread
from tfnas.graph.functional import Skipped
from tfnas.measure.quantization_debugger.error_report import QuantizationError
from tfnas.measure.quantization_debugger.quantization_error import quantization_error
from tfnas.optional import require
from tfnas.quantization.quantization_schedule import QuantizationSchedule
from tfnas.quantization.quantize_aware import quantize_aware, strip_quantization, unquantized_layers
from tfnas.quantization.spec import QuantSpec
from tfnas.reports import qat_report
from tfnas.runtime.files import save_model
from tfnas.tflite.artifact import Artifact
from tfnas.tflite.conversion_error import ConversionError
from tfnas.tflite.convert import to_tflite

CALIBRATION = 300
EXAMINED = 128  # training examples behind the errors of single layers
_WRITTEN = (
    *("model.keras", "model_float.keras", "report.md", "errors.json", "errors.png"),
    *("model_int8.tflite", "model_int8x4.tflite", "model_int16x8.tflite"),
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class QatConfig(TrainingSettings):
    """What quantization-aware training was asked for.

    Args:
        epochs: Epochs of training, at least 1.
        mode: "int8", "int8x4" or "int16x8".
        layers: Other formats of some layers; see :class:`tfnas.QuantSpec`.
        ranges: How the ranges of activations are found; see :class:`tfnas.QuantSpec`.
        start_epoch: First epoch that rounds.
        freeze_epoch: First epoch in which ranges stand still; None: never.

    Raises:
        ValueError: An argument is outside its rule.
    """

    epochs: int
    mode: str = "int8"
    layers: Any = ()
    ranges: str = "moving_average"
    start_epoch: int = 0
    freeze_epoch: int | None = None
    learning_rate: float = 1e-4

    def __post_init__(self) -> None:
        super().__post_init__()
        check_whole_numbers(self, epochs=1)
        QuantizationSchedule(self.start_epoch, self.freeze_epoch)
        if self.start_epoch >= self.epochs:
            raise ValueError(
                f"start_epoch must be below epochs {self.epochs}, got {self.start_epoch}: "
                "nothing would be rounded"
            )
        if not self.spec.needs_calibration:
            raise ValueError(f"mode must have integer activations, got {self.mode!r}")

    @property
    def spec(self) -> QuantSpec:
        """The specification."""
        spec = QuantSpec.of(self.mode)
        return dataclasses.replace(spec, layers=self.layers, ranges=self.ranges)


@dataclasses.dataclass(frozen=True, eq=False)
class QatResult:
    """What quantization-aware training leaves.

    Args:
        directory: The run's folder.
        rows: The files on the test part: float32, post-training, trained.
        skipped: What stays float in the trained model, and why.
        errors: What each layer's rounding costs in the trained file.
        notes: What could not be done, and why.
    """

    directory: pathlib.Path
    rows: list[FileRow]
    skipped: list[Skipped]
    errors: QuantizationError
    notes: list[str]

    def __str__(self) -> str:
        return qat_report.summary(self)


def qat_to_files(
    model: Any,
    split: DataSplit,
    directory: str | pathlib.Path,
    config: QatConfig,
    progress: Progress | None = None,
) -> QatResult:
    """Trains a classifier for integers and writes models, `.tflite` file, report and picture.

    Args:
        model: A trained Keras 3 classifier of images; it stays as it is.
        split: Its data. The test part is used once, at the end.
        directory: Folder for the results.
        config: What to do.
        progress: Is told what happens.

    Raises:
        ValueError: An argument is outside its rule; before any long work.
        ImportError: matplotlib is not installed; as early.
        ConversionError: The model can't be converted.
    """
    told, folder = progress or Progress(), pathlib.Path(directory)
    require("matplotlib", "the pictures of a report")
    check_fits(model, split)
    images = spread(split.x_train, CALIBRATION)
    trainable = quantize_aware(model, config.spec, data=images)
    folder.mkdir(parents=True, exist_ok=True)
    told.phase(f"converting without training, {config.mode}")
    files, notes = _without_training(model, images, config)
    told.phase(f"training {config.epochs} epochs on {len(split.x_train)} images")
    finetune(
        trainable,
        split,
        config,
        teacher=model,
        callbacks=[QuantizationSchedule(config.start_epoch, config.freeze_epoch)],
        progress=told,
    )
    for name in _WRITTEN:  # nothing of an earlier run stays beside this one's
        (folder / name).unlink(missing_ok=True)
    save_model(trainable, folder / "model.keras")
    save_model(strip_quantization(trainable), folder / "model_float.keras")
    told.phase("converting and measuring the files on the test part")
    trained = to_tflite(trainable, config.spec)
    trained.save(folder / f"model_{config.mode}.tflite")
    rows = compare_files(split, [*files, (f"trained, {config.mode}", trained)])
    examined = spread(split.x_train, EXAMINED)
    errors = quantization_error(trainable, trained, examined, keep_float=())
    result = QatResult(folder, rows, unquantized_layers(trainable), errors, notes)
    qat_report.write(result, split, config)
    return result


def _without_training(
    model: Any, images: Any, config: QatConfig
) -> tuple[list[tuple[str, Artifact]], list[str]]:
    """What training is measured against; the note tells what could not be made."""
    files, notes = [("float32", to_tflite(model))], []
    try:
        files.append((f"post-training, {config.mode}", to_tflite(model, config.spec, images)))
    except ConversionError as error:
        notes.append(f"no {config.mode} file without training: {error}")
    return files, notes
