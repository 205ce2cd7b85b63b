"""Runs cells in processes of their own, and keeps each as soon as it is there.

A cell is known by its table, row and column, and by a hash of the code that it ran with.
"""

import dataclasses
import hashlib
import importlib.metadata
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Iterable, Iterator, Sequence
from typing import Any

ROOT = pathlib.Path(__file__).resolve().parents[2]
SCRIPT = pathlib.Path(__file__).with_name("run_cells.py")
# What the checks call outside of this folder.
MODELS = ("model_kinds.py", "layer_models.py", "masked_models.py", "random_graphs.py")
CELL_TIMEOUT = 400  # s
Key = tuple[str, str, str]


@dataclasses.dataclass(frozen=True)
class StoredCell:
    """A cell that was run.

    Args:
        table: Its table.
        row: Its row.
        column: Its column.
        mark: What came of it, see :mod:`coverage_checks.cells`.
        detail: What was found, or the reason.
        seconds: Its duration, in s.
        code: Hash of the code that it ran with.
    """

    table: str
    row: str
    column: str
    mark: str
    detail: str
    seconds: float
    code: str

    @property
    def key(self) -> Key:
        """What it is called by."""
        return self.table, self.row, self.column


def code_hash(root: pathlib.Path = ROOT) -> str:
    """Returns a hash of the package, of the checks, and of the libraries' versions."""
    checks = [root / "tests" / name for name in MODELS]
    checks += sorted((root / "tests" / "coverage_checks").glob("*.py"))
    digest = hashlib.sha256()
    for path in [*sorted((root / "tfnas").rglob("*.py")), *checks]:
        digest.update(path.relative_to(root).as_posix().encode() + path.read_bytes())
    for name in ("keras", "tensorflow", "ai-edge-litert", "ai-edge-quantizer"):
        digest.update(importlib.metadata.version(name).encode())
    return digest.hexdigest()[:12]


class CellStore:
    """Cells by their keys, of which the latest counts; each is written as soon as it is there.

    Args:
        path: A file of JSON lines.
        known: Cells of an earlier record.
    """

    def __init__(self, path: pathlib.Path, known: Iterable[StoredCell] = ()) -> None:
        self.path = path
        self.cells = {cell.key: cell for cell in known}
        if path.exists():
            for line in path.read_text(encoding="utf-8").splitlines():
                if line.endswith("}"):  # the last one may be half written
                    cell = StoredCell(**json.loads(line))
                    self.cells[cell.key] = cell

    def add(self, cell: StoredCell) -> None:
        """Keeps a cell."""
        self.cells[cell.key] = cell
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(dataclasses.asdict(cell), ensure_ascii=False) + "\n")

    def missing(self, table: str, row: str, columns: Sequence[str], code: str | None) -> list[str]:
        """Returns the columns of a row without a cell of this code; None: of any code."""
        kept = {key for key, cell in self.cells.items() if code in (None, cell.code)}
        return [column for column in columns if (table, row, column) not in kept]


def run_cells(table: str, cells: Sequence[tuple[str, str]], code: str) -> Iterator[StoredCell]:
    """Runs cells in a process of their own, and yields them as they come.

    Where the process ends, its cell is marked as crashed, and another process runs the others.

    Args:
        table: The table.
        cells: (row, column) of each.
        code: Hash of the code.
    """
    left = list(cells)
    while left:
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / "cells.jsonl"
            status = yield from _process(path, table, left, code)
            done = {(line["row"], line["column"]) for line in _lines(path) if "mark" in line}
        left = [cell for cell in left if cell not in done]
        if left:
            how = (
                f"ended by {signal.Signals(-status).name}" if status < 0 else f"exit code {status}"
            )
            yield StoredCell(table, *left.pop(0), "crashed", f"the process {how}", 0.0, code)


def _process(
    path: pathlib.Path, table: str, cells: Sequence[tuple[str, str]], code: str
) -> Generator[StoredCell, None, int]:
    """Runs the script, yields its cells, and returns its exit status."""
    command = [sys.executable, "-W", "ignore", str(SCRIPT), str(path), table, json.dumps(cells)]
    paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": paths, "TF_CPP_MIN_LOG_LEVEL": "3"}
    process = subprocess.Popen(
        command,
        env=environment,
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    seen, latest = 0, time.monotonic()
    try:
        while True:
            ended = process.poll() is not None
            lines = _lines(path)
            for line in lines[seen:]:
                latest = time.monotonic()
                if "mark" in line:
                    yield StoredCell(table, **line, code=code)
            seen = len(lines)
            if ended:
                return process.returncode
            if time.monotonic() - latest > CELL_TIMEOUT:
                process.kill()
            time.sleep(0.1)
    finally:
        process.kill()
        process.wait()


def _lines(path: pathlib.Path) -> list[dict[str, Any]]:
    """Returns the whole lines of a file that is being written."""
    if not path.exists():
        return []
    text = path.read_text(encoding="utf-8")
    return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]
