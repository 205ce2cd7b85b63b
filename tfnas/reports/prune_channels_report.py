"""Report of a channel pruning job, in Markdown and HTML."""

from __future__ import annotations

from tfnas.compression.results.file_rows import file_rows, headers, speed_lines, time_cell
from tfnas.compression.results.prune_channels_result import PruneChannelsConfig, PruneChannelsResult
from tfnas.data.data_split import DataSplit
from tfnas.pruning.structured.channel_report import ChannelPruningReport
from tfnas.reports.content import Report, Section, Table, Words, paragraphs
from tfnas.reports.job_content import change, files_table, job_content
from tfnas.reports.pages import write_report

_FILES = headers("time of the reference [95%]")


def write(
    result: PruneChannelsResult,
    split: DataSplit,
    config: PruneChannelsConfig,
    words: Words | None = None,
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
    result: PruneChannelsResult, split: DataSplit, config: PruneChannelsConfig, words: Words
) -> Report:
    """Returns what the report says; see :func:`write` for the arguments."""
    rows = file_rows(result.rows, lambda row: [time_cell(result.latencies[row.label])])
    return job_content(
        "Fewer channels",
        split,
        files_table(_FILES, rows, words),
        [*speed_lines(result.latencies, "smaller"), *result.notes],
        [_step(number, report) for number, report in enumerate(result.reports, 1)],
        config,
    )


def _step(number: int, report: ChannelPruningReport) -> Section:
    changed = Table(report.headers(), report.rows(), prose=[3])
    texts = paragraphs(change(report.macs, report.parameters), *report.notes)
    return Section(f"Step {number}", [changed, *texts])
