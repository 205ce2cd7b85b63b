"""Writes what a benchmark measured to benchmarks/results/NAME.json.

Each file holds the tables that the script prints, with the command, the seed, the date, the
processor, the versions of the libraries and the commit. `make tables` makes docs/benchmarks.md
from all of them. The file is called as the script; `--result=NAME` keeps a run with other options
beside it.
"""

from __future__ import annotations

import datetime
import json
import os
import pathlib
import re
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from absl import flags

if TYPE_CHECKING:
    import numpy as np

RESULTS = pathlib.Path(__file__).parent / "results"
RESULT = flags.DEFINE_string(
    "result", None, "name of the file in benchmarks/results; the script's by default"
)
Row = Mapping[str, Any]


def write(
    name: str,
    rows: Sequence[Row] | Mapping[str, Sequence[Row]],
    *,
    seed: int | None = None,
    notes: Iterable[str] = (),
    command: str | None = None,
    result: str | None = None,
    **more: Any,
) -> pathlib.Path:
    """Writes a record and returns its path.

    Args:
        name: The script's name, without `.py`.
        rows: Rows of a table, each from column to value; or several tables by their titles.
        seed: The run's seed, or the first of several.
        notes: Sentences that belong to the tables.
        command: The command line. By default the one that runs, without folders.
        result: Name of the file. By default what the flag says, else the script's name.
        **more: Further fields, such as the trials behind the rows.
    """
    from tfnas.measure.latency import provenance

    record = {
        "benchmark": name,
        "command": command or command_line(sys.argv),
        "seed": seed,
        "date": datetime.date.today().isoformat(),
        "commit": commit_of(pathlib.Path(__file__).parent),
        "provenance": provenance(),
        "notes": list(notes),
        "tables": dict(rows) if isinstance(rows, Mapping) else {"": list(rows)},
        **more,
    }
    chosen = RESULT.value if flags.FLAGS.is_parsed() else None
    path = RESULTS / f"{result or chosen or name}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"written to benchmarks/results/{path.name}", flush=True)
    return path


def load_note() -> str:
    """Returns how busy the machine was during the last quarter of an hour, beside its cores."""
    load, cores = os.getloadavg()[2], os.cpu_count()
    return f"Load of the machine, mean of the last 15 minutes: {load:.1f} on {cores} cores."


def kept(name: str) -> dict[str, Any]:
    """Returns what a record holds, so that a call adds to it; empty where there is none.

    Args:
        name: Name of its file, without `.json`.
    """
    path = RESULTS / f"{name}.json"
    found: dict[str, Any] = json.loads(path.read_text("utf-8")) if path.exists() else {}
    return found


def table_rows(columns: Sequence[str], cells: Iterable[Sequence[Any]]) -> list[dict[str, Any]]:
    """Returns rows by column, as `write` takes them, from the cells of a printed table.

    Example:
        >>> table_rows(["file", "bytes"], [["int8", "98,464"]])
        [{'file': 'int8', 'bytes': '98,464'}]
    """
    if len(set(columns)) < len(columns):
        raise ValueError(f"columns must differ, got {list(columns)}")
    return [dict(zip(columns, row, strict=True)) for row in cells]


def show(title: str, rows: Sequence[Row]) -> None:
    """Prints rows that have the same columns as a table.

    Args:
        title: Its title; empty: none.
        rows: Each from column to value.
    """
    from tfnas.table import table

    columns = list(rows[0]) if rows else []
    cells = [[str(row[column]) for column in columns] for row in rows]
    print(f"\n{title}" if title else "", table(columns, cells), sep="\n")


def file_rows(result: Any) -> list[dict[str, Any]]:
    """Returns a row a file of a `tfnas.CompressResult`: what it is on the last test images."""
    rows = []
    for row in result.rows:
        difference = [100 * value for value in row.difference or ()]
        latency = result.latencies.get(row.label)
        rows.append(
            {
                "file": row.label,
                "accuracy [95%]": str(row.score),
                "points": "{:+.2f} [{:+.2f}, {:+.2f}]".format(*difference) if difference else "",
                "latency": f"{latency.ratio:.3f}x" if latency else "",
                "bytes": f"{row.file.size:,}",
            }
        )
    return rows


def command_line(argv: Sequence[str]) -> str:
    """Returns a command line as it reads in a fresh clone: of paths the last part alone.

    Example:
        >>> command_line(["/home/me/tfnas/benchmarks/mcu.py", "--data=/mnt/big/cifar10.npz"])
        'python benchmarks/mcu.py --data=cifar10.npz'
    """
    script, *arguments = argv
    short = [re.sub(r"(^|=)(~|\.*/)\S*/", r"\1", argument) for argument in arguments]
    return " ".join(["python", f"benchmarks/{pathlib.Path(script).name}", *short])


def commit_of(checkout: pathlib.Path) -> str | None:
    """Returns the commit of a checkout, marked where its code differs; None without git."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(checkout), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        commit, root = git("rev-parse", "--short", "HEAD"), git("rev-parse", "--show-toplevel")
        changed = git("status", "--porcelain", "--untracked-files=no", "--", f"{root}/tfnas")
    except (OSError, subprocess.CalledProcessError):
        return None
    return f"{commit}, changed" if changed else commit


def kept_cell(path: pathlib.Path, measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Returns a part of a record, printed: as it was measured before, or measured now and kept.

    Args:
        path: The JSON file that keeps it.
        measure: Measures it.
    """
    if not path.exists():
        text = json.dumps(measure())
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    text = path.read_text(encoding="utf-8")
    print(text, flush=True)
    cell: dict[str, Any] = json.loads(text)
    return cell


def points(right: np.ndarray, other: np.ndarray) -> str:
    """Returns the difference of two accuracies in points, with its 95% interval.

    Args:
        right: Whether a model is right, boolean, on any number of examples.
        other: The same of another model, on the same examples.
    """
    from tfnas.measure.accuracy import paired_difference

    value, low, high = (100 * p for p in paired_difference(right.reshape(-1), other.reshape(-1)))
    return f"{value:+.2f} [{low:+.2f}, {high:+.2f}]"
