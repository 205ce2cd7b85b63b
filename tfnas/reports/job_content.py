"""What the reports of all commands for one technique have alike."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from tfnas.data.examples import Data
from tfnas.measure.latency import provenance
from tfnas.reports.content import Report, Section, Table, environment, listing, paragraphs


def job_content(
    title: str,
    data: Data,
    files: Table,
    lines: Iterable[str],
    sections: Sequence[Section],
    settings: Mapping[str, object],
) -> Report:
    """Returns the report of a job: its data, its files, what is said of them, and its settings.

    Args:
        title: The title; the name of the data set is added.
        data: The data.
        files: The files on the test part.
        lines: Sentences on the files.
        sections: The technique's own sections.
        settings: The settings.
    """
    return Report(
        f"{title}, on {data.name}",
        [
            Section("", paragraphs(f"{data}.")),
            Section("The files, on the test part", [files, *listing(lines)]),
            *sections,
            environment(settings, provenance()),
        ],
    )
