"""Durable records: JSON objects that are replaced whole, with the version of their form.

A kill at any moment leaves the old record or the new one. A record that another version of tfnas
wrote in another form is refused by name, never misread.
"""

from __future__ import annotations

import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

from tfnas.runtime.files import write_atomically

_FORMAT = "format"


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
        try:
            values = json.loads(self.path.read_text("utf-8"))
        except ValueError as error:  # UnicodeDecodeError and JSONDecodeError are ValueErrors
            raise ValueError(f"{self.path} must hold a {self.kind}: {error}") from error
        found = values.pop(_FORMAT, None) if isinstance(values, dict) else None
        if not isinstance(found, list) or len(found) != 2:
            raise ValueError(
                f"{self.path} must hold a {self.kind}, got a file of another version of tfnas or "
                "of something else; choose another folder, or overwrite it"
            )
        if found[0] != self.kind:
            raise ValueError(f"{self.path} must hold a {self.kind}, got a {found[0]}")
        if found[1] != self.version:
            raise ValueError(
                f"{self.path} holds a {self.kind} of another version of tfnas (form {found[1]!r}, "
                f"this version's is {self.version}); choose another folder, or overwrite it"
            )
        return values
