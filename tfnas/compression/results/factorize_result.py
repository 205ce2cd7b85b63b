"""Settings and result of a job that factorizes layers at a low rank."""

from __future__ import annotations

import dataclasses
import math
import pathlib

from tfnas.compression.file_comparison_table import FileRow
from tfnas.compression.results.file_rows import short_headers, short_rows, short_time, speed_lines
from tfnas.compression.results.printed_result import PrintedResult
from tfnas.compression.training_settings import TrainingSettings, check_whole_numbers
from tfnas.low_rank.factorizable_layers import METHODS
from tfnas.low_rank.low_rank_report import FactorizationReport
from tfnas.measure.measurement import Latency


@dataclasses.dataclass(frozen=True, kw_only=True)
class FactorizeConfig(TrainingSettings):
    """Settings of a factorization job: one of `macs`, `energy` and `rank`, and its training.

    Args:
        macs: Most multiply-accumulates; in (0, 1]: a fraction of the model's.
        energy: Fraction of each layer's output energy that stays, in (0, 1].
        rank: Channels between factors; below 1: a fraction of the full rank.
        epochs: Epochs of training; 0: none.
        methods: See :func:`tfnas.factorize`.
        exclude: Layers that are not factorized.
        calibration: Number of training images whose activations weight the errors; 0: errors
            are those of the kernels.

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
        targets = [n for n in ("macs", "energy", "rank") if getattr(self, n) is not None]
        if len(targets) != 1:
            raise ValueError(
                f"exactly one of macs, energy and rank must be given, got "
                f"{', '.join(targets) or 'none'}"
            )
        for name in targets:
            value = getattr(self, name)
            if not (isinstance(value, int | float) and 0 < value < math.inf):
                raise ValueError(f"{name} must be a finite number above 0, got {value!r}")
        super().__post_init__()
        check_whole_numbers(self, calibration=0)


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class FactorizeResult(PrintedResult):
    """Result of a factorization job.

    Args:
        directory: Folder of the job's files.
        report: The rank and the error of each layer.
        rows: The files on the test part, the original float32 file first.
        latencies: Measured latency of each file, by label.
        notes: What could not be done, and why.
    """

    directory: pathlib.Path
    report: FactorizationReport
    rows: list[FileRow]
    latencies: dict[str, Latency]
    notes: list[str]

    def _headline(self) -> str:
        return f"{len(self.report.layers)} factorized layers, {len(self.rows)} files"

    def _details(self) -> list[str]:
        return [str(self.report)]

    def _table(self) -> tuple[list[str], list[list[str]]]:
        rows = short_rows(self.rows, lambda row: [short_time(self.latencies[row.label])])
        return short_headers("time"), rows

    def _remarks(self) -> list[str]:
        return [*speed_lines(self.latencies, "low rank"), *self.notes]
