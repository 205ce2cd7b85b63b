"""Report of a factorization job, in Markdown and HTML."""

from __future__ import annotations

from tfnas.compression.results.factorize_result import FactorizeConfig, FactorizeResult
from tfnas.compression.results.file_rows import file_rows, headers, speed_lines, time_cell
from tfnas.data.data_split import DataSplit
from tfnas.reports.content import Block, Report, Section, Table, Words, paragraphs
from tfnas.reports.job_content import change, files_table, job_content
from tfnas.reports.pages import write_report

_FILES = headers("time of the reference [95%]")


def write(
    result: FactorizeResult, split: DataSplit, config: FactorizeConfig, words: Words | None = None
) -> None:
    """Writes report.md and report.html.

    Args:
        result: The result of the job.
        split: Its data.
        config: Its settings.
        words: How the report calls examples and their metric; None: images and accuracy.
    """
    write_report(result.directory, content(result, split, config, words or Words()))


def content(
    result: FactorizeResult, split: DataSplit, config: FactorizeConfig, words: Words
) -> Report:
    """Returns what the report says; see :func:`write` for the arguments."""
    report = result.report
    error_of = f"output on training {words.examples}" if report.weighted else "kernel"
    explained = (
        f"{change(report.macs, report.parameters)} The error is the fraction "
        f"of the layer's squared {error_of} that the ranks leave out, before any training."
    )
    blocks: list[Block] = [*paragraphs("" if report.layers else "None.", explained)]
    if report.layers:
        blocks.insert(0, Table(report.headers(), report.rows(), right=2))
    sections = [Section("Factorized layers", blocks)]
    if report.left:
        left = Table(["layer", "class", "why"], report.left_rows(), right=3, prose=[2])
        sections.append(Section("Layers that were not factorized", [left]))
    if report.notes:
        sections.append(Section("", paragraphs(*report.notes)))
    rows = file_rows(result.rows, lambda row: [time_cell(result.latencies[row.label])])
    return job_content(
        "Low rank",
        split,
        files_table(_FILES, rows, words),
        [*speed_lines(result.latencies, "low rank"), *result.notes],
        sections,
        config,
    )
