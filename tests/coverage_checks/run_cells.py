"""Runs cells: python tests/coverage_checks/run_cells.py FILE TABLE CELLS

CELLS is a list of [row, column] in JSON. Each cell is a line of JSON in FILE: one when it begins,
one with what came of it. When native code ends this process, the last line says in which cell.
"""

import itertools
import json
import os
import pathlib
import sys
import time
import warnings

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))


def main(path: str, table: str, cells: str) -> None:
    from coverage_checks.cells import CRASHED, one_line, run_cell
    from coverage_checks.tables import TABLES

    warnings.simplefilter("ignore")
    checks = TABLES[table].checks
    with open(path, "a", encoding="utf-8", buffering=1) as file:

        def say(**fields: object) -> None:
            file.write(json.dumps(fields, ensure_ascii=False) + "\n")

        for row, group in itertools.groupby(json.loads(cells), key=lambda cell: cell[0]):
            columns = [column for _, column in group]
            say(row=row, column=columns[0])
            try:
                subject = TABLES[table].subject(row)
            except Exception as error:
                detail = f"no model: {one_line(error)}"
                for column in columns:
                    say(row=row, column=column, mark=CRASHED, detail=detail, seconds=0.0)
                continue
            for column in columns:
                say(row=row, column=column)
                began = time.monotonic()
                mark, detail = run_cell(checks[column], subject)
                seconds = round(time.monotonic() - began, 1)
                say(row=row, column=column, mark=mark, detail=detail, seconds=seconds)


if __name__ == "__main__":
    main(*sys.argv[1:])
