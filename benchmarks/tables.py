"""Makes docs/benchmarks.md from the files in benchmarks/results.

    python benchmarks/tables.py [--check]

With --check nothing is written; the exit code is 1 where the page is not what the files make.
"""

from __future__ import annotations

import argparse
import ast
import json
import pathlib
import sys
from typing import Any

ROOT = pathlib.Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
PAGE = ROOT / "docs" / "benchmarks.md"
COMMAND = "tfnas_search"  # records of the command, which is no script
HEAD = """# Benchmarks

Made by `make tables` from [benchmarks/results](../benchmarks/results); edit these files, not this
page. "Points" is a paired difference in percentage points on the same examples, with its 95%
interval; a time or speed is a ratio of interleaved measurements. A record that says "recorded by
hand" is from before the scripts wrote their results: its tables were printed by the command that
it names and copied from the build notes, so it has no commit, and its processor and versions are
those that the notes and README.md gave for all of their results.
"""


def page() -> str:
    """Returns the text of docs/benchmarks.md."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for path in sorted(RESULTS.glob("*.json")):
        record = json.loads(path.read_text(encoding="utf-8"))
        groups.setdefault(record["benchmark"], []).append({"file": path.name, **record})
    titles = {name: title_of(name) for name in sorted(groups)}
    contents = [f"- [{name}](#{name}): {title}" for name, title in titles.items()]
    parts = [HEAD, "\n".join(contents) + "\n"]
    for name, title in titles.items():
        parts.append(f"## {name}\n\n{title}\n")
        parts += [section(record) for record in groups[name]]
    return "\n".join(parts)


def title_of(name: str) -> str:
    """Returns the first line of a script's docstring."""
    if name == COMMAND:
        return "The command `tfnas search`, on test images that the search never saw."
    path = ROOT / "benchmarks" / f"{name}.py"
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return " ".join(docstring.split("\n\n")[0].split())


def section(record: dict[str, Any]) -> str:
    """Returns one record as Markdown."""
    where = record["provenance"]
    facts = [record["date"], where["cpu"]]
    facts += [f"{name} {where[name]}" for name in ("tensorflow", "keras", "ai-edge-litert")]
    facts += [f"seed {record['seed']}"] if record["seed"] is not None else []
    facts += [f"commit {record['commit']}"] if record["commit"] else []
    lines = [f"    {record['command']}", "", ", ".join(facts) + f" ([{record['file']}]"]
    lines[-1] += f"(../benchmarks/results/{record['file']}))."
    origin = [f"{record['origin'][0].upper()}{record['origin'][1:]}."] if "origin" in record else []
    notes = [*record["notes"], *origin]
    lines += ["", *(f"- {note}" for note in notes)] if notes else []
    for title, rows in record["tables"].items():
        lines += ["", f"**{title}**"] if title else []
        lines += ["", markdown(rows)] if rows else []
    return "\n".join(lines) + "\n"


def markdown(rows: list[dict[str, Any]]) -> str:
    """Returns rows as a Markdown table; a column holds numbers where most of its cells do."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    cells = [[text(row.get(column, "")) for column in columns] for row in rows]
    rule = ["---:" if numeric([row[i] for row in cells]) else "---" for i in range(len(columns))]
    lines = [columns, rule, *cells]
    return "\n".join(
        "| " + " | ".join(c.replace("|", "\\|") for c in line) + " |" for line in lines
    )


def text(value: Any) -> str:
    """Returns a cell: numbers with four digits, a spread as "median [least, most]"."""
    if isinstance(value, dict):
        return f"{text(value['median'])} [{text(value['least'])}, {text(value['most'])}]"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def numeric(cells: list[str]) -> bool:
    """Whether most cells that hold something begin as a number does."""
    filled = [cell for cell in cells if cell]
    return 2 * sum(cell.lstrip("+-*")[:1].isdigit() for cell in filled) > len(filled)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; exit code 1 if old")
    expected = page()
    if parser.parse_args().check:
        if not PAGE.exists() or PAGE.read_text(encoding="utf-8") != expected:
            sys.exit("docs/benchmarks.md is not what benchmarks/results make: run make tables")
        return
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(expected, encoding="utf-8")


if __name__ == "__main__":
    main()
