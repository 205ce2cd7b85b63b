"""Report of techniques that were applied as a job: Markdown, HTML, and the pictures in them."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from tfnas.compression.results.file_rows import file_rows, headers, time_cell
from tfnas.compression.results.technique_result import TechniqueResult
from tfnas.compression.techniques import technique
from tfnas.drawing.pareto_plot import AXES
from tfnas.reports.agreement_sections import more_metrics
from tfnas.reports.calls import call_of, changed, written
from tfnas.reports.chart import chart_of
from tfnas.reports.content import Block, Picture, Pictures, Report, Section, Table, paragraphs
from tfnas.reports.curves import curve_sections
from tfnas.reports.job_content import job_content
from tfnas.reports.pages import write_report
from tfnas.reports.plots import PICTURES

if TYPE_CHECKING:
    from tfnas.compression.file_comparison_table import FileRow
    from tfnas.compression.technique_context import Context


def write(result: TechniqueResult, context: Context) -> None:
    """Writes the pictures, report.md, and last report.html.

    Args:
        result: The result of the job.
        context: Its task and data.
    """
    write_report(result.directory, content(result, context))


def content(result: TechniqueResult, context: Context) -> Report:
    """Returns what the report says; see :func:`write` for the arguments."""
    titles = headers(*result.columns(), "time of the reference [95%]", metric=context.task.metric)

    def cells(row: FileRow) -> list[str]:
        return [*result.cells(row), time_cell(result.latencies[row.label])]

    return job_content(
        result.title(),
        context.data,
        Table(titles, file_rows(result.rows, cells)),
        result.remarks(),
        [
            *more_metrics(result.rows),
            *(_section(section) for section in result.sections()),
            *curve_sections(result.curves),
        ],
        _settings(result),
        answer=result.answer(),
        plots=[chart_of(result.pareto_plot(AXES))] if len(result.rows) > 1 else [],
        call=_call(result),
    )


def _call(result: TechniqueResult) -> str:
    steps = [(each.technique, changed(each.settings)) for each in result.outcomes]
    row = ", ".join(f"({name!r}, {written(settings)})" for name, settings in steps)
    training = next((each.training for each in result.outcomes if each.training), None)
    arguments = {} if training is None else {"settings": training}
    return call_of("tfnas.run_techniques", ["model", f"[{row}]", "data"], arguments)


def _section(section: technique.ReportSection) -> Section:
    blocks: list[Block] = []
    if section.picture is not None:
        name, kind, record = section.picture
        blocks.append(Pictures([Picture(name, PICTURES[kind](record), section.caption)]))
    if section.headers:
        table = Table(section.headers, section.rows, right=section.right, prose=section.prose)
        blocks.append(table)
    return Section(section.title, [*blocks, *paragraphs(*section.texts)])


def _settings(result: TechniqueResult) -> dict[str, object]:
    several = len(result.outcomes) > 1
    found: dict[str, object] = {}
    for outcome in result.outcomes:
        prefix = f"{outcome.technique}: " if several else ""
        training = {} if outcome.training is None else dataclasses.asdict(outcome.training)
        fields = {**dataclasses.asdict(outcome.settings), **training}
        found |= {f"{prefix}{name}": value for name, value in fields.items()}
    return found
