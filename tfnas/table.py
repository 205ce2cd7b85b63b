"""Formats tables as plain text, Markdown and CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence


def table(headers: Sequence[str], rows: Sequence[Sequence[object]], right: int = 1) -> str:
    """Returns an aligned text table.

    Example:
        >>> print(table(["layer", "MACs"], [["stem", 1200], ["head", 7]]))
        layer  MACs
        -----  ----
        stem   1200
        head      7

    Args:
        headers: One title per column.
        rows: One cell per column in each.
        right: Index of the first right-aligned column.
    """
    cells = [list(map(str, headers)), *(list(map(str, row)) for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(headers))]
    cells.insert(1, ["-" * width for width in widths])

    def line(row: Sequence[str]) -> str:
        padded = (
            cell.rjust(width) if i >= right else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        return "  ".join(padded).rstrip()

    return "\n".join(line(row) for row in cells)


def markdown_table(headers: Sequence[str], rows: Sequence[Sequence[object]], right: int = 1) -> str:
    """Returns a Markdown table; see :func:`table` for the arguments."""
    rule = ["---:" if i >= right else "---" for i in range(len(headers))]
    lines = [headers, rule, *rows]
    return "\n".join(
        "| " + " | ".join(str(c).replace("|", "\\|") for c in row) + " |" for row in lines
    )


def csv_table(headers: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Returns a table as CSV text."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(headers)
    writer.writerows(rows)
    return out.getvalue()
