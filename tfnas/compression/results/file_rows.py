"""Files measured side by side on the test part, as rows of a table."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from tfnas.compression.file_comparison_table import FileRow
from tfnas.measure.measurement import Latency
from tfnas.tasks.assessment import ACCURACY, Metric


def headers(*more: str, metric: Metric = ACCURACY) -> list[str]:
    """Returns the titles of a report's columns.

    Args:
        *more: Titles before those of the sizes.
        metric: The task's metric.
    """
    difference = f"{metric.unit or 'difference'} to the first [95%]"
    return ["file", metric.name, "95% interval", difference, *more, "bytes", "gzip"]


def file_rows(
    rows: Sequence[FileRow], more: Callable[[FileRow], Sequence[str]] = lambda row: ()
) -> list[list[str]]:
    """Returns a row a file; see :func:`headers`.

    Args:
        rows: The measured files, the one that the others are compared with first.
        more: Returns the cells that stand before the sizes.
    """
    return [
        [
            row.label,
            f"{row.score.value:.4f}",
            f"[{row.score.low:.4f}, {row.score.high:.4f}]",
            _scaled(row.difference, row.assessment.metric),
            *more(row),
            f"{row.file.size:,}",
            f"{row.file.gzip_size:,}",
        ]
        for row in rows
    ]


def short_headers(*more: str, metric: Metric = ACCURACY) -> list[str]:
    """Returns the titles of a terminal's columns; see :func:`headers` for the arguments."""
    return ["file", metric.name, f"{metric.unit or 'difference'} [95%]", *more, "bytes", "gzip"]


def short_rows(
    rows: Sequence[FileRow], more: Callable[[FileRow], Sequence[str]] = lambda row: ()
) -> list[list[str]]:
    """Returns a row a file; see :func:`short_headers`, and :func:`file_rows` for the arguments."""
    return [
        [label, value, difference, *cells]
        for label, value, _, difference, *cells in file_rows(rows, more)
    ]


def time_cell(latency: Latency) -> str:
    """Returns a latency as a ratio to the reference model's, with its 95% interval."""
    return f"{short_time(latency)} [{latency.ratio_low:.4f}, {latency.ratio_high:.4f}]"


def short_time(latency: Latency) -> str:
    """Returns a latency as a ratio to the reference model's."""
    return f"{latency.ratio:.4f}x"


def speed_lines(latencies: Mapping[str, Latency], label: str) -> list[str]:
    """Returns how many times as fast each file is as the original of its mode.

    Args:
        latencies: Measured latencies by "name, mode".
        label: Name of the files that are compared with the original's.
    """
    lines = []
    for mode in ("float32", "int8"):
        before, after = (latencies.get(f"{name}, {mode}") for name in ("original", label))
        if before is not None and after is not None:
            speedup = before.ratio / after.ratio
            lines.append(
                f"{mode}: {speedup:.2f}x as fast as the original, measured on this machine"
            )
    return lines


def _scaled(difference: tuple[float, float, float] | None, metric: Metric) -> str:
    if difference is None:
        return ""
    value, low, high = (metric.scale * part for part in difference)
    digits = metric.digits
    return f"{value:+.{digits}f} [{low:+.{digits}f}, {high:+.{digits}f}]"
