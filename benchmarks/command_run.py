"""Runs the command `tfnas compress` in a process of its own, and reads what it found.

Not a benchmark: `compress_tasks.py` calls it.
"""

from __future__ import annotations

import pathlib
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

MISSED = 3  # exit code of a job whose best file exceeds a limit
VERDICTS = (" keeps the budget ", "No file keeps the budget ")
OTHERWISE = "on the final examples"  # a remark that begins so qualifies the verdict


def run(model: pathlib.Path, options: Mapping[str, Any]) -> tuple[str, list[str]]:
    """Runs `tfnas compress MODEL --NAME=VALUE ...`; returns its verdict and what qualifies it.

    Args:
        model: The model's file.
        options: Flag -> value.

    Raises:
        RuntimeError: The command failed.
    """
    flags = [f"--{name}={value}" for name, value in options.items()]
    command = [sys.executable, "-m", "tfnas", "compress", str(model), *flags]
    print("$ tfnas", *command[3:], flush=True)
    said, remarked = "", []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            print(line, end="", flush=True)
            if any(words in line for words in VERDICTS):
                said = line.strip().rstrip(".")
            if line.startswith(f"- {OTHERWISE}"):
                remarked.append(line.strip().removeprefix("- "))
    if process.returncode not in (0, MISSED) or not said:
        raise RuntimeError(f"tfnas compress ended with code {process.returncode}")
    return said, remarked


def files_of(report: pathlib.Path, int8_bytes: int) -> tuple[list[str], list[list[str]]]:
    """Returns headers and cells of the report's table of files on the final examples.

    Args:
        report: The job's report.md.
        int8_bytes: Size of the original's int8 file.
    """
    lines = iter(report.read_text(encoding="utf-8").splitlines())
    for line in lines:
        if line.startswith("#") and "The files, on" in line:
            break
    rows = []
    for line in lines:
        if line.startswith("#"):
            break
        if line.startswith("|"):
            rows.append([cell.strip() for cell in line.strip().strip("|").split("|")])
    headers, cells = rows[0], rows[2:]
    size = headers.index("bytes")
    for row in cells:
        share = int(row[size].replace(",", "").strip("*")) / int8_bytes
        row.insert(size + 1, f"{share:.3f}")
    return [*headers[: size + 1], "of int8", *headers[size + 1 :]], cells
