"""How results print: text in a terminal, one line as `repr`, HTML in a notebook."""

from __future__ import annotations

import abc
import html
import pathlib

from tfnas.table import html_table, table

WIDTH = 80  # characters of a line in a terminal


class PrintedResult(abc.ABC):
    """Base of the records that jobs return: it prints them, they say what.

    A subclass is a dataclass with `repr=False` and a field `directory`.
    """

    directory: pathlib.Path

    @abc.abstractmethod
    def _headline(self) -> str:
        """Returns the outcome in a few words, for `repr`."""

    @abc.abstractmethod
    def _table(self) -> tuple[list[str], list[list[str]]]:
        """Returns the headers and the rows of the table of files."""

    def _details(self) -> list[str]:
        """Returns texts that stand before the table."""
        return []

    def _remarks(self) -> list[str]:
        """Returns the lines after the table."""
        return []

    def __str__(self) -> str:
        headers, rows = self._table()
        parts = [*self._details(), table(headers, rows, width=WIDTH)]
        lines = [*self._remarks(), f"Everything is in {self.directory}"]
        return "\n\n".join([*parts, "\n".join(lines)])

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._headline()}, directory={str(self.directory)!r})"

    def _repr_html_(self) -> str:
        details = "".join(f"<pre>{html.escape(text)}</pre>" for text in self._details())
        lines = [*self._remarks(), f"Everything is in {self.directory}"]
        items = "".join(f"<li>{html.escape(line.removeprefix('- '))}</li>" for line in lines)
        return f"{details}{html_table(*self._table())}<ul>{items}</ul>"
