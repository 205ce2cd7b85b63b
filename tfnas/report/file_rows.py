"""Files side by side on the test part, as rows of a table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the record belongs to the pipeline, which is to the right of here
    from tfnas.pipeline.compare import FileRow

_HEADERS = ["file", "accuracy", "95% interval", "points to the first [95%]"]


def headers(*more: str) -> list[str]:
    """Returns the titles of the columns, `more` before the sizes."""
    return [*_HEADERS, *more, "bytes", "gzip"]


def file_rows(
    rows: Sequence[FileRow], more: Callable[[FileRow], Sequence[str]] = lambda row: ()
) -> list[list[str]]:
    """Returns a row a file; see :func:`headers`.

    Args:
        rows: The measured files, the one that the others are compared with first.
        more: Gives the cells that stand before the sizes.
    """
    return [
        [
            row.label,
            f"{row.score.value:.4f}",
            f"[{row.score.low:.4f}, {row.score.high:.4f}]",
            _points(row.difference),
            *more(row),
            f"{row.file.size:,}",
            f"{row.file.gzip_size:,}",
        ]
        for row in rows
    ]


def _points(difference: tuple[float, float, float] | None) -> str:
    if difference is None:
        return ""
    value, low, high = (100 * part for part in difference)
    return f"{value:+.2f} [{low:+.2f}, {high:+.2f}]"
