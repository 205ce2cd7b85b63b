"""Report of quantization-aware training: Markdown, HTML, JSON, a picture of errors by layer."""

from __future__ import annotations

from tfnas.compression.results.file_rows import file_rows, headers
from tfnas.compression.results.qat_result import QatConfig, QatResult
from tfnas.data.data_split import DataSplit
from tfnas.reports.content import Block, Picture, Pictures, Report, Section, Table, Words
from tfnas.reports.job_content import files_table, job_content
from tfnas.reports.pages import write_report
from tfnas.reports.plots import quantization_picture
from tfnas.runtime.files import write_atomically


def write(
    result: QatResult, split: DataSplit, config: QatConfig, words: Words | None = None
) -> None:
    """Writes errors.json, errors.png, report.md and report.html.

    Args:
        result: The result of the job.
        split: Its data.
        config: Its settings.
        words: How the report calls examples and their metric; None: images and accuracy.
    """
    write_atomically(result.directory / "errors.json", result.errors.to_json())
    write_report(result.directory, content(result, split, config, words or Words()))


def content(result: QatResult, split: DataSplit, config: QatConfig, words: Words) -> Report:
    """Returns what the report says; see :func:`write` for the arguments."""
    errors = result.errors
    drawn = quantization_picture(errors)
    blocks: list[Block] = [
        Pictures([Picture("errors.png", drawn, "Signal to noise of each layer")]),
        Table(errors.headers(), errors.rows()),
    ]
    return job_content(
        f"{config.mode} after {config.epochs} epochs of quantization-aware training",
        split,
        files_table(headers(), file_rows(result.rows), words),
        [*result.unquantized_lines(), *result.notes],
        [Section("Quantization error, layer by layer", blocks)],
        config,
    )
