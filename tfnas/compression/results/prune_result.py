"""Settings and result of a job that prunes weights."""

from __future__ import annotations

import dataclasses
import pathlib

from tfnas.compression.file_comparison_table import FileRow
from tfnas.compression.results.file_rows import short_headers, short_rows
from tfnas.compression.results.printed_result import PrintedResult
from tfnas.compression.training_settings import TrainingSettings
from tfnas.pruning.pruning_report import PruningReport
from tfnas.pruning.sensitivity import Sensitivity
from tfnas.schedules import check_ratio
from tfnas.tflite.file_sparsity import FileSparsity

SPEED_NOTE = (
    "Zeros make a file smaller once it is compressed; whether they make it faster depends on the "
    "device, and was not measured here: `tfnas bench` does."
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PruneConfig(TrainingSettings):
    """Settings of a pruning job, beside those of its training.

    Args:
        sparsity: Fraction of zeros at the end, in [0, 1).
        epochs: Epochs of training while the sparsity grows; 0: prune without training.
        criterion: See :func:`tfnas.prune`.
        granularity: See :func:`tfnas.prune`.
        scope: "layer", "global", "erk", "output" (with "obs"), or "sensitivity": each layer's
            sparsity follows from the loss on the validation part with that layer alone pruned.
        exclude: Layers that are not pruned; see :func:`tfnas.prune`.
        reconstruct: Without training, whether the remaining weights are fitted to the layer's
            former output.
        sparse: Whether kernels are also stored sparse, where that makes the file smaller.

    Raises:
        ValueError: An argument is outside its rule.
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


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class PruneResult(PrintedResult):
    """Result of a pruning job.

    Args:
        directory: Folder of the job's files.
        report: The zeros of the Keras model, by kernel.
        rows: The files on the test part, the unpruned float32 file first.
        sparsities: The zeros of the pruned files, by label.
        sensitivity: Loss with each layer alone pruned; None where it was not measured.
        notes: What could not be done, and why.
    """

    directory: pathlib.Path
    report: PruningReport
    rows: list[FileRow]
    sparsities: dict[str, FileSparsity]
    sensitivity: Sensitivity | None
    notes: list[str]

    def sparsity_cell(self, row: FileRow) -> str:
        """Returns the fraction of zeros of a file as a table's cell; empty for unpruned files."""
        found = self.sparsities.get(row.label)
        return f"{found.sparsity:.1%}" if found else ""

    def speed_verdict(self) -> str:
        """Returns whether XNNPACK's sparse kernels can run the pruned float32 file."""
        names = ("pruned, float32 sparse", "pruned, float32")
        found = next((self.sparsities[n] for n in names if n in self.sparsities), None)
        if found is None:
            return "no float32 file"
        text = f"{found.verdict}"
        if not found.verdict.eligible:
            return text
        return f"{text} by its form, where 1x1 kernels hold two thirds zeros and are stored sparse"

    def _headline(self) -> str:
        return f"{self.report.sparsity:.1%} zeros, {len(self.rows)} files"

    def _details(self) -> list[str]:
        return [str(self.report)]

    def _table(self) -> tuple[list[str], list[list[str]]]:
        rows = short_rows(self.rows, lambda row: [self.sparsity_cell(row)])
        return short_headers("zeros"), rows

    def _remarks(self) -> list[str]:
        return [f"pruned, float32: {self.speed_verdict()}", *self.notes, SPEED_NOTE]
