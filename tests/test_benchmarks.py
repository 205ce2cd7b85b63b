"""The records of the benchmarks, and the page that is made from them."""

import ast
import importlib
import json
import pathlib
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
BENCHMARKS = ROOT / "benchmarks"
RESULTS = sorted((BENCHMARKS / "results").glob("*.json"))
# Not benchmarks: what they share, what another one runs, what makes a file of the package.
OTHERS = {
    *("collaborative_tfmot", "command_run", "coverage_page", "imagenet", "make_reference"),
    *("micro_times", "pruning_shapes", "readability", "record", "resnet8", "tables"),
}
FIELDS = {"benchmark", "command", "seed", "date", "commit", "provenance", "notes", "tables"}


def parsed(name: str) -> ast.Module:
    return ast.parse((BENCHMARKS / f"{name}.py").read_text(encoding="utf-8"))


def calls(tree: ast.Module, name: str) -> list[ast.Call]:
    found = (node for node in ast.walk(tree) if isinstance(node, ast.Call))
    return [node for node in found if ast.unparse(node.func) == name]


def flags_of(name: str) -> set[str]:
    """The flags that a script defines, or one of those beside it that it imports."""
    tree = parsed(name)
    found = {
        str(call.args[0].value)
        for kind in ("string", "integer", "float", "bool", "list", "enum", "multi_enum")
        for call in calls(tree, f"flags.DEFINE_{kind}")
        if isinstance(call.args[0], ast.Constant)
    }
    imported = [node for node in ast.walk(tree) if isinstance(node, ast.Import)]
    names = {alias.name for node in imported for alias in node.names}
    beside = names & {path.stem for path in BENCHMARKS.glob("*.py")}
    return found.union(*(flags_of(other) for other in beside))


def test_the_page_is_made_from_the_records():
    script = str(BENCHMARKS / "tables.py")
    done = subprocess.run([sys.executable, script, "--check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "name", sorted({path.stem for path in BENCHMARKS.glob("*.py")} - OTHERS), ids=str
)
def test_a_benchmark_writes_its_record(name):
    [call] = calls(parsed(name), "record.write")
    assert isinstance(call.args[0], ast.Constant)
    assert call.args[0].value == name


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.stem)
def test_a_record_is_whole(path):
    text = path.read_text(encoding="utf-8")
    record = json.loads(text)
    assert record.keys() >= FIELDS
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", record["date"])
    assert {"cpu", "cores", "tensorflow", "keras", "ai-edge-litert"} <= record["provenance"].keys()
    assert record["commit"] or "origin" in record  # measured by a commit, or copied from somewhere
    for rows in record["tables"].values():
        assert rows
        assert all(row.keys() <= rows[0].keys() for row in rows)
    assert not re.search(r'[\s"=(](?:/(?!/)|~/|[A-Z]:\\)\w', text), "a folder of some machine"


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.stem)
def test_a_record_names_a_command_that_exists(path):
    record = json.loads(path.read_text(encoding="utf-8"))
    if record["benchmark"] == "tfnas_search":
        assert record["command"].startswith(("make demo", "tfnas search "))
        return
    assert record["command"].startswith(f"python benchmarks/{record['benchmark']}.py")
    known = flags_of(record["benchmark"])
    used = re.findall(r"--(\w+)", record["command"])
    assert [flag for flag in used if not known & {flag, flag.removeprefix("no")}] == []


def test_a_command_line_names_no_folder(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import record

    arguments = ["/a/b/mcu.py", "--data=/mnt/x/cifar10.npz", "--directory=runs/mcu", "~/y.npz"]
    expected = "python benchmarks/mcu.py --data=cifar10.npz --directory=runs/mcu y.npz"
    assert record.command_line(arguments) == expected
    with pytest.raises(ValueError, match="columns must differ"):
        record.table_rows(["MACs", "MACs"], [[1, 2]])


def test_a_record_holds_what_is_needed_to_repeat_it(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import record
    import tables

    monkeypatch.setattr(record, "RESULTS", tmp_path)
    rows = [{"file": "int8", "s": {"median": 1.5, "least": 1.0, "most": 2.25}, "same": True}]
    path = record.write("mcu", rows, seed=3, notes=["A note."], command="python benchmarks/mcu.py")
    written = json.loads(path.read_text(encoding="utf-8"))
    assert written.keys() >= FIELDS
    assert written["seed"] == 3
    assert "| int8 | 1.5 [1, 2.25] | yes |" in tables.section({"file": "mcu.json", **written})


def test_the_files_of_a_command_are_read_from_its_report(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    command_run = importlib.import_module("command_run")
    report = tmp_path / "report.md"
    report.write_text(
        "# Compression\n\n| other | table |\n| --- | --- |\n| 1 | 2 |\n\n"
        "## The files, on 500 final examples, which nothing was chosen by\n\n"
        "| file | accuracy | bytes | gzip |\n| --- | ---: | ---: | ---: |\n"
        "| original, float32 | 0.9 | 4,000 | 3,000 |\n| int8 | 0.89 | 1,000 | 900 |\n\n"
        "## All candidates\n\n| recipe |\n| --- |\n| int8 |\n",
        encoding="utf-8",
    )
    headers, cells = command_run.files_of(report, 1000)
    assert headers == ["file", "accuracy", "bytes", "of int8", "gzip"]
    assert cells == [
        ["original, float32", "0.9", "4,000", "4.000", "3,000"],
        ["int8", "0.89", "1,000", "1.000", "900"],
    ]


def test_a_command_that_fails_is_an_error(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    command_run = importlib.import_module("command_run")
    monkeypatch.setattr(sys, "executable", "false")
    with pytest.raises(RuntimeError, match="ended with code 1"):
        command_run.run(tmp_path / "model.keras", {})
