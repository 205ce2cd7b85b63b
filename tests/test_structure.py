"""The numbers of `tests/structure.py`, on a package whose numbers are known."""

import pathlib
import subprocess
import sys

import pytest
import structure
from package_source import PackageSource, cycles

SAME = "".join(f"    total += {n} * value\n" for n in range(5))
FILES = {
    "__init__.py": "",
    "__init__.pyi": "from tiny import graph as graph\nfrom tiny.graph.walk import Walk as Walk\n",
    "graph/__init__.py": "",
    "graph/walk.py": f'''"""Walks."""
from typing import Any
from tiny.tflite import convert


class Walk:
    """Goes over layers of shape (batch, height, width, channels).

    Example:
        >>> Walk(3)

    Args:
        start: A layer.
    """

    def __init__(self, start: Any, *, end: int | Any = 0):
        self.start = start

    def step(self, value: int) -> int:
        """Returns the next layer.

        Raises:
            ValueError: There is none.
        """
        if value:
            raise ValueError("none")
        return value

    def _hidden(self, value: Any) -> Any:
        return value


def add(value: int) -> int:
    """Adds."""
    total = 0
{SAME}    return total
''',
    "graph/names.py": "from tiny import Walk\n\n\nclass Pair:\n    pass\n",
    "tflite/__init__.py": "",
    "tflite/convert.py": "def convert(values: dict[str, int], how: Any) -> None:\n    pass\n",
    "tflite/walk.py": f"""class Pair:
    def sum(self, value: int) -> int:
        total = 0

        # The same with a comment and other indentation.
{"".join(f"    {line}{chr(10)}" for line in SAME.splitlines())}        return total
""",
    "long.py": "".join(f"x = {n}\n" for n in range(401)),
}


@pytest.fixture
def tiny(tmp_path):
    for name, text in FILES.items():
        path = tmp_path / "tiny" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return PackageSource(tmp_path / "tiny")


def test_imports_and_names(tiny):
    assert tiny.public_names == {"graph": "graph", "Walk": "graph.walk"}
    assert tiny.imports == {
        ("graph.walk", "tflite.convert"),
        ("graph.names", "graph.walk"),
    }
    assert structure.upward_imports(tiny) == {("graph.walk", "tflite.convert")}
    assert tiny.shared_module_names() == {"walk"}
    assert tiny.shared_class_names() == {"Pair"}


def test_a_module_of_the_former_layout_counts_as_where_it_is_now(tmp_path):
    for name, text in {
        "pipeline/search.py": "from tiny.tuners import tuner",
        "pipeline/files.py": "from tiny.report import page",
        "tuners/tuner.py": "",
        "report/page.py": "from tiny.pipeline import files",
    }.items():
        (tmp_path / "tiny" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "tiny" / name).write_text(text)
    source = PackageSource(tmp_path / "tiny")
    assert structure.upward_imports(source) == {("pipeline.files", "report.page")}
    assert cycles(set(source.imports)) == [{"pipeline.files", "report.page"}]


def test_cycles():
    chain = {("a", "b"), ("b", "c"), ("x", "a"), ("c", "y")}
    assert cycles(chain) == []
    assert cycles(chain | {("c", "a"), ("y", "z"), ("z", "y")}) == [{"a", "b", "c"}, {"y", "z"}]


def test_types_and_docstrings(tiny):
    everything, exported = list(structure.public_things(tiny)), structure.exported_things(tiny)
    assert [thing.name for thing in exported] == ["Walk", "Walk.__init__", "Walk.step"]
    assert structure.bare_any(everything) == (3, 7)
    assert structure.bare_any(exported) == (2, 3)
    assert structure.documented(exported) == {
        "a docstring": (2, 2),
        "Args": (0, 1),
        "shapes": (1, 2),
        "Returns": (1, 1),
        "Raises": (1, 1),
        "Example": (1, 2),
        "References": (0, 2),
    }
    assert structure.documented(everything)["a docstring"] == (3, 7)


def test_repeated_code_is_found_whatever_its_indentation(tiny):
    [run] = structure.repeated_runs(tiny)
    assert [module for module, _ in run] == ["graph.walk", "tflite.walk"]
    lines = [tiny.modules[module].read_text().splitlines()[line - 1] for module, line in run]
    assert [line.strip() for line in lines] == ["total = 0", "total = 0"]


def test_quantities():
    assert structure.quantities([3]) == "median 3, 90% 3, maximum 3"
    assert structure.quantities(list(range(1, 11))) == "median 5.5, 90% 9, maximum 10"
    assert structure.quantities([]) == "none"


def test_the_command_prints_all_of_it(tiny):
    script = pathlib.Path(structure.__file__)
    done = subprocess.run(
        [sys.executable, script, tiny.folder], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    graph = sum(text.count("\n") for name, text in FILES.items() if name.startswith("graph/"))
    for line in (
        f"{'graph':<36}{3:>7}{graph:>9}",
        "functions: 6",
        "modules over 400 lines: 1 (long)",
        "import cycles: 0",
        "upward imports: 1\n  graph.walk -> tflite.convert",
        "names of two modules: 1 (walk)",
        "names of two public classes: 1 (Pair)",
        "repeated runs of 6 or more lines of code: 1, in 2 places",
        "bare Any, parameters of all public functions: 3 of 7 (42.9%)",
        f"{'Raises':<18}{'1 of 1 (100.0%)':>24}{'1 of 1 (100.0%)':>24}",
    ):
        assert f"{line}\n" in done.stdout


def test_a_folder_that_is_no_package_is_refused(tmp_path, capsys):
    assert structure.main([str(tmp_path)]) == 2
    assert "has no __init__.py" in capsys.readouterr().err
