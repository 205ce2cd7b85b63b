"""Kinds of models x techniques, formats, commands: which calls are right, and which refuse.

    python benchmarks/model_coverage.py [--tables=kinds,layers] [--rows=LSTM,GRU] [--columns=int8]

Each cell is a call with a model whose result is checked (tests/coverage_checks); see
docs/coverage.md, which this script writes. Models are tiny, trained for a moment on data of a rule
that they can learn. Rows run in processes of their own; where native code ends one, the cell says
so. Cells are kept in build/model_coverage as they come, with a hash of the code: the same command
continues where it was stopped, and runs no cell twice of the same code. With --any_code, cells of
earlier code are kept too, but those of the marks in --again; with --write_only nothing is run.
"""

from __future__ import annotations

import collections
import dataclasses
import pathlib
import sys

import coverage_page
import record
from absl import app, flags

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "tests"))

from coverage_checks.cell_store import CellStore, StoredCell, code_hash, run_cells
from coverage_checks.tables import SECTIONS, TABLES

ROOT = pathlib.Path(__file__).resolve().parents[1]

ONLY_TABLES = flags.DEFINE_list("tables", [], "tables; all of them by default")
ONLY_ROWS = flags.DEFINE_list("rows", [], "rows of these tables; all of them by default")
ONLY_COLUMNS = flags.DEFINE_list("columns", [], "columns; all of them by default")
ANY_CODE = flags.DEFINE_bool("any_code", False, "whether cells of earlier code are kept")
AGAIN = flags.DEFINE_list("again", [], "marks, as wrong,crashed, whose cells are run in any case")
WRITE_ONLY = flags.DEFINE_bool("write_only", False, "whether to write from the cells so far")


def main(argv: list[str]) -> None:
    check_flags()
    cells = [StoredCell(**each) for each in coverage_page.stored().get("cells", [])]
    for name in ONLY_TABLES.value or TABLES:
        if not TABLES[name].can_run():
            print(f"{name}: {TABLES[name].package} is not installed; its cells stay as they are")
        elif not WRITE_ONLY.value:
            run_missing(name, cells)
    found = {key: cell for name in TABLES for key, cell in store_of(name, cells).cells.items()}
    grids = [
        {
            "title": title,
            "table": name,
            "rows": list(TABLES[name].rows),
            "columns": {c: TABLES[name].columns()[c] for c in columns},
        }
        for title, (name, columns) in SECTIONS.items()
    ]
    known = {(g["table"], row, c) for g in grids for row in g["rows"] for c in g["columns"]}
    kept = [dataclasses.asdict(found[key]) for key in sorted(found.keys() & known)]
    rows = [counts(grid, kept) for grid in grids]
    record.write("model_coverage", rows, command=COMMAND, seed=0, cells=kept, grids=grids)
    coverage_page.write()


def check_flags() -> None:
    """Refuses names that are in no table, before anything is run."""
    for name, given, known in (
        ("tables", ONLY_TABLES.value, set(TABLES)),
        ("rows", ONLY_ROWS.value, {row for each in TABLES.values() for row in each.rows}),
        ("columns", ONLY_COLUMNS.value, {c for each in TABLES.values() for c in each.checks}),
    ):
        if unknown := sorted(set(given) - known):
            raise app.UsageError(f"{name} must be some of {sorted(known)}, got {unknown}")


def store_of(table: str, cells: list[StoredCell]) -> CellStore:
    """Returns the cells of a table, of the record and of runs since."""
    own = [cell for cell in cells if cell.table == table]
    return CellStore(ROOT / "build" / "model_coverage" / f"{table}.jsonl", own)


def run_missing(name: str, cells: list[StoredCell]) -> None:
    """Runs the cells of a table that are missing, within the flags."""
    table, store = TABLES[name], store_of(name, cells)
    for key in [key for key, cell in store.cells.items() if cell.mark in AGAIN.value]:
        del store.cells[key]
    rows = [row for row in table.rows if row in (ONLY_ROWS.value or table.rows)]
    columns = [c for c in table.checks if c in (ONLY_COLUMNS.value or table.checks)]
    for start in range(0, len(rows), table.rows_together):
        code = code_hash()  # of now: the process imports the code as it is
        kept = None if ANY_CODE.value else code
        wanted = [
            (row, column)
            for row in rows[start : start + table.rows_together]
            for column in store.missing(name, row, columns, kept)
        ]
        for cell in run_cells(name, wanted, code):
            store.add(cell)
            print(f"{cell.row}, {cell.column}: {cell.mark}: {cell.detail}", flush=True)


COMMAND = "python benchmarks/model_coverage.py"


def counts(grid: dict, cells: list[dict]) -> record.Row:
    """Returns how many cells of a table have each mark."""
    own = [c for c in cells if c["table"] == grid["table"] and c["column"] in grid["columns"]]
    found = collections.Counter(cell["mark"] for cell in own)
    total = len(grid["rows"]) * len(grid["columns"])
    marks = ("right", "refused", "absent", "wrong", "silent", "crashed")
    return {
        "table": grid["title"],
        **{mark: found[mark] for mark in marks},
        "not run": total - len(own),
    }


if __name__ == "__main__":
    app.run(main)
