"""Tables as plain text, Markdown and CSV."""

from __future__ import annotations

import csv
import html
import io
import textwrap
from collections.abc import Sequence


def table(
    headers: Sequence[str],
    rows: Sequence[Sequence[object]],
    right: int = 1,
    width: int | None = None,
) -> str:
    """Returns an aligned text table.

    Example:
        >>> print(table(["layer", "MACs"], [["stem", 1200], ["head", 7]]))
        layer  MACs
        -----  ----
        stem   1200
        head      7

    Args:
        headers: One title a column.
        rows: One cell a column.
        right: Index of the first column that is aligned to the right.
        width: Longest line, in characters: where it is exceeded, cells of the first column are
            wrapped, as far as their words allow. None: any length.
    """
    cells = [list(map(str, headers)), *(list(map(str, row)) for row in rows)]
    widths = _widths(cells)
    room = None if width is None else width - sum(widths[1:]) - 2 * len(widths[1:])
    head = cells[:1]
    body = cells[1:]
    if room is not None and widths[0] > room:
        head, body = (
            [line for row in part for line in _wrapped(row, room)] for part in (head, body)
        )
        widths = _widths([*head, *body])
    cells = [*head, ["-" * width for width in widths], *body]

    def line(row: Sequence[str]) -> str:
        padded = (
            cell.rjust(width) if i >= right else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        return "  ".join(padded).rstrip()

    return "\n".join(line(row) for row in cells)


def _widths(cells: list[list[str]]) -> list[int]:
    return [max(map(len, column)) for column in zip(*cells, strict=True)]


def _wrapped(row: list[str], room: int) -> list[list[str]]:
    """A row as one row a line of its first cell."""
    first, *others = textwrap.wrap(row[0], max(1, room), break_long_words=False) or [""]
    return [[first, *row[1:]], *([text, *[""] * (len(row) - 1)] for text in others)]


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


def html_table(headers: Sequence[str], rows: Sequence[Sequence[object]], right: int = 1) -> str:
    """Returns an HTML table, as notebooks show it; see :func:`table` for the arguments.

    Example:
        >>> html_table(["layer", "MACs"], [["stem", 1200]]).count("<td")
        2
    """

    def line(tag: str, row: Sequence[object]) -> str:
        cells = (
            f'<{tag} style="text-align: {"right" if i >= right else "left"}">'
            f"{html.escape(str(cell))}</{tag}>"
            for i, cell in enumerate(row)
        )
        return f"<tr>{''.join(cells)}</tr>"

    body = "".join(line("td", row) for row in rows)
    return f"<table><thead>{line('th', headers)}</thead><tbody>{body}</tbody></table>"
