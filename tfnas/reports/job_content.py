"""What the reports of all commands for one technique have alike."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence

from tfnas.compression.training_settings import TrainingSettings
from tfnas.data.data_split import DataSplit
from tfnas.measure.latency import provenance
from tfnas.reports.content import Report, Section, Table, Words, environment, listing, paragraphs


def job_content(
    title: str,
    split: DataSplit,
    files: Table,
    lines: Iterable[str],
    sections: Sequence[Section],
    config: TrainingSettings,
) -> Report:
    """Returns the report of a job: its data, its files, what is said of them, and its settings.

    Args:
        title: The title; the name of the data set is added.
        split: The data.
        files: The files on the test part.
        lines: Sentences on the files.
        sections: The technique's own sections.
        config: The settings.
    """
    return Report(
        f"{title}, on {split.name}",
        [
            Section("", paragraphs(f"{split}.")),
            Section("The files, on the test part", [files, *listing(lines)]),
            *sections,
            environment(dataclasses.asdict(config), provenance()),
        ],
    )


def files_table(headers: Sequence[str], rows: Sequence[Sequence[str]], words: Words) -> Table:
    """Returns the table of a job's files, its titles in the words of the data."""
    return Table(words.titles(headers), rows)


def change(macs: tuple[int, int], parameters: tuple[int, int]) -> str:
    """Returns by how much a model was reduced, each as (before, after)."""
    (before, after), (old, new) = macs, parameters
    return f"{before:,} MACs to {after:,}, {old:,} parameters to {new:,}."
