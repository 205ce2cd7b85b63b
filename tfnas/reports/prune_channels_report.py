"""Report of a channel pruning job, in Markdown."""

from __future__ import annotations

import dataclasses

from tfnas.compression.results.file_rows import file_rows, headers, speed_lines, time_cell
from tfnas.compression.results.prune_channels_result import PruneChannelsConfig, PruneChannelsResult
from tfnas.data.data_split import DataSplit
from tfnas.measure.latency import provenance
from tfnas.runtime.files import write_atomically
from tfnas.table import markdown_table

_FILES = headers("time of the reference [95%]")


def write(result: PruneChannelsResult, split: DataSplit, config: PruneChannelsConfig) -> None:
    """Writes report.md.

    Args:
        result: The result of the job.
        split: Its data.
        config: Its settings.
    """
    settings = [[name, value] for name, value in dataclasses.asdict(config).items()]
    parts = [
        f"# Fewer channels, on {split.name}",
        f"{split}.",
        "## The files, on the test part",
        markdown_table(_FILES, _rows(result)),
        "\n".join(f"- {line}" for line in [*_speed(result), *result.notes]),
    ]
    for number, report in enumerate(result.reports, 1):
        (before, after), (old, new) = report.macs, report.parameters
        parts += [
            f"## Step {number}",
            markdown_table(report.headers(), report.rows()),
            f"{before:,} MACs to {after:,}, {old:,} parameters to {new:,}.",
        ]
        parts += report.notes
    parts += [
        "## Settings and environment",
        markdown_table(["setting", "value"], settings, right=2),
        markdown_table(["where", "value"], list(provenance().items()), right=2),
    ]
    write_atomically(result.directory / "report.md", "\n\n".join(p for p in parts if p) + "\n")


def _rows(result: PruneChannelsResult) -> list[list[str]]:
    return file_rows(result.rows, lambda row: [time_cell(result.latencies[row.label])])


def _speed(result: PruneChannelsResult) -> list[str]:
    return speed_lines(result.latencies, "smaller")
