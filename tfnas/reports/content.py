"""What a report says, apart from how it looks: blocks of text, tables and pictures.

A report of a job fills a :class:`Report`; :func:`tfnas.reports.pages.write_report` renders it to
report.md and report.html by the templates in `templates/`, so that both hold the same. Texts are
plain: the templates escape them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, ClassVar, get_args

from tfnas.reports.chart import Chart
from tfnas.reports.parallel import Parallel
from tfnas.reports.training_tiles import TrainingTiles

if TYPE_CHECKING:
    from tfnas.tasks.task import Task

Cell = str | int | float | None


@dataclasses.dataclass(frozen=True)
class Words:
    """How a report calls what it counts and measures.

    Args:
        examples: The examples of the data, in the plural.
        metric: The metric of quality.
        points: The unit of differences of the metric.
    """

    examples: str = "images"
    metric: str = "accuracy"
    points: str = "points"

    @classmethod
    def of(cls, task: Task) -> Words:
        """Returns the words of a task.

        Args:
            task: What the model is for.
        """
        return cls(task.noun, task.metric.name, task.metric.unit or "differences")


def capitalized(word: str) -> str:
    """Returns a word as it begins a sentence; one like "mAP" stays.

    Example:
        >>> capitalized("accuracy"), capitalized("mAP")
        ('Accuracy', 'mAP')
    """
    return word.capitalize() if word.islower() else word


@dataclasses.dataclass(frozen=True)
class Paragraph:
    """Sentences.

    Args:
        text: The sentences.
        code: Code that stands before them.
    """

    kind: ClassVar[str] = "paragraph"

    text: str
    code: str = ""


@dataclasses.dataclass(frozen=True)
class Verdict:
    """The outcome in a sentence, framed on the page.

    Args:
        text: The sentence, which says by itself whether the outcome is good.
        good: Whether it is; repeats that by a color.
    """

    kind: ClassVar[str] = "verdict"

    text: str
    good: bool


@dataclasses.dataclass(frozen=True)
class Warnings:
    """Sentences that must not be overlooked, each framed on the page.

    Args:
        lines: The sentences.
    """

    kind: ClassVar[str] = "warnings"

    lines: Sequence[str]


@dataclasses.dataclass(frozen=True)
class Listing:
    """A list of sentences.

    Args:
        lines: The sentences.
    """

    kind: ClassVar[str] = "listing"

    lines: Sequence[str]


@dataclasses.dataclass(frozen=True)
class Table:
    """A table.

    Args:
        headers: A title for each column.
        rows: A cell for each column: text, a number, or None for an empty cell.
        right: Index of the first column that is aligned to the right.
        chosen: Index of the highlighted row; None: none.
        bars: Indices of columns of numbers that the page draws as bars too.
        prose: Indices of columns of running text, whose lines the page breaks.

    Raises:
        ValueError: A row has another number of cells than there are titles.
    """

    kind: ClassVar[str] = "table"

    headers: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    right: int = 1
    chosen: int | None = None
    bars: Sequence[int] = ()
    prose: Sequence[int] = ()

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.headers):
                raise ValueError(
                    f"rows must have {len(self.headers)} cells, as many as titles, got {list(row)}"
                )

    def texts(self) -> list[list[str]]:
        """Returns the rows with numbers as text.

        Example:
            >>> Table(["layer", "MACs", "time %"], [["stem", 1200, 12.3456], ["head", None, 0.5]]
            ...     ).texts()
            [['stem', '1,200', '12.3'], ['head', '', '0.5']]
        """
        return [[_text(cell) for cell in row] for row in self.rows]

    def bar(self, row: int, column: int) -> float | None:
        """Returns the length of a cell's bar, as a fraction of the column's longest.

        Args:
            row: Index of the row.
            column: Index of the column.

        Returns:
            The length, from 0 to 1; None where no bar is drawn.
        """
        value = self.rows[row][column]
        if column not in self.bars or value is None:
            return None
        longest = max(float(each[column] or 0) for each in self.rows)
        return max(0.0, float(value) / (longest or 1.0))

    def align(self, column: int) -> str:
        """Returns how the page aligns a column: "prose", "left" or "right"."""
        if column in self.prose:
            return "prose"
        return "left" if column < self.right else "right"


@dataclasses.dataclass(frozen=True)
class Picture:
    """A picture: a file beside report.md, and a part of the page.

    Args:
        name: Name of the file; empty: it is on the page only.
        png: The picture as a PNG file.
        description: What it shows, for who does not see it.
        caption: A line of text below it; empty: none.
    """

    name: str
    png: bytes = dataclasses.field(repr=False)
    description: str
    caption: str = ""


@dataclasses.dataclass(frozen=True)
class Pictures:
    """Pictures side by side, as far as the page is wide enough.

    Args:
        pictures: The pictures.
        small: Whether they are single examples of the data, drawn in their pixels.
        on_page: Whether the page shows them; where it has a :class:`.chart.Chart` of the same
            content they are in Markdown alone.
    """

    kind: ClassVar[str] = "pictures"

    pictures: Sequence[Picture]
    small: bool = False
    on_page: bool = True


Drawing = Chart | Parallel | TrainingTiles  # on the page only
Block = Paragraph | Verdict | Warnings | Listing | Table | Pictures | Drawing


@dataclasses.dataclass(frozen=True)
class Section:
    """Blocks below a title.

    Args:
        title: The title; empty: none.
        blocks: The blocks.
        page_only: Whether Markdown leaves the section out, since it consists of small pictures.
    """

    title: str
    blocks: Sequence[Block]
    page_only: bool = False


@dataclasses.dataclass(frozen=True)
class Report:
    """What a report says.

    Args:
        title: Its title.
        sections: Its sections; the first has no title where sentences lead.
    """

    page_kinds: ClassVar[tuple[str, ...]] = tuple(kind.kind for kind in get_args(Drawing))

    title: str
    sections: Sequence[Section]

    def pictures(self) -> list[Picture]:
        """Returns the pictures that are files."""
        blocks = [block for section in self.sections for block in section.blocks]
        found = [p for block in blocks if isinstance(block, Pictures) for p in block.pictures]
        return [picture for picture in found if picture.name]


def paragraphs(*texts: str) -> list[Paragraph]:
    """Returns each text that is not empty as a paragraph."""
    return [Paragraph(text) for text in texts if text]


def listing(lines: Iterable[str]) -> list[Listing]:
    """Returns a list of sentences, or no block where there is none."""
    found = list(lines)
    return [Listing(found)] if found else []


def _text(cell: Cell) -> str:
    if cell is None:
        return ""
    if isinstance(cell, str):
        return cell
    return f"{cell:,}" if isinstance(cell, int) else f"{cell:.3g}"
