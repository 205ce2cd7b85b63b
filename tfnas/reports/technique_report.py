"""Report of techniques that were applied as a job."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from tfnas.compression.results.file_rows import file_rows, headers, time_cell
from tfnas.compression.results.technique_result import TechniqueResult
from tfnas.measure.latency import provenance
from tfnas.reports.plots import PICTURES
from tfnas.runtime.files import write_atomically
from tfnas.table import markdown_table

if TYPE_CHECKING:
    from tfnas.compression.file_comparison_table import FileRow
    from tfnas.compression.technique_context import Context
    from tfnas.compression.techniques.technique import Section


def write(result: TechniqueResult, context: Context) -> None:
    """Writes report.md and the pictures in it.

    Args:
        result: The result of the job.
        context: Its data and settings.
    """
    for section in result.sections():
        if section.picture is not None:
            name, kind, record = section.picture
            write_atomically(result.directory / name, PICTURES[kind](record))
    write_atomically(result.directory / "report.md", _markdown(result, context))


def _markdown(result: TechniqueResult, context: Context) -> str:
    metric = context.task.metric
    parts = [
        f"# {result.title()}, on {context.data.name}",
        f"{context.data}.",
        "## The files, on the test part",
        markdown_table(
            headers(*result.columns(), "time of the reference [95%]", metric=metric), _rows(result)
        ),
        "\n".join(f"- {line}" for line in result.remarks()),
        *(text for section in result.sections() for text in _section(section)),
        "## Settings and environment",
        markdown_table(["setting", "value"], _settings(result), right=2),
        markdown_table(["where", "value"], list(provenance().items()), right=2),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _rows(result: TechniqueResult) -> list[list[str]]:
    def cells(row: FileRow) -> list[str]:
        return [*result.cells(row), time_cell(result.latencies[row.label])]

    return file_rows(result.rows, cells)


def _section(section: Section) -> list[str]:
    parts = [f"## {section.title}"]
    if section.picture is not None:
        parts.append(f"![{section.title}]({section.picture[0]})")
    if section.headers:
        parts.append(markdown_table(section.headers, section.rows, right=section.right))
    return [*parts, *section.texts]


def _settings(result: TechniqueResult) -> list[list[object]]:
    several = len(result.outcomes) > 1
    rows: list[list[object]] = []
    for outcome in result.outcomes:
        prefix = f"{outcome.technique}: " if several else ""
        training = {} if outcome.training is None else dataclasses.asdict(outcome.training)
        fields = {**dataclasses.asdict(outcome.settings), **training}
        rows += [[f"{prefix}{name}", value] for name, value in fields.items()]
    return rows
