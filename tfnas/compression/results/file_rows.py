"""Files measured side by side on the test part, as rows of a table."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from tfnas.compression.file_comparison_table import FileRow, row_of
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
            scaled_difference(row.difference, row.assessment.metric),
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


def more_headers() -> list[str]:
    """Returns the titles of :func:`more_rows`."""
    return ["metric", "file", "value", "95% interval", "difference to the first [95%]"]


def more_rows(rows: Sequence[FileRow]) -> list[list[str]]:
    """Returns a row for each further metric and file; nothing where the task has one metric.

    Args:
        rows: The measured files, the one that the others are compared with first.
    """
    return [
        [
            row.more[name].metric.name,
            row.label,
            f"{row.more[name].score.value:.4f}",
            f"[{row.more[name].score.low:.4f}, {row.more[name].score.high:.4f}]",
            _with_unit(row.more_differences.get(name), row.more[name].metric),
        ]
        for name in (rows[0].more if rows else ())
        for row in rows
    ]


def more_lines(rows: Sequence[FileRow], label: str) -> list[str]:
    """Returns a sentence for each further metric of a file, for a terminal.

    Args:
        rows: The measured files, the one that the others are compared with first.
        label: Label of the file.
    """
    row = row_of(rows, label)
    return [
        f"{assessment.metric.name} of {label}: {assessment.score.value:.4f} "
        f"[{assessment.score.low:.4f}, {assessment.score.high:.4f}], "
        f"{_with_unit(row.more_differences[name], assessment.metric)} to the first"
        for name, assessment in row.more.items()
        if name in row.more_differences
    ]


def _with_unit(difference: tuple[float, float, float] | None, metric: Metric) -> str:
    return f"{scaled_difference(difference, metric)} {metric.unit if difference else ''}".rstrip()


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


def size_and_speed(before: int, after: int, ratio: tuple[float, float, float]) -> str:
    """Returns how much smaller and faster a file is.

    Example:
        >>> size_and_speed(1000, 200, (0.5, 0.4, 0.625))
        '5.0x smaller, 2.0x faster [1.6, 2.5]'
        >>> size_and_speed(1000, 2000, (1.25, 1.0, 2.0))
        '2.0x larger, 1.2x slower [1.0, 2.0]'

    Args:
        before: Bytes of the other file.
        after: Bytes of the file.
        ratio: The file's latency as a ratio to the other's, with the ends of its interval.
    """
    low, high = 1 / ratio[2], 1 / ratio[1]
    if ratio[0] > 1:
        low, high = ratio[1], ratio[2]
    size = _times(before / after, "smaller", "larger", "about as large")
    speed = _times(1 / ratio[0], "faster", "slower", "about as fast")
    return f"{size}, {speed} [{low:.1f}, {high:.1f}]"


def _times(value: float, more: str, less: str, same: str) -> str:
    """Returns how many times something is more, or less."""
    if f"{max(value, 1 / value):.1f}" == "1.0":
        return same
    return f"{value:.1f}x {more}" if value > 1 else f"{1 / value:.1f}x {less}"


def difference_text(row: FileRow) -> str:
    """Returns what a file gains or loses by the task's metric, for a sentence.

    Args:
        row: The file, which is not the first.
    """
    metric = row.assessment.metric
    change = scaled_difference(row.difference, metric)
    return f"{change} {metric.unit} of {metric.name}" if metric.unit else f"{metric.name} {change}"


def scaled_difference(difference: tuple[float, float, float] | None, metric: Metric) -> str:
    """Returns a difference with its 95% interval in a metric's unit, "" where there is none.

    Args:
        difference: The difference and the ends of its interval, as values of the metric.
        metric: The metric.
    """
    if difference is None:
        return ""
    value, low, high = (metric.scale * part for part in difference)
    digits = metric.digits
    return f"{value:+.{digits}f} [{low:+.{digits}f}, {high:+.{digits}f}]"
