"""Result of techniques that were applied as a job: files beside the original's, and reports."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from tfnas.compression.file_comparison_table import FileRow
from tfnas.compression.results.file_rows import (
    more_lines,
    short_headers,
    short_rows,
    speed_lines,
)
from tfnas.compression.results.printed_result import PrintedResult
from tfnas.compression.techniques.registry import technique
from tfnas.compression.techniques.technique import ReportSection, TechniqueOutcome
from tfnas.measure.measurement import Latency

if TYPE_CHECKING:
    from tfnas.compression.techniques.technique import Technique
    from tfnas.tflite.artifact import Artifact


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class TechniqueResult(PrintedResult):
    """Result of a row of techniques.

    Args:
        directory: Folder of the job's files.
        outcomes: What each technique did, in their order.
        rows: The files on the test part, the original float32 file first.
        latencies: Measured latency of each file, by label.
        notes: What could not be done, and why.
    """

    directory: pathlib.Path
    outcomes: Sequence[TechniqueOutcome]
    rows: list[FileRow]
    latencies: dict[str, Latency]
    notes: list[str]

    @property
    def technique(self) -> Technique:
        """The last technique, after which the files are named."""
        return technique(self.outcomes[-1].technique)

    @property
    def report(self) -> object:
        """The last report of the last technique; None where it has none."""
        reports = self.outcomes[-1].reports
        return reports[-1] if reports else None

    @property
    def files(self) -> dict[str, Artifact]:
        """The files by label."""
        return {row.label: row.file for row in self.rows}

    def title(self) -> str:
        """Returns the title of the report."""
        return "; ".join(technique(each.technique).title(each) for each in self.outcomes)

    def remarks(self) -> list[str]:
        """Returns sentences about the result."""
        lines = speed_lines(self.latencies, self.technique.label)
        for row in self.rows:
            lines += more_lines(self.rows, row.label)
        for outcome in self.outcomes:
            lines += technique(outcome.technique).remarks(outcome, self.files)
        return [*dict.fromkeys(lines), *self.notes]

    def sections(self) -> list[ReportSection]:
        """Returns the parts of the report after the table of files."""
        found = []
        for outcome in self.outcomes:
            found += technique(outcome.technique).sections(outcome, self.files)
        return found

    def columns(self) -> list[str]:
        """Returns the titles of the techniques' own columns in the table of files."""
        titles = [technique(each.technique).column() for each in self.outcomes]
        return [title for title in titles if title]

    def cells(self, row: FileRow) -> list[str]:
        """Returns a file's cells in these columns.

        Args:
            row: The file.
        """
        found = [technique(each.technique) for each in self.outcomes]
        return [each.cell(row.file) for each in found if each.column()]

    def _headline(self) -> str:
        return f"{self.title()}, {len(self.rows)} files"

    def _details(self) -> list[str]:
        return [text for each in self.outcomes for text in technique(each.technique).details(each)]

    def _table(self) -> tuple[list[str], list[list[str]]]:
        def cells(row: FileRow) -> list[str]:
            # Two digits, so that labels fit in a line of a terminal.
            return [*self.cells(row), f"{self.latencies[row.label].ratio:.2f}x"]

        metric = self.rows[0].assessment.metric
        return short_headers(*self.columns(), "time", metric=metric), short_rows(self.rows, cells)

    def _remarks(self) -> list[str]:
        return self.remarks()
