"""Runs cells of one row: python tests/coverage_checks/run_row.py FILE TABLE ROW COLUMN...

Each cell is a line of JSON in FILE: one when it begins, one with what came of it. When native code
ends this process, the last line says in which cell.
"""

import json
import os
import pathlib
import sys
import time
import warnings

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))


def main(path: str, table: str, row: str, *columns: str) -> None:
    from coverage_checks.cells import CRASHED, one_line, run_cell
    from coverage_checks.tables import TABLES

    warnings.simplefilter("ignore")
    checks = TABLES[table].checks
    with open(path, "a", encoding="utf-8", buffering=1) as file:

        def say(column: str, **fields: object) -> None:
            file.write(json.dumps({"column": column, **fields}, ensure_ascii=False) + "\n")

        try:
            subject = TABLES[table].subject(row)
        except Exception as error:
            for column in columns:
                say(column, mark=CRASHED, detail=f"no model: {one_line(error)}", seconds=0.0)
            return
        for column in columns:
            say(column)
            began = time.monotonic()
            mark, detail = run_cell(checks[column], subject)
            seconds = round(time.monotonic() - began, 1)
            say(column, mark=mark, detail=detail, seconds=seconds)


if __name__ == "__main__":
    main(*sys.argv[1:])
