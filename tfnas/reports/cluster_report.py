"""Report of a clustering job, in Markdown and HTML."""

from __future__ import annotations

from tfnas.compression.results.cluster_result import SPEED_NOTE, ClusterConfig, ClusterResult
from tfnas.compression.results.file_rows import file_rows, headers, time_cell
from tfnas.data.data_split import DataSplit
from tfnas.reports.content import Report, Section, Table, Words, paragraphs
from tfnas.reports.job_content import files_table, job_content
from tfnas.reports.pages import write_report

_FILES = headers("values", "time of the reference [95%]")
_VALUES = ["file", "layer", "operator", "weights", "values", "values a channel"]


def write(
    result: ClusterResult, split: DataSplit, config: ClusterConfig, words: Words | None = None
) -> None:
    """Writes report.md and report.html.

    Args:
        result: The result of the job.
        split: Its data.
        config: Its settings.
        words: How the report calls examples and their metric; None: images and accuracy.
    """
    write_report(result.directory, content(result, split, config, words or Words()))


def content(result: ClusterResult, split: DataSplit, config: ClusterConfig, words: Words) -> Report:
    """Returns what the report says; see :func:`write` for the arguments."""
    report = result.report
    folded = ", ".join(report.folded) if report.folded else "no layer"
    texts = paragraphs(
        f"{report.summary()}.", f"BatchNormalization was folded into {folded}.", *report.notes
    )
    kernels = Table(report.headers(), report.rows(), right=4, prose=[3])
    return job_content(
        f"Kernels of at most {config.clusters} values",
        split,
        files_table(_FILES, _rows(result), words),
        [*result.notes, SPEED_NOTE],
        [
            Section("The kernels", [kernels, *texts]),
            Section("The values in the files", [Table(_VALUES, _values(result), right=3)]),
        ],
        config,
    )


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
