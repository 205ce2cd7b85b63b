"""Durable records: JSON objects that are replaced whole, with the version of their form.

A kill at any moment leaves the old record or the new one. A record that another version of tfnas
wrote in another form is refused by name, never misread. A file that was damaged or edited by hand
is one error with the file's name: :func:`read_json_object` reads it, and :func:`damage_named` turns
what goes wrong with its content into that error.
"""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

from tfnas.runtime.files import write_atomically

_FORMAT = "format"
_DEEPEST = 64  # levels of a file; deeper ones would end in a RecursionError wherever they are used
DAMAGE = (
    *(ValueError, TypeError, LookupError, AttributeError, ArithmeticError, AssertionError),
    RecursionError,
)
"""Errors of code that is handed the content of a damaged file."""


@contextlib.contextmanager
def damage_named(path: str | os.PathLike[str], kind: str) -> Iterator[None]:
    """Turns errors of a damaged file's content into one error with the file's name.

    Args:
        path: The file.
        kind: What it holds, for the message: "measurement".

    Raises:
        ValueError: The content is not as it should be.
    """
    try:
        yield
    except DAMAGE as error:
        text = f"{type(error).__name__}: {error}" if isinstance(error, LookupError) else str(error)
        if str(path) in text:
            raise
        raise ValueError(f"{path} must hold a {kind}: {text[:300]}") from error


def read_json_object(path: str | os.PathLike[str], kind: str) -> dict[str, Any]:
    """Returns the JSON object in a file.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = pathlib.Path(folder) / "a.json"
        ...     _ = file.write_text('{"seed": 1}')
        ...     read_json_object(file, "search")
        {'seed': 1}

    Args:
        path: The file.
        kind: What it holds, for the message: "measurement".

    Raises:
        OSError: The file can't be read.
        ValueError: It holds no JSON, no object, or is nested too deep.
    """
    with damage_named(path, kind):
        values = json.loads(pathlib.Path(path).read_bytes().decode("utf-8"))
        if not isinstance(values, dict):
            raise _of_something_else(path, kind)
        level: list[Any] = [values]
        for _ in range(_DEEPEST):
            parts = [each.values() if isinstance(each, dict) else each for each in level]
            level = [item for part in parts for item in part if isinstance(item, dict | list)]
        if level:
            raise ValueError(f"it must have at most {_DEEPEST} levels, got more")
        return values


def _of_something_else(path: str | os.PathLike[str], kind: str) -> ValueError:
    return ValueError(
        f"{path} must hold a {kind}, got a file of another version of tfnas or of something else; "
        "choose another folder, or overwrite it"
    )


class Record:
    """A JSON object in a file.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     record = Record(f"{folder}/job.json", "job", version=1)
        ...     record.write({"model": "a1"})
        ...     record.read()
        {'model': 'a1'}

    Args:
        path: The file; it need not exist.
        kind: What the record is, for messages: "job", "candidate".
        version: Version of its form.
    """

    def __init__(self, path: str | os.PathLike[str], kind: str, version: int) -> None:
        self.path, self.kind, self.version = pathlib.Path(path), kind, version

    def exists(self) -> bool:
        """Returns whether the file exists."""
        return self.path.is_file()

    def write(self, values: Mapping[str, Any]) -> None:
        """Replaces the record.

        Args:
            values: What JSON can hold.
        """
        content = {_FORMAT: [self.kind, self.version], **values}
        write_atomically(self.path, json.dumps(content, indent=1))

    def read(self) -> dict[str, Any]:
        """Returns the record.

        Raises:
            ValueError: The file holds no such record, or one of another version.
        """
        values = read_json_object(self.path, self.kind)
        found = values.pop(_FORMAT, None)
        if not isinstance(found, list) or len(found) != 2:
            raise _of_something_else(self.path, self.kind)
        if found[0] != self.kind:
            raise ValueError(f"{self.path} must hold a {self.kind}, got a {str(found[0])[:80]}")
        if found[1] != self.version:
            raise ValueError(
                f"{self.path} holds a {self.kind} of another version of tfnas (form {found[1]!r}, "
                f"this version's is {self.version}); choose another folder, or overwrite it"
            )
        return values
