"""A clustering run's results for people: text and Markdown."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from tfnas.data.datasets import DataSplit
from tfnas.measure.latency import provenance
from tfnas.reports.file_rows import file_rows, headers, time_cell
from tfnas.runtime.files import write_atomically
from tfnas.table import markdown_table, table

if TYPE_CHECKING:
    from tfnas.compression.file_comparison_table import FileRow
    from tfnas.compression.jobs.cluster_job import ClusterConfig, ClusterResult

_FILES = headers("values", "time of the reference [95%]")
_VALUES = ["file", "layer", "operator", "weights", "values", "a channel"]
_SPEED = (
    "Shared values make a file smaller once it is compressed; TFLite computes with it as with "
    "any other, as fast."
)


def summary(result: ClusterResult) -> str:
    """Returns the results as plain text."""
    lines = [str(result.report), ""]
    lines += ["Test part, the .tflite files themselves:", table(_FILES, _rows(result)), ""]
    lines += [*result.notes, _SPEED, "", f"Everything is in {result.directory}"]
    return "\n".join(lines)


def write(result: ClusterResult, split: DataSplit, config: ClusterConfig) -> None:
    """Writes report.md."""
    settings = [[name, value] for name, value in dataclasses.asdict(config).items()]
    report = result.report
    parts = [
        f"# Kernels of at most {config.clusters} values, on {split.name}",
        f"{split}.",
        "## The files, on the test part",
        markdown_table(_FILES, _rows(result)),
        "\n".join(f"- {line}" for line in [*result.notes, _SPEED]),
        "## The kernels",
        markdown_table(report.HEADERS, report.rows(), right=4),
        f"{report.summary()}.",
        "BatchNormalization was folded into "
        + (", ".join(report.folded) if report.folded else "no layer")
        + ".",
        *report.notes,
        "## The values in the files",
        markdown_table(_VALUES, _values(result), right=3),
        "## How it was made",
        markdown_table(["setting", "value"], settings, right=2),
        markdown_table(["where", "value"], list(provenance().items()), right=2),
    ]
    write_atomically(result.directory / "report.md", "\n\n".join(parts) + "\n")


def _rows(result: ClusterResult) -> list[list[str]]:
    def more(row: FileRow) -> list[str]:
        counts = [kernel.values for kernel in result.values[row.label]]
        values = f"{min(counts):,} to {max(counts):,}" if counts else ""
        return [values, time_cell(result.latencies[row.label])]

    return file_rows(result.rows, more)


def _values(result: ClusterResult) -> list[list[str]]:
    return [
        [label, k.layer, k.operator, *(f"{n:,}" for n in (k.weights, k.values, k.channel))]
        for label, kernels in result.values.items()
        if label.startswith("clustered")
        for k in kernels
    ]
