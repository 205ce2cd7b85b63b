"""Result of techniques that were applied as a job: files beside the original's, and reports."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tfnas.compression.file_comparison_table import FileRow
from tfnas.compression.results.file_rows import (
    difference_text,
    more_lines,
    short_headers,
    short_rows,
    size_and_speed,
    speed_lines,
)
from tfnas.compression.results.printed_result import PrintedResult
from tfnas.compression.techniques.registry import technique
from tfnas.compression.techniques.technique import ReportSection, TechniqueOutcome
from tfnas.compression.training_curves import Curves
from tfnas.drawing.pareto_figure import pareto_figure
from tfnas.drawing.pareto_plot import ParetoLabels, ParetoPlot
from tfnas.measure.measurement import Latency, pareto_front

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
        curves: Training -> name -> value of each epoch.
    """

    directory: pathlib.Path
    outcomes: Sequence[TechniqueOutcome]
    rows: list[FileRow]
    latencies: dict[str, Latency]
    notes: list[str]
    curves: Curves = dataclasses.field(default_factory=dict)

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

    def time_ratio(self, row: FileRow) -> tuple[float, float, float]:
        """Returns (ratio, low, high) of a file's latency to the original's."""
        return self.latencies[row.label].ratio_to(self.latencies[self.rows[0].label])

    def answer(self) -> str:
        """Returns in a sentence what the smallest file gained and lost; "" where there is none."""
        if len(self.rows) < 2:
            return ""
        row = min(self.rows[1:], key=lambda row: (row.file.gzip_size, row.file.size))
        sizes = self.rows[0].file.gzip_size, row.file.gzip_size
        text = size_and_speed(*sizes, self.time_ratio(row))
        name = f"model_{row.label.rpartition(', ')[2]}.tflite"
        where = f": `{name}`" if (self.directory / name).exists() else ""
        return (
            f"{row.label}: after gzip {text}, {difference_text(row)}, against {self.rows[0].label}"
            f"{where}."
        )

    def plot(self, over: Sequence[str] = ("latency", "bytes")) -> Any:
        """Draws the files on the test part: their quality over their time and over their size.

        A notebook shows the figure. In a script, save it.

        Example:
            >>> result.plot()  # doctest: +SKIP

        Args:
            over: "latency", "bytes" or both: a panel for each.

        Returns:
            A `matplotlib.figure.Figure`.

        Raises:
            ValueError: `over` holds something else, or nothing.
            ImportError: matplotlib is not installed.
        """
        return pareto_figure(self.pareto_plot(over))

    def pareto_plot(self, over: Sequence[str], labels: ParetoLabels | None = None) -> ParetoPlot:
        """Returns what a plot of the files shows, on the test part.

        Args:
            over: "latency", "bytes" or both.
            labels: Words on the axes; None: those of the metric.
        """
        metric = self.rows[0].assessment.metric
        labels = labels or ParetoLabels(
            *(metric.name, "test part", "the original", metric.higher_is_better)
        )
        places = [(r.score.value, self.time_ratio(r)[0], r.file.size) for r in self.rows]
        upward = "max" if metric.higher_is_better else "min"
        return ParetoPlot(
            places[1:],
            pareto_front(places[1:], (upward, "min", "min")) if places[1:] else [],
            title=self.title(),
            labels=labels,
            objectives=(labels.metric, "latency", "size"),
            over=over,
            others={self.rows[0].label: places[0]},
            errors=[(r.difference[2] - r.difference[1]) / 2 for r in self.rows if r.difference],
            names=[row.label for row in self.rows[1:]],
            more={"gzip, KiB": [row.file.gzip_size / 1024 for row in self.rows[1:]]},
        )

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
