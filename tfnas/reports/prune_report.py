"""A pruning run's results for people: text, Markdown, CSV, a picture."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from tfnas.data.datasets import DataSplit
from tfnas.measure.latency import provenance
from tfnas.reports.file_rows import file_rows, headers
from tfnas.reports.plots import sensitivity_picture
from tfnas.runtime.files import write_atomically
from tfnas.table import csv_table, markdown_table, table

if TYPE_CHECKING:
    from tfnas.compression.file_comparison_table import FileRow
    from tfnas.compression.jobs.prune_job import PruneConfig, PruneResult

_FILES = headers("zeros")
_SPEED = (
    "Zeros make a file smaller once it is compressed; whether they make it faster depends on the "
    "device, and was not measured here: `tfnas bench` does."
)


def summary(result: PruneResult) -> str:
    """Returns the results as plain text."""
    lines = [str(result.report), ""]
    lines += ["Test part, the .tflite files themselves:", table(_FILES, _file_rows(result)), ""]
    lines += [f"pruned, float32: {_verdict(result)}", *result.notes, _SPEED, ""]
    return "\n".join([*lines, f"Everything is in {result.directory}"])


def write(result: PruneResult, split: DataSplit, config: PruneConfig) -> None:
    """Writes report.md and kernels.csv, and sensitivity.json and .png where it was measured."""
    rows = [
        [k.name, k.kind, "x".join(map(str, k.shape)), k.note, k.weights, k.zeros, k.sparsity]
        for k in result.report.kernels
    ]
    write_atomically(result.directory / "kernels.csv", csv_table(result.report.HEADERS, rows))
    found = result.sensitivity
    if found is not None:
        write_atomically(result.directory / "sensitivity.json", found.to_json())
        write_atomically(result.directory / "sensitivity.png", sensitivity_picture(found))
    write_atomically(result.directory / "report.md", _markdown(result, split, config))


def _markdown(result: PruneResult, split: DataSplit, config: PruneConfig) -> str:
    settings = [[name, value] for name, value in dataclasses.asdict(config).items()]
    report = result.report
    parts = [
        f"# {report.sparsity:.1%} zeros in {len(report.kernels)} pruned kernels, on {split.name}",
        f"{split}.",
        "## The files, on the test part",
        markdown_table(_FILES, _file_rows(result)),
        "\n".join(f"- {line}" for line in [f"float32: {_verdict(result)}", *result.notes, _SPEED]),
        "## The kernels",
        markdown_table(report.HEADERS, report.rows(), right=4),
        f"{report.zeros:,} of {report.weights:,} weights are zero.",
    ]
    if result.sensitivity is not None:
        parts += [
            "## Sensitivity",
            "![Quality with one layer pruned](sensitivity.png)",
            "Minus the loss on the validation part with one layer alone pruned, the most "
            "sensitive first.",
            markdown_table(result.sensitivity.headers(), result.sensitivity.rows()),
        ]
    parts += [
        "## How it was made",
        markdown_table(["setting", "value"], settings, right=2),
        markdown_table(["where", "value"], list(provenance().items()), right=2),
    ]
    return "\n\n".join(parts) + "\n"


def _file_rows(result: PruneResult) -> list[list[str]]:
    def zeros(row: FileRow) -> list[str]:
        counted = result.sparsities.get(row.label)
        return [f"{counted.sparsity:.1%}" if counted else ""]

    return file_rows(result.rows, zeros)


def _verdict(result: PruneResult) -> str:
    """What the form of the sparse file, or else of the dense one, admits."""
    names = ("pruned, float32 sparse", "pruned, float32")
    counted = next((result.sparsities[n] for n in names if n in result.sparsities), None)
    if counted is None:
        return "no float32 file"
    form = f"{counted.verdict}"
    if not counted.verdict.eligible:
        return form
    return f"{form} by its form, where 1x1 kernels hold two thirds zeros and are stored sparse"
