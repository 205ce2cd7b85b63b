"""Report of a factorization job, in Markdown."""

from __future__ import annotations

import dataclasses

from tfnas.compression.results.factorize_result import FactorizeConfig, FactorizeResult
from tfnas.compression.results.file_rows import file_rows, headers, speed_lines, time_cell
from tfnas.data.data_split import DataSplit
from tfnas.measure.latency import provenance
from tfnas.runtime.files import write_atomically
from tfnas.table import markdown_table

_FILES = headers("time of the reference [95%]")


def write(result: FactorizeResult, split: DataSplit, config: FactorizeConfig) -> None:
    """Writes report.md.

    Args:
        result: The result of the job.
        split: Its data.
        config: Its settings.
    """
    report = result.report
    settings = [[name, value] for name, value in dataclasses.asdict(config).items()]
    (before, after), (old, new) = report.macs, report.parameters
    error_of = "output on training images" if report.weighted else "kernel"
    parts = [
        f"# Low rank, on {split.name}",
        f"{split}.",
        "## The files, on the test part",
        markdown_table(_FILES, _rows(result)),
        "\n".join(f"- {line}" for line in [*_speed(result), *result.notes]),
        "## Factorized layers",
        markdown_table(report.headers(), report.rows(), right=2) if report.layers else "None.",
        f"{before:,} MACs to {after:,}, {old:,} parameters to {new:,}. The error is the fraction "
        f"of the layer's squared {error_of} that the ranks leave out, before any training.",
        "## Layers that were not factorized" if report.left else "",
        markdown_table(["layer", "class", "why"], report.left_rows(), right=3)
        if report.left
        else "",
        *report.notes,
        "## Settings and environment",
        markdown_table(["setting", "value"], settings, right=2),
        markdown_table(["where", "value"], list(provenance().items()), right=2),
    ]
    write_atomically(result.directory / "report.md", "\n\n".join(p for p in parts if p) + "\n")


def _rows(result: FactorizeResult) -> list[list[str]]:
    return file_rows(result.rows, lambda row: [time_cell(result.latencies[row.label])])


def _speed(result: FactorizeResult) -> list[str]:
    return speed_lines(result.latencies, "low rank")
