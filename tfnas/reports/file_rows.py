"""Files side by side on the test part, as rows of a table."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from tfnas.measure.measurement import Latency

if TYPE_CHECKING:
    from tfnas.compression.file_comparison_table import FileRow

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


def time_cell(found: Latency) -> str:
    """Returns a time as a ratio to the reference model's, with its interval."""
    return f"{found.ratio:.4f}x [{found.ratio_low:.4f}, {found.ratio_high:.4f}]"


def speed_lines(latencies: Mapping[str, Latency], label: str) -> list[str]:
    """Returns how many times as fast each file is as the original of its mode.

    Args:
        latencies: Measured times by "name, mode".
        label: The name of the files that are told of.
    """
    lines = []
    for mode in ("float32", "int8"):
        old, new = (latencies.get(f"{name}, {mode}") for name in ("original", label))
        if old is not None and new is not None:
            faster = old.ratio / new.ratio
            lines.append(f"{mode}: {faster:.2f}x as fast as the original, measured on this machine")
    return lines


def _points(difference: tuple[float, float, float] | None) -> str:
    if difference is None:
        return ""
    value, low, high = (100 * part for part in difference)
    return f"{value:+.2f} [{low:+.2f}, {high:+.2f}]"
