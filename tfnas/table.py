"""Tables as plain text, Markdown, CSV and HTML, and records that print as tables."""

from __future__ import annotations

import csv
import dataclasses
import html
import io
import itertools
import re
import textwrap
from collections.abc import Mapping, Sequence
from typing import NamedTuple

WIDTH = 80  # characters a line of a terminal
_GAP = 2  # spaces between columns
_NARROWEST = 20  # characters that a narrowed column keeps
_MOST_ITEMS = 4  # of a collection that a short repr spells out
_SCALARS = (str, int, float, bool, type(None))


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
        headers: One title per column.
        rows: One cell per column in each.
        right: Index of the first right-aligned column.
        width: Longest line, in characters: where it is exceeded, cells of the first column are
            wrapped, as far as their words allow. None: any length.
    """
    cells = _texts(headers, rows)
    widths = _widths(cells)
    room = None if width is None else width - sum(widths[1:]) - 2 * len(widths[1:])
    head = cells[:1]
    body = cells[1:]
    if room is not None and widths[0] > room:
        head, body = (
            [line for row in part for line in _wrapped(row, room)] for part in (head, body)
        )
        widths = _widths([*head, *body])
    return _aligned([*head, ["-" * width for width in widths], *body], widths, right)


def _aligned(cells: list[list[str]], widths: list[int], right: int) -> str:
    """The cells in columns of these widths, by rich: it knows how wide a character is."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    grid = Table.grid(padding=(0, _GAP, 0, 0))
    for i in range(len(widths)):
        grid.add_column(justify="right" if i >= right else "left", no_wrap=True)
    for row in cells:
        grid.add_row(*map(Text, row))  # as text: brackets are no markup
    out = io.StringIO()
    width = max(1, sum(widths) + _GAP * len(widths))
    console = Console(
        file=out,
        width=width,
        color_system=None,
        force_terminal=False,
        force_jupyter=False,
        legacy_windows=False,
    )
    console.print(grid)
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines())


def _texts(headers: Sequence[str], rows: Sequence[Sequence[object]]) -> list[list[str]]:
    return [[printable(str(cell)) for cell in row] for row in (headers, *rows)]


def _widths(cells: list[list[str]]) -> list[int]:
    from rich.cells import cell_len

    return [max(map(cell_len, column)) for column in zip(*cells, strict=True)]


def _wrapped(row: list[str], room: int) -> list[list[str]]:
    """A row as one row a line of its first cell."""
    first, *others = textwrap.wrap(row[0], max(1, room), break_long_words=False) or [""]
    return [[first, *row[1:]], *([text, *[""] * (len(row) - 1)] for text in others)]


# Control characters, halves of characters (names that are not UTF-8), and what reverses a line.
_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\u202a-\u202e\u2066-\u2069]")
# What has a meaning to Markdown: anywhere, at the edge of a word, or at the start of a line.
_MARKUP = re.compile(
    r"[\\`*<|~]"
    r"|(?<!\w)_+|_+(?!\w)"
    r"|&(?=#?\w+;)"
    r"|\](?=[(\[:])"
    r"|^[#>]|^[-+=](?=[\s=-]|$)"
    r"|(?<=^\d)[.)](?=\s)|(?<=^\d\d)[.)](?=\s)"
)
# Numbers, intervals and units that begin like a formula and compute nothing.
_NUMBERS = re.compile(r"[-+][\d\s.,%\[\]()+-]*(e[-+]?\d+|inf|nan)?", re.IGNORECASE)


def printable(text: str) -> str:
    r"""Returns a text with its control characters as one reads them in Python's source code.

    A name of a file or of a layer could otherwise move the cursor of a terminal, or reverse what
    follows it. Line breaks and tabs stay.

    Example:
        >>> print(printable("a\x1b[31m\u202e"))
        a\x1b[31m\u202e

    Args:
        text: Any text.
    """
    return _UNPRINTABLE.sub(lambda found: ascii(found[0])[1:-1], text)


def markdown_table(headers: Sequence[str], rows: Sequence[Sequence[object]], right: int = 1) -> str:
    r"""Returns a Markdown table that shows its cells as they are: HTML and markup are escaped.

    Example:
        >>> print(markdown_table(["layer", "MACs"], [["<b>|x", 7]]))
        | layer | MACs |
        | --- | ---: |
        | \<b>\|x | 7 |

    Args:
        headers: One title a column.
        rows: One cell a column.
        right: Index of the first column that is aligned to the right.
    """
    rule = ["---:" if i >= right else "---" for i in range(len(headers))]
    shown = [[markdown_line(cell) for cell in row] for row in (headers, *rows)]
    return "\n".join("| " + " | ".join(row) + " |" for row in (shown[0], rule, *shown[1:]))


def markdown_line(value: object) -> str:
    """Returns plain text as Markdown that shows just that text, in one line.

    Args:
        value: The text, or what is printed as text.
    """
    return _MARKUP.sub(lambda found: re.sub(r"(.)", r"\\\1", found[0]), one_line(value))


def one_line(value: object) -> str:
    """Returns what is printed as text in one line, with visible control characters.

    Args:
        value: The text, or what is printed as text.
    """
    return printable(re.sub(r"\s*[\r\n]\s*", " ", str(value)))


def csv_table(headers: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Returns a table as CSV text, without formulas: spreadsheets compute what begins with =.

    Example:
        >>> print(csv_table(["layer", "change"], [["=1+1", -3], ["stem", "-1.5 [-2.0, -1.0]"]]))
        layer,change
        '=1+1,-3
        stem,"-1.5 [-2.0, -1.0]"
        <BLANKLINE>

    Args:
        headers: One title a column.
        rows: One cell a column.
    """
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerows([_csv_cell(cell) for cell in row] for row in (headers, *rows))
    return out.getvalue()


def _csv_cell(cell: object) -> object:
    """A cell; of a text that begins like a formula one that is text to a spreadsheet too."""
    if not isinstance(cell, str):
        return cell
    text = printable(cell)
    begin = text.lstrip()[:1]
    is_formula = begin in ("=", "@", "\uff1d", "\uff20") or (
        begin in ("+", "-", "\uff0b", "\uff0d") and not _NUMBERS.fullmatch(text)
    )
    return f"'{text}" if begin and is_formula else text


class TextTable(NamedTuple):
    """A table as data: it becomes text, Markdown, CSV or HTML.

    Args:
        headers: One title a column.
        rows: One cell a column.
        right: Index of the first column that is aligned to the right.
        title: A line above the table; empty: none.
    """

    headers: Sequence[str]
    rows: Sequence[Sequence[object]]
    right: int = 1
    title: str = ""


class Printable:
    """Mixin of records that may have a field `notes`; all others use :class:`Tabular`.

    A subclass defines :meth:`headers` and :meth:`rows`, or :meth:`tables` where it has several;
    and :meth:`footer` where it has sentences.
    """

    def headers(self) -> Sequence[str]:
        """Returns one title a column.

        Raises:
            NotImplementedError: The class defines no headers.
        """
        raise NotImplementedError(f"{type(self).__name__} must define headers() or tables()")

    def rows(self) -> Sequence[Sequence[object]]:
        """Returns the rows, one cell a column.

        Raises:
            NotImplementedError: The class defines no rows.
        """
        raise NotImplementedError(f"{type(self).__name__} must define rows() or tables()")

    def tables(self) -> Sequence[TextTable]:
        """Returns the tables that are shown, one below the other."""
        return [TextTable(self.headers(), self.rows())]

    def footer(self) -> Sequence[str]:
        """Returns sentences that are shown below the tables."""
        return ()

    def __str__(self) -> str:
        blocks = []
        for each in self.tables():
            text = fit_table(each.headers, each.rows, each.right)
            blocks.append("\n".join([*fit_text(each.title), text]))
        lines = ["\n\n".join(blocks)] if blocks else []
        return "\n".join([*lines, *(line for note in self.footer() for line in fit_text(note))])

    def __repr__(self) -> str:
        return short_repr(self)

    def _repr_html_(self) -> str:
        """The tables and notes as HTML: Jupyter calls this."""
        blocks = []
        for each in self.tables():
            blocks += [f"<p>{html.escape(each.title)}</p>"] if each.title else []
            blocks.append(html_table(each.headers, each.rows, each.right))
        blocks += [f"<p>{html.escape(note)}</p>" for note in self.footer()]
        return "\n".join(blocks)


class Tabular(Printable):
    """Mixin of result records: `print(result)` shows tables, a notebook shows HTML.

    A subclass defines :meth:`headers` and :meth:`rows`, or :meth:`tables` where it has several.
    A dataclass is declared with `repr=False`, so that its `repr` is the one line of
    :func:`short_repr`.

    Example:
        >>> class Sizes(Tabular):
        ...     def headers(self):
        ...         return ["layer", "bytes"]
        ...     def rows(self):
        ...         return [["stem", 1200], ["head", 7]]
        >>> print(Sizes())
        layer  bytes
        -----  -----
        stem    1200
        head       7
    """

    def notes(self) -> Sequence[str]:
        """Returns sentences that are shown below the tables."""
        return ()

    def footer(self) -> Sequence[str]:
        """Returns the notes."""
        return self.notes()


def html_table(headers: Sequence[str], rows: Sequence[Sequence[object]], right: int = 1) -> str:
    """Returns an HTML table with all text escaped.

    Example:
        >>> html_table(["layer"], [["<a>"]]).splitlines()[-2]
        '<tr><td style="text-align: left">&lt;a&gt;</td></tr>'

    Args:
        headers: One title a column.
        rows: One cell a column.
        right: Index of the first column that is aligned to the right.
    """

    def line(tag: str, row: Sequence[object]) -> str:
        cells = (
            f'<{tag} style="text-align: {"right" if i >= right else "left"}">'
            f"{html.escape(printable(str(cell)))}</{tag}>"
            for i, cell in enumerate(row)
        )
        return f"<tr>{''.join(cells)}</tr>"

    lines = [line("th", headers), *(line("td", row) for row in rows)]
    return "\n".join(["<table>", *lines, "</table>"])


def fit_table(
    headers: Sequence[str], rows: Sequence[Sequence[object]], right: int = 1, width: int = WIDTH
) -> str:
    """Returns a text table whose lines have at most `width` characters, without losing a column.

    Where the table is too wide, the widest column of text is wrapped, or long names in the first
    column are shortened from the left; where that does not suffice, the columns are split into
    several tables that all begin with the first column.

    Example:
        >>> print(fit_table(["layer", "kind"], [["block_1/expand/conv_1", "Conv2D"]], 2, width=28))
        layer                 kind
        --------------------  ------
        ...k_1/expand/conv_1  Conv2D

    Args:
        headers: One title a column.
        rows: One cell a column.
        right: Index of the first column that is aligned to the right.
        width: Most characters a line. A column that is wider by itself is wrapped.
    """
    cells = _texts(headers, rows)
    columns = [list(column) for column in zip(*cells, strict=True)]
    widths = _widths(cells)
    if sum(widths) + _GAP * (len(widths) - 1) <= width:
        return table(headers, rows, right)
    for i in sorted(range(len(columns)), key=lambda i: -widths[i]):
        spare = width - sum(w + _GAP for j, w in enumerate(widths) if j != i)
        if spare >= _NARROWEST and (i == 0 or any(" " in cell for cell in columns[i])):
            limits = [spare if j == i else w for j, w in enumerate(widths)]
            return _narrowed(columns, limits, right)
    first = min(widths[0], _NARROWEST)
    limits = [first, *(min(w, width - first - _GAP) for w in widths[1:])]
    groups: list[list[int]] = [[0]]
    for i in range(1, len(columns)):
        used = sum(limits[j] + _GAP for j in groups[-1])
        if len(groups[-1]) > 1 and used + limits[i] > width:
            groups.append([0])
        groups[-1].append(i)
    return "\n\n".join(
        _narrowed(
            [columns[i] for i in group], [limits[i] for i in group], sum(i < right for i in group)
        )
        for group in groups
    )


def fit_text(text: str, width: int = WIDTH) -> list[str]:
    """Returns a text as lines of at most `width` characters; words longer than that stay whole.

    Args:
        text: The text.
        width: Most characters a line. Further lines of a paragraph are indented by two.
    """
    return [
        line
        for part in text.splitlines()
        for line in textwrap.wrap(
            part,
            width,
            subsequent_indent="  ",
            break_long_words=False,
            break_on_hyphens=False,
        )
    ]


def short_repr(record: object) -> str:
    """Returns the `repr` of a dataclass as one line: long collections and arrays are counted only.

    Example:
        >>> import dataclasses
        >>> Sizes = dataclasses.make_dataclass("Sizes", ["name", "bytes"])
        >>> short_repr(Sizes("a", list(range(100))))
        "Sizes(name='a', bytes=<100 items>)"

    Args:
        record: A dataclass; other objects have Python's own `repr`.
    """
    if not dataclasses.is_dataclass(record):
        return object.__repr__(record)
    shown = (
        f"{field.name}={_short(getattr(record, field.name))}"
        for field in dataclasses.fields(record)
        if field.repr
    )
    return f"{type(record).__name__}({', '.join(shown)})"


def _short(value: object) -> str:
    if hasattr(value, "shape") and hasattr(value, "dtype") and value.shape:
        return f"<array of shape {tuple(value.shape)}>"
    if isinstance(value, Mapping | list | tuple | set | frozenset):
        plain = isinstance(value, Mapping) or all(isinstance(v, _SCALARS) for v in value)
        if len(value) > _MOST_ITEMS or not plain or (isinstance(value, Mapping) and value):
            return f"<{len(value)} item{'' if len(value) == 1 else 's'}>"
    return " ".join(repr(value).split())


def _narrowed(columns: Sequence[Sequence[str]], limits: Sequence[int], right: int) -> str:
    """The table of these columns, headers first, each at most as wide as its limit."""
    names = _shortened(columns[0], limits[0])
    lines = []
    for row in zip(names, *columns[1:], strict=True):
        parts = [
            textwrap.wrap(cell, limit, break_on_hyphens=False) if len(cell) > limit else [cell]
            for cell, limit in zip(row, limits, strict=True)
        ]
        lines.append(list(itertools.zip_longest(*parts, fillvalue="")))
    # A title of several lines stays one row of the header: only its first line is above the rule.
    header, *rest = lines
    return table(header[0], [*header[1:], *itertools.chain.from_iterable(rest)], right)


def _shortened(names: Sequence[str], limit: int) -> list[str]:
    """Long names end-first ("...block/conv"), if they stay distinct; texts with spaces stay."""
    short = [
        name if len(name) <= limit or " " in name else f"...{name[3 - limit :]}" for name in names
    ]
    return short if len(set(short)) == len(set(names)) else list(names)
