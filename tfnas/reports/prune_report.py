"""Report of a pruning job: Markdown, CSV, and a picture of the sensitivity."""

from __future__ import annotations

import dataclasses

from tfnas.compression.results.file_rows import file_rows, headers
from tfnas.compression.results.prune_result import SPEED_NOTE, PruneConfig, PruneResult
from tfnas.data.data_split import DataSplit
from tfnas.measure.latency import provenance
from tfnas.reports.plots import sensitivity_picture
from tfnas.runtime.files import write_atomically
from tfnas.table import csv_table, markdown_table

_FILES = headers("zeros")


def write(result: PruneResult, split: DataSplit, config: PruneConfig) -> None:
    """Writes report.md and kernels.csv, and sensitivity.json and .png where it was measured.

    Args:
        result: The result of the job.
        split: Its data.
        config: Its settings.
    """
    rows = [
        [k.name, k.kind, "x".join(map(str, k.shape)), k.note, k.weights, k.zeros, k.sparsity]
        for k in result.report.kernels
    ]
    write_atomically(result.directory / "kernels.csv", csv_table(result.report.headers(), rows))
    sensitivity = result.sensitivity
    if sensitivity is not None:
        write_atomically(result.directory / "sensitivity.json", sensitivity.to_json())
        write_atomically(result.directory / "sensitivity.png", sensitivity_picture(sensitivity))
    write_atomically(result.directory / "report.md", _markdown(result, split, config))


def _markdown(result: PruneResult, split: DataSplit, config: PruneConfig) -> str:
    rows = file_rows(result.rows, lambda row: [result.sparsity_cell(row)])
    settings = [[name, value] for name, value in dataclasses.asdict(config).items()]
    report = result.report
    parts = [
        f"# {report.sparsity:.1%} zeros in {len(report.kernels)} pruned kernels, on {split.name}",
        f"{split}.",
        "## The files, on the test part",
        markdown_table(_FILES, rows),
        "\n".join(
            f"- {line}"
            for line in [f"float32: {result.speed_verdict()}", *result.notes, SPEED_NOTE]
        ),
        "## The kernels",
        markdown_table(report.headers(), report.rows(), right=4),
        f"{report.zeros:,} of {report.weights:,} weights are zero.",
    ]
    if result.sensitivity is not None:
        parts += [
            "## Sensitivity",
            "![Quality with one layer pruned](sensitivity.png)",
            "Minus the loss on the validation part with one layer alone pruned, the most "
            "sensitive layer first.",
            markdown_table(result.sensitivity.headers(), result.sensitivity.rows()),
        ]
    parts += [
        "## Settings and environment",
        markdown_table(["setting", "value"], settings, right=2),
        markdown_table(["where", "value"], list(provenance().items()), right=2),
    ]
    return "\n\n".join(parts) + "\n"
