"""Rules that hold for the package as a whole."""

import ast
import doctest
import importlib
import inspect
import os
import pathlib
import subprocess
import sys

import pytest

import tfnas

PACKAGE = pathlib.Path(tfnas.__file__).parent
REPOSITORY = PACKAGE.parent

# Left to right: a module imports from its own group and from groups to its left.
GROUPS = (
    (
        *("architecture", "measurement", "schedules", "kmeans", "files", "table"),
        *(
            "compression",
            "divergence",
            "hull",
            "muon",
            "optional",
            "stratify",
            "tracing",
            "randomness",
        ),
    ),
    ("rewrite", "data", "legacy"),
    ("calibration", "visit", "macs", "order", "kernels"),
    ("spaces", "pruning", "quantization", "clustering", "factorization", "distillation"),
    ("export", "loading"),
    ("bench",),
    ("tuners", "report"),
    ("pipeline",),
    ("cli",),
)
RANK = {room: rank for rank, group in enumerate(GROUPS) for room in group}
STRANGERS = GROUPS[3]  # these never import each other


def sources():
    """Yields (path in the package, room) of every module but the package's own two."""
    for path in sorted(PACKAGE.rglob("*.py")):
        relative = path.relative_to(PACKAGE)
        if str(relative) not in ("__init__.py", "__main__.py"):
            yield relative, relative.parts[0].removesuffix(".py")


def is_type_checking(node):
    test = node.test if isinstance(node, ast.If) else None
    name = getattr(test, "attr", getattr(test, "id", None))
    return name == "TYPE_CHECKING"


def imported_rooms(tree, relative):
    """Yields (line, room) of each import from tfnas, wherever in the module it stands."""
    pending = [tree]
    while pending:
        node = pending.pop()
        if is_type_checking(node):
            pending += node.orelse
            continue
        pending += ast.iter_child_nodes(node)
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            home = node.module or ""
            if node.level:
                here = ("tfnas", *relative.parts[: len(relative.parts) - node.level])
                home = ".".join([*here, *([home] if home else [])])
            names = [f"{home}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            package, *rest = name.split(".")
            if package != "tfnas" or not rest:
                continue
            yield node.lineno, tfnas._HOME.get(rest[0], rest[0]).split(".")[0]


def violations(tree, relative, room):
    for line, other in imported_rooms(tree, relative):
        if other.startswith("__"):
            continue
        if other not in RANK:
            yield f"{relative}:{line} imports {other}, which is no room"
        elif RANK[other] > RANK[room] or (
            other != room and room in STRANGERS and other in STRANGERS
        ):
            yield f"{relative}:{line} ({room}) imports {other}"


def test_every_module_is_in_a_room():
    rooms = {room for _, room in sources()}
    assert rooms <= set(RANK)
    assert {"architecture", "spaces", "export", "cli"} <= rooms


def test_imports_point_one_way():
    found = []
    for relative, room in sources():
        tree = ast.parse((PACKAGE / relative).read_text("utf-8"))
        found += violations(tree, relative, room)
    assert found == []


@pytest.mark.parametrize(
    ("room", "code", "bad"),
    [
        ("bench", "from tfnas.report.search_report import x", True),
        ("bench", "def f():\n    import tfnas.tuners.tuner", True),
        ("spaces", "from tfnas import pruning", True),
        ("spaces", "from ..quantization import spec", True),
        ("export", "from tfnas import search", True),
        ("spaces", "from tfnas.nowhere import x", True),
        ("spaces", "from . import space\nfrom .space import Decision", False),
        ("spaces", "from tfnas import Architecture, __version__\nimport keras", False),
        ("report", "if TYPE_CHECKING:\n    from tfnas.pipeline.search import Row", False),
        ("report", "if typing.TYPE_CHECKING:\n    pass\nelse:\n    import tfnas.cli.app", True),
    ],
)
def test_the_import_rule_sees_what_it_must(room, code, bad):
    relative = pathlib.Path(room, "module.py")
    assert bool(list(violations(ast.parse(code), relative, room))) is bad


def python(code):
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=600
    )


def test_importing_tfnas_is_free():
    done = python(
        "import os, sys\n"
        "before, loaded = dict(os.environ), set(sys.modules)\n"
        "import tfnas\n"
        "assert dict(os.environ) == before\n"
        "heavy = {'tensorflow', 'keras', 'tf_keras', 'keras_tuner', 'ai_edge_litert', 'numpy',\n"
        "         'sklearn', 'matplotlib', 'rich', 'absl', 'PIL'}\n"
        "new = set(sys.modules) - loaded\n"
        "assert not {name.split('.')[0] for name in new} & heavy\n"
        "assert {name for name in new if name.split('.')[0] == 'tfnas'} == {'tfnas'}\n"
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize(
    "code",
    [
        "file.predict(x)",
        "file.predict([x])",
        "file.predict({file.inputs[0].name: x})",
        "file.predict((x, None))",
        "tfnas.evaluate(file, x, np.arange(3))",
        "tfnas.evaluate(file, x, x, lambda y, p: 0.5)",
        "tfnas.benchmark(file, rounds=6, sample_ms=0.1)",
        "tfnas.throughput(file, x, [1, 2], [1], rounds=6, sample_ms=0.1)",
        "tfnas.file_sparsity(file)",
        "tfnas.micro_operators(file)",
    ],
)
def test_files_are_run_and_measured_on_arrays_without_tensorflow(code):
    done = python(
        "import pathlib, sys\n"
        "import numpy as np\n"
        "import tfnas\n"
        "path = pathlib.Path(tfnas.__file__).parent / 'bench' / 'reference.tflite'\n"
        "file = tfnas.Artifact.load(path)\n"
        "x = np.ones((3, *file.inputs[0].shape[1:]), np.float32)\n"
        f"{code}\n"
        "heavy = {'tensorflow', 'keras', 'tf_keras', 'keras_tuner', 'sklearn', 'matplotlib'}\n"
        "assert not {name.split('.')[0] for name in sys.modules} & heavy\n"
    )
    assert done.returncode == 0, done.stderr


def test_tfnas_leaves_keras_3_to_tensorflow():
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "import tfnas; tfnas.to_tflite; import tensorflow as tf; print(tf.keras.__version__)",
        ],
        capture_output=True,
        text=True,
        timeout=300,
        env={name: v for name, v in os.environ.items() if name != "TF_USE_LEGACY_KERAS"},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("3.")


def test_all_is_what_can_be_imported():
    assert set(tfnas.__all__) == set(tfnas._HOME)
    assert tfnas.__all__ == sorted(tfnas.__all__)
    assert set(tfnas.__all__) <= set(dir(tfnas))
    with pytest.raises(AttributeError, match="module 'tfnas' has no attribute 'nothing'"):
        _ = tfnas.nothing


@pytest.mark.parametrize("name", tfnas.__all__)
def test_public_names_resolve_and_show_an_example(name):
    value = getattr(tfnas, name)
    assert inspect.getdoc(value)
    home = f"tfnas.{tfnas._HOME[name]}"
    assert (value.__name__ if inspect.ismodule(value) else value.__module__) == home
    if inspect.ismodule(value) or (inspect.isclass(value) and issubclass(value, Exception)):
        return
    assert "Example:" in value.__doc__


@pytest.mark.parametrize(
    "module", ["architecture", "measurement", "table", "tuners.reward", "quantization.spec"]
)
def test_examples_of_the_light_modules_are_true(module):
    result = doctest.testmod(importlib.import_module(f"tfnas.{module}"))
    assert result.attempted > 0
    assert result.failed == 0


def test_no_file_names_a_folder_of_this_machine():
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=REPOSITORY, capture_output=True)
    if listed.returncode:
        pytest.skip("not a git checkout")
    names = [name for name in listed.stdout.decode().split("\0") if name]
    assert "setup.cfg" in names
    folders = [f"/{folder}/".encode() for folder in ("work", "root")]
    contents = {n: (REPOSITORY / n).read_bytes() for n in names if (REPOSITORY / n).is_file()}
    assert [n for n, data in contents.items() if any(f in data for f in folders)] == []
