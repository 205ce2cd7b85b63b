"""Settings and result of a job of quantization-aware training."""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Any

from tfnas.compression.file_comparison_table import FileRow
from tfnas.compression.results.file_rows import short_headers, short_rows
from tfnas.compression.results.printed_result import PrintedResult
from tfnas.compression.training_settings import TrainingSettings, check_whole_numbers
from tfnas.graph.functional import Skipped
from tfnas.measure.quantization_debugger.error_report import QuantizationError
from tfnas.quantization.quantization_schedule import QuantizationSchedule
from tfnas.quantization.spec import QuantSpec


@dataclasses.dataclass(frozen=True, kw_only=True)
class QatConfig(TrainingSettings):
    """Settings of quantization-aware training.

    Args:
        epochs: Epochs of training, at least 1.
        mode: "int8", "int8x4" or "int16x8".
        layers: Number formats of single layers; see :class:`tfnas.QuantSpec`.
        ranges: How the ranges of activations are found; see :class:`tfnas.QuantSpec`.
        start_epoch: First epoch with fake quantization.
        freeze_epoch: First epoch with frozen ranges; None: they are never frozen.

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
        """The number formats of the file."""
        spec = QuantSpec.of(self.mode)
        return dataclasses.replace(spec, layers=self.layers, ranges=self.ranges)


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class QatResult(PrintedResult):
    """Result of quantization-aware training.

    Args:
        directory: Folder of the job's files.
        rows: The files on the test part: float32, post-training, trained.
        skipped: Layers of the trained model that stay float, and why.
        errors: Quantization error of each layer of the trained file.
        notes: What could not be done, and why.
    """

    directory: pathlib.Path
    rows: list[FileRow]
    skipped: list[Skipped]
    errors: QuantizationError
    notes: list[str]

    def unquantized_lines(self) -> list[str]:
        """Returns a line for each layer that stays float."""
        if not self.skipped:
            return ["Every layer computes in integers."]
        return [f"{one.name} ({one.kind}) stays float: {one.reason}" for one in self.skipped]

    def _headline(self) -> str:
        return f"{self.errors.mode}, {len(self.rows)} files"

    def _details(self) -> list[str]:
        return [f"The layers of the trained file, the worst first:\n{self.errors}"]

    def _table(self) -> tuple[list[str], list[list[str]]]:
        return short_headers(), short_rows(self.rows)

    def _remarks(self) -> list[str]:
        return [*self.unquantized_lines(), *self.notes]
