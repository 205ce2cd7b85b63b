"""The folder of a job: which job it belongs to, and which of its files are the job's own."""

from __future__ import annotations

import contextlib
import glob
import json
import os
import pathlib
import shutil
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tfnas.jobs.output_folder import output_folder
from tfnas.runtime.files import sweep_parts
from tfnas.runtime.folder_lock import NAME, check_has_no_owner, owner_of
from tfnas.runtime.store import Record, damage_named, read_json_object

JOB = "job.json"
FORMAT = 4  # increased whenever a record or a recipe of the same name means something else
_FILES = "files"  # key of the names that a job recorded
_SHOWN = 5  # names in an error message


class JobFolder:
    """The folder of a job.

    Args:
        path: The folder; it need not exist.
        kind: The kind of job, such as "compress".
        own: Patterns of the files that the job writes, with "/" for folders in it: an overwritten
            job loses these, and those of :meth:`will_write`, and nothing else.
    """

    def __init__(self, path: str | os.PathLike[str], kind: str, own: Sequence[str]) -> None:
        self.path, self.kind, self.own = pathlib.Path(path), kind, tuple(own)
        self._record = Record(self.path / JOB, f"job of {kind}", FORMAT)

    def claim(self, identity: Mapping[str, Any], overwrite: bool = False) -> None:
        """Writes which job the folder belongs to, or checks that it belongs to this one.

        Args:
            identity: What makes a job the same: its model, its data, its settings.
            overwrite: Whether the files of a job in the folder are removed first; other files stay.

        Raises:
            ValueError: The folder belongs to another job, holds other files but no job, or can't
                be created.
        """
        self._check_is_folder()
        if overwrite:
            self.remove()
        elif self.path.is_dir() and not self._holds_job() and self._names():
            raise ValueError(self._refusal())
        with output_folder(self.path):
            self._claim(json.loads(json.dumps(identity)))
        sweep_parts(self.path)

    @contextlib.contextmanager
    def claimed(self, identity: Mapping[str, Any], overwrite: bool = False) -> Iterator[None]:
        """Locks and claims the folder for some work; gives it up where that wrote no file.

        Args:
            identity: As for :meth:`claim`.
            overwrite: As for :meth:`claim`.

        Raises:
            ValueError: As for :meth:`claim`.
        """
        with self.owned():
            new = overwrite or not self._record.exists()
            self.claim(identity, overwrite)
            try:
                yield
            except BaseException:
                if new and self._names() == [JOB]:
                    self._record.path.unlink()
                raise

    @contextlib.contextmanager
    def owned(self) -> Iterator[None]:
        """Locks the folder; removes it again where it is new and nothing was written into it.

        Raises:
            RuntimeError: Another job that is running has locked it.
            ValueError: The folder can't be created.
        """
        self._check_is_folder()
        with output_folder(self.path), owner_of(self.path, "job"):
            yield

    def check_has_no_owner(self) -> None:
        """Raises RuntimeError if another job that is running has locked the folder."""
        check_has_no_owner(self.path, "job")

    def _check_is_folder(self) -> None:
        if self.path.exists() and not self.path.is_dir():
            raise ValueError(f"directory must be a folder, got {str(self.path)!r}, which is a file")

    def will_write(self, names: Sequence[str]) -> None:
        """Records names of files that the job is about to write, beside the patterns of `own`.

        Args:
            names: Names in the folder itself.
        """
        record = self._record.read()
        with damage_named(self._record.path, self._record.kind):
            known = {str(name) for name in record.get(_FILES, ())}
        self._record.write({**record, _FILES: sorted({*known, *names})})

    def _claim(self, identity: dict[str, Any]) -> None:
        if not self._record.exists():
            self._record.write(identity)
            return
        before = self._record.read()
        for name, value in identity.items():
            if before.get(name) != value:
                place, old, new = _first_difference(before.get(name), value)
                raise ValueError(
                    f"directory {str(self.path)!r} holds a job of another {name}{place}: "
                    f"{old!r}, got {new!r}; choose another folder, or overwrite it"
                )

    def remove(self) -> None:
        """Removes the files of a job; other files in its folder stay.

        The folder itself is removed where nothing else is in it.

        Raises:
            ValueError: The folder holds files, but no job.
        """
        if not self.path.is_dir() or not self._names():
            return
        if not self._holds_job():
            raise ValueError(self._refusal())
        for pattern in (*self.own, *self._recorded()):
            if pattern != JOB:
                _remove_matching(self.path, pattern)
        folders = {parent for pattern in self.own for parent in pathlib.PurePath(pattern).parents}
        for parent in sorted(map(str, folders - {pathlib.PurePath(".")}), key=len, reverse=True):
            for path in list(self.path.glob(parent)):
                _remove_empty(path)
        _remove_matching(self.path, JOB)  # last: a removal that was killed can be repeated
        _remove_empty(self.path)

    def _holds_job(self) -> bool:
        try:
            record = read_json_object(self._record.path, self._record.kind)
        except (OSError, ValueError):
            return False
        # Jobs of earlier versions have no kind.
        return {"model", "settings", "data"} <= record.keys()

    def _recorded(self) -> list[str]:
        """Returns the names of :meth:`will_write`, also those of a job of another kind."""
        names = read_json_object(self._record.path, self._record.kind).get(_FILES, [])
        names = [name for name in names if isinstance(name, str)] if isinstance(names, list) else []
        plain = [name for name in names if pathlib.PurePath(name).name == name]
        return [glob.escape(name) for name in plain]

    def _names(self) -> list[str]:
        """Returns the names in the folder without its lock, and what a killed claim leaves."""
        return sorted(
            path.name
            for path in self.path.iterdir()
            if not path.match(f".{JOB}.*.part") and path.name != NAME
        )

    def _refusal(self) -> str:
        names = self._names()
        more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
        return (
            f"directory must be new, empty or the folder of a job of tfnas, got "
            f"{str(self.path)!r}, which holds {', '.join(names[:_SHOWN])}{more}"
        )


def _first_difference(before: Any, now: Any, place: str = "") -> tuple[str, Any, Any]:
    """Returns where two nests of JSON differ first, and what stands there."""
    if isinstance(before, dict) and isinstance(now, dict) and before.keys() == now.keys():
        key = next(key for key in now if before[key] != now[key])
        return _first_difference(before[key], now[key], f"{place}.{key}")
    if isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
        index = next(i for i, each in enumerate(now) if before[i] != each)
        return _first_difference(before[index], now[index], f"{place}[{index}]")
    return place, before, now


def _remove_matching(folder: pathlib.Path, pattern: str) -> None:
    """Removes files or folders, and what a killed write of them left."""
    where, _, name = pattern.rpartition("/")
    stem, suffix = pathlib.Path(name).stem, pathlib.Path(name).suffix
    for form in (name, f".{name}.*.part", f".{stem}.part{suffix}", f".{stem}.*.part{suffix}"):
        for path in list(folder.glob(f"{where}/{form}" if where else form)):
            if path.name == JOB and name != JOB:
                continue
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()


def _remove_empty(folder: pathlib.Path) -> None:
    with contextlib.suppress(OSError):  # it holds other files
        folder.rmdir()
