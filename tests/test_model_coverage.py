"""docs/coverage.md is what its record makes, the record has no defects, and checks see them."""

import json
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest
from coverage_checks import cell_store
from coverage_checks.cell_store import CellStore, StoredCell
from coverage_checks.cells import (
    CRASHED,
    REFUSED,
    RIGHT,
    SILENT,
    WRONG,
    NothingToDo,
    Silent,
    Subject,
    Wrong,
    run_cell,
)
from coverage_checks.tables import SECTIONS, TABLES
from model_kinds import KINDS

import tfnas

ROOT = pathlib.Path(__file__).parents[1]
PAGE_SCRIPT = ROOT / "benchmarks" / "coverage_page.py"
RECORD = json.loads(
    (ROOT / "benchmarks" / "results" / "model_coverage.json").read_text(encoding="utf-8")
)


@pytest.fixture(scope="module")
def subject():
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, name="own_layer")])
    return Subject("dense", model, np.zeros((4, 3), "float32"))


def test_the_page_is_made_from_the_record():
    done = subprocess.run(
        [sys.executable, str(PAGE_SCRIPT), "--check"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_the_record_has_every_table_row_and_column():
    assert [grid["title"] for grid in RECORD["grids"]] == list(SECTIONS)
    for grid in RECORD["grids"]:
        table, columns = SECTIONS[grid["title"]]
        assert grid["rows"] == list(TABLES[table].rows)
        assert list(grid["columns"]) == list(columns)
        assert all(grid["columns"].values())  # each says what it checks
    assert {grid["table"] for grid in RECORD["grids"]} == set(TABLES)


def test_every_call_with_every_kind_of_model_was_run():
    run = {(cell["row"], cell["column"]) for cell in RECORD["cells"] if cell["table"] == "kinds"}
    columns = TABLES["kinds"].checks.keys() - {"job"}  # the longest, and run by tests/jobs too
    assert run >= {(row, column) for row in KINDS for column in columns}


def test_no_cell_is_wrong_silent_or_crashed():
    bad = [cell for cell in RECORD["cells"] if cell["mark"] in (WRONG, SILENT, CRASHED)]
    assert bad == []


def _raise(error):
    raise error


def tfnas_refusal(_):
    tfnas.to_tflite(None)


@pytest.mark.parametrize(
    ("check", "mark"),
    [
        (lambda _: "found", RIGHT),
        (lambda _: _raise(Wrong("other outputs")), WRONG),
        (lambda _: _raise(Silent("nothing")), SILENT),
        (lambda _: _raise(NothingToDo("no kernel")), "absent"),
        (lambda _: _raise(TypeError("own_layer")), CRASHED),
        (lambda _: _raise(ValueError("own_layer, from elsewhere")), CRASHED),
        (tfnas_refusal, WRONG),  # it names no layer of the model
        (lambda s: tfnas.prune(s.model, 0.5, layers=["other"]) and "", REFUSED),
        (lambda s: str(s.model(np.zeros((2, 5)))), CRASHED),
    ],
)
def test_marks(subject, check, mark):
    assert run_cell(check, subject)[0] == mark


def test_a_folder_is_in_no_detail(subject):
    mark, detail = run_cell(lambda _: _raise(Wrong("in /some/folder/of.py now")), subject)
    assert (mark, detail) == (WRONG, "in of.py now")


def test_checks_see_a_call_that_does_nothing(subject, monkeypatch):
    report = tfnas.prune(subject.model, 0.5)[1]
    empty = type(report)((), report.skipped)
    monkeypatch.setattr(tfnas, "prune", lambda model, *_, **__: (model, empty))
    assert run_cell(TABLES["kinds"].checks["prune"], subject)[0] == SILENT


def test_checks_see_other_outputs(subject, monkeypatch):
    other = keras.models.clone_model(subject.model)
    other.set_weights([1 + weight for weight in subject.model.get_weights()])
    file = tfnas.to_tflite(other)
    monkeypatch.setattr(tfnas, "to_tflite", lambda *_: file)
    assert run_cell(TABLES["kinds"].checks["float32"], subject)[0] == WRONG


def test_cells_are_kept_and_known_by_their_code(tmp_path):
    cell = StoredCell("kinds", "LSTM", "prune", RIGHT, "", 0.1, "abc")
    CellStore(tmp_path / "cells.jsonl").add(cell)
    with (tmp_path / "cells.jsonl").open("a") as file:
        file.write('{"table": "kin')  # the process was killed here
    store = CellStore(tmp_path / "cells.jsonl")
    assert store.missing("kinds", "LSTM", ["prune", "int8"], "abc") == ["int8"]
    assert store.missing("kinds", "LSTM", ["prune"], "other code") == ["prune"]
    assert store.missing("kinds", "LSTM", ["prune"], None) == []


def test_a_process_that_ends_is_a_cell(tmp_path, monkeypatch):
    script = tmp_path / "script.py"
    script.write_text(
        "import json, os, sys\n"
        "path, table, cells = sys.argv[1:]\n"
        "with open(path, 'a', buffering=1) as file:\n"
        "    for row, column in json.loads(cells):\n"
        "        cell = {'row': row, 'column': column}\n"
        "        print(json.dumps(cell), file=file)\n"
        "        if column == 'b':\n"
        "            os.abort()\n"
        "        cell |= {'mark': 'right', 'detail': '', 'seconds': 0.1}\n"
        "        print(json.dumps(cell), file=file)\n"
    )
    monkeypatch.setattr(cell_store, "SCRIPT", script)
    cells = [("LSTM", column) for column in "abc"]
    found = {c.column: c for c in cell_store.run_cells("kinds", cells, "code")}
    assert {name: cell.mark for name, cell in found.items()} == {
        "a": RIGHT,
        "b": CRASHED,
        "c": RIGHT,
    }
    assert "SIGABRT" in found["b"].detail


@pytest.mark.slow
def test_cells_run_in_a_process_of_their_own():
    [cell] = cell_store.run_cells("kinds", [("Sequential without Input", "prune")], "code")
    assert (cell.mark, cell.row) == (RIGHT, "Sequential without Input")
