"""Cells of docs/coverage.md: each kind of model through each call, right or refused.

What is checked is in tests/coverage_checks; `make coverage` runs all cells, the slow tests those
of one call a technique. `REFUSED` lists the cells that are refused, with what the message names.
"""

import pytest
from coverage_checks.cells import REFUSED as REFUSED_MARK
from coverage_checks.cells import RIGHT, run_cell, subject_of_kind
from coverage_checks.tables import TABLES
from model_kinds import KINDS

CHECKS = TABLES["kinds"].checks
# (kind, column) -> what the message names.
REFUSED = {
    ("detector", "distill"): "Detector with a train_step of its own",
}
# Kinds whose cells are checked in each run, and those of them that are trained again in it.
QUICK = ("subclassed", "text with pooling", "Lambda")
COLUMNS = ("prune", "channels", "cluster", "factorize", "float32", "profile")
TRAINED_AGAIN = ("subclassed",)
TRAINING_COLUMNS = ("QAT int8", "distill")


def cells():
    """(kind, column); those that are not quick are slow tests."""
    for columns, quick in ((COLUMNS, QUICK), (TRAINING_COLUMNS, TRAINED_AGAIN)):
        for kind in KINDS:
            marks = () if kind in quick else pytest.mark.slow
            yield from (pytest.param(kind, column, marks=marks) for column in columns)


@pytest.mark.parametrize(("kind", "column"), list(cells()))
def test_a_cell_is_right_or_refused(kind, column):
    mark, detail = run_cell(CHECKS[column], subject_of_kind(kind))
    reason = REFUSED.get((kind, column))
    assert mark == (RIGHT if reason is None else REFUSED_MARK), detail
    assert reason is None or reason in detail


def test_there_are_many_kinds():
    assert len(KINDS) >= 22
    assert {*QUICK, *TRAINED_AGAIN} <= set(KINDS)
