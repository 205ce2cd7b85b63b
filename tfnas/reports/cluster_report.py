"""Report of a clustering job, in Markdown."""

from __future__ import annotations

import dataclasses

from tfnas.compression.results.cluster_result import SPEED_NOTE, ClusterConfig, ClusterResult
from tfnas.compression.results.file_rows import file_rows, headers, time_cell
from tfnas.data.data_split import DataSplit
from tfnas.measure.latency import provenance
from tfnas.runtime.files import write_atomically
from tfnas.table import markdown_table

_FILES = headers("values", "time of the reference [95%]")
_VALUES = ["file", "layer", "operator", "weights", "values", "values a channel"]


def write(result: ClusterResult, split: DataSplit, config: ClusterConfig) -> None:
    """Writes report.md.

    Args:
        result: The result of the job.
        split: Its data.
        config: Its settings.
    """
    settings = [[name, value] for name, value in dataclasses.asdict(config).items()]
    report = result.report
    parts = [
        f"# Kernels of at most {config.clusters} values, on {split.name}",
        f"{split}.",
        "## The files, on the test part",
        markdown_table(_FILES, _rows(result)),
        "\n".join(f"- {line}" for line in [*result.notes, SPEED_NOTE]),
        "## The kernels",
        markdown_table(report.headers(), report.rows(), right=4),
        f"{report.summary()}.",
        "BatchNormalization was folded into "
        + (", ".join(report.folded) if report.folded else "no layer")
        + ".",
        *report.notes,
        "## The values in the files",
        markdown_table(_VALUES, _values(result), right=3),
        "## Settings and environment",
        markdown_table(["setting", "value"], settings, right=2),
        markdown_table(["where", "value"], list(provenance().items()), right=2),
    ]
    write_atomically(result.directory / "report.md", "\n\n".join(parts) + "\n")


def _rows(result: ClusterResult) -> list[list[str]]:
    return file_rows(
        result.rows,
        lambda row: [result.values_cell(row), time_cell(result.latencies[row.label])],
    )


def _values(result: ClusterResult) -> list[list[str]]:
    return [
        [label, k.layer, k.operator, *(f"{n:,}" for n in (k.weights, k.values, k.channel))]
        for label, kernels in result.values.items()
        if label.startswith("clustered")
        for k in kernels
    ]
