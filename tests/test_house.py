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
from package_source import FLOOR, PackageSource, modules_in_cycles, points_up, room_of
from private_names import defined_names, package_uses, private_uses
from structure import arguments, bare_any, exported_things, functions, public_things

import tfnas

SOURCE = PackageSource(pathlib.Path(tfnas.__file__).parent)
REPOSITORY = SOURCE.folder.parent

# (importer, imported): imports that still point up. This list may only shrink.
UPWARD: set[tuple[str, str]] = set()
# (importer, imported): imports that close a cycle on one floor. This list may only shrink.
CYCLIC: set[tuple[str, str]] = set()
# The modules that may use private names of other libraries, each with a test of every name.
PRIVATE_MODULES = {"keras_private", "legacy.tf_keras_private", "nas.keras_tuner_private"}
# (module, private name): used elsewhere. This list may only shrink.
PRIVATE_ELSEWHERE = {
    *(
        ("nas.executors.engine", name)  # of executors of concurrent.futures and Dask
        for name in ("_client", "_initargs", "_initializer", "_max_workers", "_mp_context")
    ),
    ("targets.tflite_micro.interpreter", "_columns"),  # of our own Artifact
    ("tflite.quantizer_recipes", "_columns"),  # of our own Artifact
    ("tflite.file_validation", "_tab"),  # of what flatbuffers generates
}
# Functions of more than 60 lines beside their docstring. This list may only shrink.
LONG_FUNCTIONS: set[str] = set()
# Functions of more than 10 parameters. This list may only shrink.
MANY_PARAMETERS = {
    *("jobs.compress.compress", "distillation.distiller.__init__", "pruning.prune.prune"),
    *("pruning.structured.prune_channels.prune_channels", "jobs.technique_job.run_techniques"),
}
# Most parameters of public functions that are bare Any, in percent. These may only shrink.
BARE_ANY = 10.8
BARE_ANY_OF_EXPORTED_NAMES = 7.6


def test_every_module_is_on_a_floor():
    rooms = {room_of(module) for module in SOURCE.modules} - {"", "__main__"}
    assert rooms == set(FLOOR)


def test_imports_point_down():
    assert {pair for pair in SOURCE.imports if points_up(*pair)} == UPWARD


def test_no_modules_import_each_other():
    down = {pair for pair in SOURCE.imports if not points_up(*pair)}
    assert modules_in_cycles(down - CYCLIC) == set()
    for pair in CYCLIC:  # each is still needed
        assert pair in modules_in_cycles(down - (CYCLIC - {pair}))


def test_private_names_of_other_libraries_have_modules_of_their_own():
    uses = package_uses(SOURCE.trees)
    assert {use for use in uses if use[0] not in PRIVATE_MODULES} == PRIVATE_ELSEWHERE
    assert {module for module, _ in uses} >= PRIVATE_MODULES


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("model._functional", ["_functional"]),
        ("def f(model):\n    model._keras_mask = 1", ["_keras_mask"]),
        ("getattr(model, '_functional', None)", ["_functional"]),
        ("object.__setattr__(model, '_layers', [])", ["_layers"]),
        ("vars(history)['_tfnas_callbacks']", ["_tfnas_callbacks"]),
        (
            "class A(keras.Model):\n    def f(self):\n        self._symbolic_build()",
            ["_symbolic_build"],
        ),
        ("class A(B):\n    def f(self):\n        super()._build()", ["_build"]),
        # Names of this module, and of other modules of the package on self alone.
        ("class A:\n    def _f(self): ...\ndef g(a):\n    a._f()", []),
        ("class A:\n    def __init__(self):\n        self._x = 1\n\nA()._x", []),
        ("class A(B):\n    def f(self):\n        self._of_another_module()", []),
        ("other._of_another_module", ["_of_another_module"]),
        ("model.__class__.__name__\ngetattr(model, '__name__')\nfor _ in x: pass", []),
        ("from keras.src import tree", ["keras.src.tree"]),
        (
            "def f():\n    import tensorflow.python.eager.context",
            ["tensorflow.python.eager.context"],
        ),
        ("from keras_tuner.src.engine import oracle", ["keras_tuner.src.engine.oracle"]),
        ("from ai_edge_litert._pywrap import x", ["ai_edge_litert._pywrap.x"]),
        ("import_module('tf_keras.src.layers')", ["tf_keras.src.layers"]),
        ("keras.src.tree.map_structure", ["keras.src"]),
        ("from tfnas.legacy import x\nfrom ._x import y\nfrom keras import tree, ops", []),
    ],
)
def test_the_rule_of_private_names_sees_what_it_must(code, found):
    tree = ast.parse(code)
    own = defined_names(tree)
    assert list(private_uses(tree, own, own | {"_of_another_module"})) == found


def test_no_two_modules_share_a_name():
    assert SOURCE.shared_module_names() == set()


def test_no_two_public_classes_share_a_name():
    assert SOURCE.shared_class_names() == set()


def test_arguments_of_public_functions_have_types():
    for things, most in (
        (public_things(SOURCE), BARE_ANY),
        (exported_things(SOURCE), BARE_ANY_OF_EXPORTED_NAMES),
    ):
        untyped, arguments = bare_any(things)
        assert arguments > 300
        assert 100 * untyped / arguments <= most


def test_functions_are_short():
    found = {
        f"{module}.{node.name}"
        for module, tree in SOURCE.trees.items()
        for node in functions(tree)
        if lines_of_code(node) > 60
    }
    assert found == LONG_FUNCTIONS


def test_functions_take_few_arguments():
    found = {
        f"{module}.{node.name}"
        for module, tree in SOURCE.trees.items()
        for node in functions(tree)
        if len(arguments(node)) > 10
    }
    assert found == MANY_PARAMETERS


def test_classes_have_few_methods():
    for module, tree in SOURCE.trees.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                methods = [part for part in node.body if isinstance(part, ast.FunctionDef)]
                assert len(methods) <= 25, f"{module}.{node.name}"


def lines_of_code(function):
    """Number of lines of a function beside its docstring."""
    first = function.body[0]
    is_docstring = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)
    docstring = first.end_lineno - first.lineno + 1 if is_docstring else 0
    return function.end_lineno - function.lineno + 1 - docstring


def test_tests_mirror_the_package():
    packages = {path.parent.relative_to(SOURCE.folder) for path in SOURCE.modules.values()}
    others = {pathlib.Path(name) for name in ("attacks", "contracts", "defects")}
    tests = REPOSITORY / "tests"
    folders = {path.parent.relative_to(tests) for path in tests.rglob("test_*.py")}
    assert folders <= packages | others


@pytest.mark.parametrize(
    ("importer", "code", "bad"),
    [
        ("measure.module", "from tfnas.reports.search_report import x", True),
        ("measure.module", "def f():\n    import tfnas.nas.tuner", True),
        ("search_space.module", "from tfnas import pruning", True),
        ("search_space.module", "from ..quantization import spec", True),
        ("tflite.module", "from tfnas import search", True),
        ("pruning.module", "from tfnas.clustering.kmeans import kmeans", True),
        ("search_space.module", "from tfnas.nowhere import x", True),
        ("reports.module", "if TYPE_CHECKING:\n    from tfnas.cli.app import main", True),
        ("reports.module", "if typing.TYPE_CHECKING:\n    pass\nelse:\n    import tfnas.cli", True),
        ("search_space.module", "from . import blocks\nfrom .blocks import build_model", False),
        ("search_space.module", "from tfnas import Architecture, __version__\nimport os", False),
        ("reports.module", "from tfnas.nas.search_result import Row", False),
    ],
)
def test_the_import_rule_sees_what_it_must(importer, code, bad):
    found = SOURCE.imported_modules(ast.parse(code), importer)
    assert any(points_up(importer, imported) for imported in found) is bad


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


WITHOUT_TENSORFLOW = (
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
)


def test_files_are_run_and_measured_on_arrays_without_tensorflow():
    done = python(
        "import pathlib, sys\n"
        "import numpy as np\n"
        "import tfnas\n"
        "path = pathlib.Path(tfnas.__file__).parent / 'measure' / 'reference.tflite'\n"
        "file = tfnas.Artifact.load(path)\n"
        "x = np.ones((3, *file.inputs[0].shape[1:]), np.float32)\n"
        "heavy = {'tensorflow', 'keras', 'tf_keras', 'keras_tuner', 'sklearn', 'matplotlib'}\n"
        f"for code in {WITHOUT_TENSORFLOW!r}:\n"
        "    exec(code)\n"
        "    loaded = {name.split('.')[0] for name in sys.modules} & heavy\n"
        "    assert not loaded, (code, loaded)\n"
        "    print(code)\n"
    )
    assert done.returncode == 0, done.stderr
    assert tuple(done.stdout.splitlines()) == WITHOUT_TENSORFLOW


@pytest.mark.slow  # tests/legacy/test_rebuild.py sees it after an import of tf_keras
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
    assert set(tfnas.__all__) == set(SOURCE.public_names)
    assert tfnas.__all__ == sorted(tfnas.__all__)
    assert set(tfnas.__all__) <= set(dir(tfnas))
    with pytest.raises(AttributeError, match="module 'tfnas' has no attribute 'nothing'"):
        _ = tfnas.nothing


def test_the_stub_exports_each_name_once():
    tree = ast.parse((SOURCE.folder / "__init__.pyi").read_text("utf-8"))
    imports = [node for node in tree.body if isinstance(node, ast.ImportFrom)]
    aliases = [alias for node in imports for alias in node.names]
    assert sorted(alias.name for alias in aliases) == tfnas.__all__
    # Type checkers take a name of a stub as exported where it is imported as itself.
    assert [alias.name for alias in aliases if alias.asname != alias.name] == []


@pytest.mark.parametrize("name", tfnas.__all__)
def test_public_names_resolve_and_show_an_example(name):
    value = getattr(tfnas, name)
    assert inspect.getdoc(value)
    home = f"tfnas.{SOURCE.public_names[name]}"
    assert (value.__name__ if inspect.ismodule(value) else value.__module__) == home
    if inspect.ismodule(value) or (inspect.isclass(value) and issubclass(value, Exception)):
        return
    assert "Example:" in value.__doc__


@pytest.mark.parametrize(
    "module",
    [
        "search_space.architecture",
        "measure.measurement",
        "table",
        "nas.reward",
        "data.data_split",
        "data.image_folder",
        "data.reading",
        "quantization.spec",
        "compression.budget",
        "compression.progress",
        "compression.recipe",
        "runtime.argument_rules",
        "runtime.files",
        "reports.content",
        "reports.pages",
    ],
)
def test_examples_of_the_light_modules_are_true(module):
    result = doctest.testmod(
        importlib.import_module(f"tfnas.{module}"), optionflags=doctest.ELLIPSIS
    )
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
