"""Report of a pruning job: Markdown, HTML, CSV, and a picture of the sensitivity."""

from __future__ import annotations

from tfnas.compression.results.file_rows import file_rows, headers
from tfnas.compression.results.prune_result import SPEED_NOTE, PruneConfig, PruneResult
from tfnas.data.data_split import DataSplit
from tfnas.pruning.sensitivity import Sensitivity
from tfnas.reports.content import (
    Picture,
    Pictures,
    Report,
    Section,
    Table,
    Words,
    paragraphs,
)
from tfnas.reports.job_content import files_table, job_content
from tfnas.reports.pages import write_report
from tfnas.reports.plots import sensitivity_picture
from tfnas.runtime.files import write_atomically
from tfnas.table import csv_table


def write(
    result: PruneResult, split: DataSplit, config: PruneConfig, words: Words | None = None
) -> None:
    """Writes kernels.csv, report.md and report.html; sensitivity.json and .png where measured.

    Args:
        result: The result of the job.
        split: Its data.
        config: Its settings.
        words: How the report calls examples and their metric; None: images and accuracy.
    """
    rows = [
        [k.name, k.kind, "x".join(map(str, k.shape)), k.note, k.weights, k.zeros, k.sparsity]
        for k in result.report.kernels
    ]
    write_atomically(result.directory / "kernels.csv", csv_table(result.report.headers(), rows))
    if result.sensitivity is not None:
        write_atomically(result.directory / "sensitivity.json", result.sensitivity.to_json())
    write_report(result.directory, content(result, split, config, words or Words()))


def content(result: PruneResult, split: DataSplit, config: PruneConfig, words: Words) -> Report:
    """Returns what the report says; see :func:`write` for the arguments."""
    report, rows = result.report, file_rows(result.rows, lambda row: [result.sparsity_cell(row)])
    sections = [
        Section(
            "The kernels",
            [
                Table(report.headers(), report.rows(), right=4, prose=[3]),
                *paragraphs(f"{report.zeros:,} of {report.weights:,} weights are zero."),
            ],
        )
    ]
    if result.sensitivity is not None:
        sections.append(_sensitivity(result.sensitivity))
    return job_content(
        f"{report.sparsity:.1%} zeros in {len(report.kernels)} pruned kernels",
        split,
        files_table(headers("zeros"), rows, words),
        [f"float32: {result.speed_verdict()}", *result.notes, SPEED_NOTE],
        sections,
        config,
    )


def _sensitivity(found: Sensitivity) -> Section:
    drawn = sensitivity_picture(found)
    explained = (
        "Minus the loss on the validation part with one layer alone pruned, the most "
        "sensitive layer first."
    )
    return Section(
        "Sensitivity",
        [
            Pictures([Picture("sensitivity.png", drawn, "Quality with one layer pruned")]),
            *paragraphs(explained),
            Table(found.headers(), found.rows()),
        ],
    )
