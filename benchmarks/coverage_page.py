"""Makes docs/coverage.md from benchmarks/results/model_coverage.json.

    python benchmarks/coverage_page.py [--check]

With --check nothing is written; the exit code is 1 where the page is not what the record makes.
Needs nothing but Python.
"""

from __future__ import annotations

import json
import pathlib
import sys
from typing import Any

ROOT = pathlib.Path(__file__).resolve().parents[1]
RECORD = ROOT / "benchmarks" / "results" / "model_coverage.json"
PAGE = ROOT / "docs" / "coverage.md"
NOT_RUN = "not run"
SHORT = {"right": "+", "absent": "-", "wrong": "**wrong**", "silent": "**silent**"}
SHORT |= {"crashed": "**crashed**", NOT_RUN: "?"}
HEAD = """# Coverage

Made by `make coverage`, which runs each cell and checks what came out; edit tests/coverage_checks,
not this page. What was found in each cell is in
[model_coverage.json](../benchmarks/results/model_coverage.json).

| mark | meaning |
| --- | --- |
| + | right, by the check that is named below the table |
| a number | refused; the reason of this number is below the table, and names the layer |
| - | nothing of this kind is in the model |
| ? | not run yet |
| **wrong** | a defect: another result, or a refusal that names nothing |
| **silent** | a defect: nothing done, and no word of it |
| **crashed** | a defect: any other error |
"""


def stored() -> dict[str, Any]:
    """Returns the record; empty where there is none."""
    if not RECORD.exists():
        return {}
    record: dict[str, Any] = json.loads(RECORD.read_text(encoding="utf-8"))
    return record


def page(record: dict[str, Any]) -> str:
    """Returns the text of docs/coverage.md."""
    cells = {(c["table"], c["row"], c["column"]): c for c in record["cells"]}
    codes = sorted({cell["code"] for cell in record["cells"]})
    where = record["provenance"]
    versions = ", ".join(f"{n} {where[n]}" for n in ("tensorflow", "keras", "ai-edge-litert"))
    states = "one state" if len(codes) == 1 else f"{len(codes)} states"
    facts = f"{record['date']}, {versions}; {len(cells)} cells, of {states} of the code.\n"
    return "\n".join([HEAD, facts, *(section(grid, cells) for grid in record["grids"])])


def section(grid: dict[str, Any], cells: dict[tuple[str, str, str], dict[str, Any]]) -> str:
    """Returns one table, what its columns check, and the reasons."""
    columns, reasons, faults = list(grid["columns"]), {}, []
    lines = [f"| | {' | '.join(columns)} |", "|".join(["", "---", *[":---:"] * len(columns), ""])]
    for row in grid["rows"]:
        marks = []
        for column in columns:
            cell = cells.get((grid["table"], row, column), {"mark": NOT_RUN})
            if cell["mark"] == "refused":
                marks.append(str(reasons.setdefault(cell["detail"], len(reasons) + 1)))
                continue
            marks.append(SHORT[cell["mark"]])
            if cell["mark"] in ("wrong", "silent", "crashed"):
                faults.append(f"- {row}, {column}, {cell['mark']}: {plain(cell['detail'])}")
        lines.append(f"| {row} | {' | '.join(marks)} |")
    checks = [f"- **{name}**: {' '.join(text.split())}" for name, text in grid["columns"].items()]
    parts = [f"## {grid['title']}\n", "\n".join(lines), "\nChecks:\n", "\n".join(checks)]
    if reasons:
        parts += ["\nReasons:\n", "\n".join(f"{n}. {plain(text)}" for text, n in reasons.items())]
    if faults:
        parts += ["\nDefects:\n", "\n".join(faults)]
    return "\n".join(parts) + "\n"


def plain(text: str) -> str:
    """Returns a message as Markdown shows it unchanged."""
    return "".join(f"\\{letter}" if letter in "*_<>[]`|" else letter for letter in text)


def write() -> None:
    """Writes the page."""
    PAGE.write_text(page(stored()), encoding="utf-8")


def main() -> None:
    if sys.argv[1:] == ["--check"]:
        if not PAGE.exists() or PAGE.read_text(encoding="utf-8") != page(stored()):
            sys.exit("docs/coverage.md is not what the record makes: run make coverage")
        return
    write()


if __name__ == "__main__":
    main()
