"""What the reports of all commands for one technique have alike."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from tfnas.data.examples import Data
from tfnas.measure.latency import provenance
from tfnas.reports.content import Block, Report, Section, Table, Verdict, listing, paragraphs
from tfnas.reports.last_sections import environment, repeat

_REPEATED = "does the same again, where `model` is the original."


def job_content(
    title: str,
    data: Data,
    files: Table,
    lines: Iterable[str],
    sections: Sequence[Section],
    settings: Mapping[str, object],
    *,
    answer: str = "",
    plots: Sequence[Block] = (),
    call: str = "",
) -> Report:
    """Returns the report of a job: its data, its files, what is said of them, and its settings.

    Args:
        title: The title; the name of the data set is added.
        data: The data.
        files: The files on the test part.
        lines: Sentences on the files.
        sections: The technique's own sections.
        settings: The settings.
        answer: What was gained and lost, in a sentence.
        plots: What is drawn of the files.
        call: The call that repeats the job; "": none.
    """
    first: list[Block] = [Verdict(answer, good=True)] if answer else []
    return Report(
        f"{title}, on {data.name}",
        [
            Section("", [*first, *paragraphs(f"{data}.")]),
            Section("The files, on the test part", [*plots, files, *listing(lines)]),
            *sections,
            *([repeat(call, _REPEATED)] if call else []),
            environment(settings, provenance()),
        ],
    )
