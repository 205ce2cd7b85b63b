"""Settings and result of a job that prunes channels."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Mapping

from tfnas.compression.file_comparison_table import FileRow
from tfnas.compression.results.file_rows import short_headers, short_rows, short_time, speed_lines
from tfnas.compression.results.printed_result import PrintedResult
from tfnas.compression.training_settings import TrainingSettings, check_whole_numbers
from tfnas.measure.measurement import Latency
from tfnas.pruning.structured.channel_report import ChannelPruningReport
from tfnas.pruning.structured.channel_selection import MOST


@dataclasses.dataclass(frozen=True, kw_only=True)
class PruneChannelsConfig(TrainingSettings):
    """Settings of a channel pruning job: one of four targets, and its training.

    Args:
        macs: Most multiply-accumulates; in (0, 1]: a fraction of the model's.
        params: Most weights; in (0, 1]: a fraction of the model's.
        latency: Most latency of the int8 file, estimated by its layers, as a fraction in (0, 1).
        sizes: Channels that each layer keeps: (name, number) pairs or a mapping.
        epochs: Epochs of training, spread over the steps; 0: none.
        steps: Steps of pruning and training; more than 1 only with `macs` as a fraction.
        criterion: See :func:`tfnas.prune_channels`.
        scope: "global", "group" or "saving"; see :func:`tfnas.prune_channels`.
        round_to: Multiple that numbers of channels are rounded to; None: any number.
        max_ratio: Largest fraction of a group's channels that is removed, in (0, 1].
        exclude: Layers that keep their channels.

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
        names = ("macs", "params", "latency", "sizes")
        targets = [n for n in names if getattr(self, n) not in (None, ())]
        if len(targets) != 1:
            raise ValueError(
                f"exactly one of macs, params, latency and sizes must be given, got "
                f"{', '.join(targets) or 'none'}"
            )
        super().__post_init__()
        check_whole_numbers(self, steps=1)
        if self.steps > 1 and not (self.macs is not None and self.macs < 1):
            raise ValueError(f"steps must be 1 unless macs is a fraction, got {self.steps}")
        if self.steps > max(self.epochs, 1):
            raise ValueError(f"steps must be at most epochs {self.epochs}, got {self.steps}")


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class PruneChannelsResult(PrintedResult):
    """Result of a channel pruning job.

    Args:
        directory: Folder of the job's files.
        reports: The channels that each step removed.
        rows: The files on the test part, the original float32 file first.
        latencies: Measured latency of each file, by label.
        notes: What could not be done, and why.
    """

    directory: pathlib.Path
    reports: list[ChannelPruningReport]
    rows: list[FileRow]
    latencies: dict[str, Latency]
    notes: list[str]

    def _headline(self) -> str:
        macs = self.reports[0].macs[0], self.reports[-1].macs[1]
        return f"{macs[0]:,} MACs to {macs[1]:,}, {len(self.rows)} files"

    def _details(self) -> list[str]:
        return [str(report) for report in self.reports]

    def _table(self) -> tuple[list[str], list[list[str]]]:
        rows = short_rows(self.rows, lambda row: [short_time(self.latencies[row.label])])
        return short_headers("time"), rows

    def _remarks(self) -> list[str]:
        return [*speed_lines(self.latencies, "smaller"), *self.notes]
