"""The sections that a report ends with: how to repeat the job, its settings and the machine."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping

from tfnas.reports.content import Paragraph, Section, Table


def repeat(call: str, text: str) -> Section:
    """Returns the section of the call that makes the same again.

    Args:
        call: The call.
        text: What else is to know.
    """
    return Section("How to repeat it", [Paragraph(text, code=call)])


def environment(settings: Mapping[str, object], machine: Mapping[str, object]) -> Section:
    """Returns the section of the settings and of the machine.

    Args:
        settings: Setting -> value. Of an absolute path only the last name is shown: a report is
            passed on, and where somebody's files lie is of no use to its readers.
        machine: What :func:`tfnas.measure.latency.provenance` returns.
    """
    tables = (("setting", settings), ("where", machine))
    return Section(
        "Settings and environment",
        [
            Table([title, "value"], [[k, _setting(v)] for k, v in found.items()], 2, prose=[1])
            for title, found in tables
        ],
    )


def _setting(value: object) -> str:
    if isinstance(value, tuple | list):
        shown = [bare(item) for item in value]
        return str(tuple(shown) if isinstance(value, tuple) else shown)
    return str(bare(value))


def bare(value: object) -> object:
    """Returns a value; of an absolute path its last name."""
    if not isinstance(value, str | pathlib.PurePath):
        return value
    windows, posix = pathlib.PureWindowsPath(value), pathlib.PurePosixPath(value)
    path = next((p for p in (posix, windows) if p.is_absolute()), None)
    return value if path is None or not path.name else path.name
