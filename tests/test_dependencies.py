"""What tfnas imports is what setup.cfg declares, and what the lists of exact versions hold."""

import ast
import configparser
import functools
import importlib.metadata
import pathlib
import re
import sys

import absl.flags
import pytest
from package_source import syntax_tree
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

import tfnas
from tfnas.optional import OPTIONAL, require

PACKAGE = pathlib.Path(tfnas.__file__).parent
ROOT = pathlib.Path(__file__).parent.parent
LOWEST = ROOT / "tests" / "lowest.txt"
RUNNING, TESTING = ROOT / "requirements.txt", ROOT / "requirements-dev.txt"


def setup():
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg", "utf-8")
    return parser


def requirements(text):
    lines = (line.strip() for line in text.splitlines())
    return {canonicalize_name(r.name): r for r in map(Requirement, filter(None, lines))}


def hard():
    return requirements(setup()["options"]["install_requires"])


def extras():
    return {name: requirements(text) for name, text in setup()["options.extras_require"].items()}


def pins(path):
    """Package -> version; hashes and markers are left out."""
    found = re.findall(r"^([A-Za-z0-9][\w.-]*)==([^\s;\\]+)", path.read_text("utf-8"), re.M)
    return {canonicalize_name(name): Version(version) for name, version in found}


# Functions of importlib and of tfnas that take a module by its name.
BY_NAME = ("import_module", "find_spec", "require", "_load")


def imported_modules(tree):
    """Yields (line, module, whether at import time) of what is not tfnas' or Python's own."""
    at_once = {id(node) for node in tree.body}
    for node in ast.walk(tree):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names = [str(node.module)]
        elif isinstance(node, ast.Call) and node.args:
            called = getattr(node.func, "attr", getattr(node.func, "id", None))
            value = getattr(node.args[0], "value", None)
            names = [value] if called in BY_NAME and isinstance(value, str) else []
        for name in names:
            if name.split(".")[0] not in {*sys.stdlib_module_names, "tfnas", ""}:
                yield node.lineno, name, id(node) in at_once


def packages_of(module):
    """The packages that may bring a module."""
    for known, (package, _) in OPTIONAL.items():
        if f"{module}.".startswith(f"{known}."):
            return {canonicalize_name(package)}
    return {canonicalize_name(name) for name in installed_packages()[module.split(".")[0]]}


@functools.cache
def installed_packages():
    """Module -> the packages that bring it; reads the files of every installed package."""
    return importlib.metadata.packages_distributions()


def test_each_imported_module_is_declared():
    needed, optional = hard(), [name for group in extras().values() for name in group]
    undeclared, too_early, seen = [], [], set()
    for path in sorted(PACKAGE.rglob("*.py")):
        for line, module, at_once in imported_modules(syntax_tree(path)):
            packages = packages_of(module)
            seen |= packages
            if packages & set(needed):
                continue
            if not packages & set(optional):
                undeclared.append(f"{path.name}:{line} imports {module}")
            elif at_once:
                too_early.append(f"{path.name}:{line} imports {module}, of an extra")
    assert (undeclared, too_early) == ([], [])
    assert {"flatbuffers", "ai-edge-quantizer", "scikit-learn", "h5py", "tflite-micro"} <= seen
    assert set(needed) - seen == set()


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("import os, numpy.linalg\nfrom tfnas import x\nfrom . import y", [(1, "numpy.linalg")]),
        ("def f():\n    from PIL import Image", [(2, "PIL")]),
        ("import importlib\nm = importlib.import_module('h5py').File", [(2, "h5py")]),
        ("require('ethosu.vela', 'this')", [(1, "ethosu.vela")]),
    ],
)
def test_the_search_for_imports_sees_what_it_must(code, found):
    assert [(line, name) for line, name, _ in imported_modules(ast.parse(code))] == found


@pytest.mark.parametrize("module", OPTIONAL)
def test_an_optional_module_is_in_the_extra_that_the_message_names(module):
    package, extra = OPTIONAL[module]
    assert canonicalize_name(package) in extras()[extra]
    assert canonicalize_name(package) not in hard()


def test_extras_of_extras_are_complete():
    groups = extras()
    assert groups["all"]["tfnas"].extras == {extra for _, extra in OPTIONAL.values()}
    assert groups["test"]["tfnas"].extras == {"all"}
    assert groups["dev"]["tfnas"].extras == {"test"}


@pytest.mark.parametrize(
    ("module", "package", "extra"),
    [
        ("matplotlib", "matplotlib", "plots"),
        ("sklearn", "scikit-learn", "digits"),
        ("ethosu.vela", "ethos-u-vela", "micro"),
    ],
)
def test_a_missing_module_is_asked_for(module, package, extra, monkeypatch):
    monkeypatch.setitem(sys.modules, module.split(".")[0], None)
    wanted = f'package {package} must be installed for this: run pip install ".[{extra}]" in a'
    with pytest.raises(ImportError, match=re.escape(wanted)):
        require(module, "this")


def test_digits_ask_for_scikit_learn(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(ImportError, match=r'scikit-learn .* for the data set "digits".*\[digits\]'):
        tfnas.data.load("digits")


def test_reports_with_pictures_ask_for_matplotlib_before_any_work(monkeypatch, tmp_path):
    from tfnas.cli.export_command import _check_combinations, define

    monkeypatch.setitem(sys.modules, "matplotlib", None)
    output = tmp_path / "out"
    sensitive = ("prune", {"sparsity": 0.5, "scope": "sensitivity"})
    plain = ("prune", {"sparsity": 0.5})
    # What is no model or data set would be the next thing to be refused.
    calls = [
        lambda: tfnas.search("nothing", directory=output),
        lambda: tfnas.compress("nothing", "nothing", {"max_bytes": 0.5}, directory=output),
        lambda: tfnas.run_techniques(None, [sensitive], None, directory=output),
        lambda: tfnas.run_techniques(None, [("qat", {})], None, directory=output),
        lambda: tfnas.run_techniques(None, [plain, ("qat", {})], None, directory=output),
    ]
    for call in calls:
        with pytest.raises(ImportError, match=r'matplotlib must .* pictures .*"\.\[plots\]"'):
            call()
    with pytest.raises(ValueError, match="data must be given"):  # pruning alone draws nothing
        tfnas.run_techniques(None, [plain], None, directory=output)
    flags = define(absl.flags.FlagValues())
    flags(["export", "--errors", "--mode=int8", "--dataset=digits"])
    with pytest.raises(ImportError, match=r"matplotlib must .* plot of errors"):
        _check_combinations(flags)
    assert not output.exists()


def test_the_lowest_versions_are_those_of_setup_cfg():
    wanted = {**hard(), **extras()["digits"], **extras()["plots"]}
    lower = {}
    for name, requirement in wanted.items():
        [bound] = requirement.specifier  # one bound each
        assert bound.operator == ">="
        lower[name] = Version(bound.version)
    assert pins(LOWEST) == lower


def test_the_locked_versions_are_allowed_and_agree():
    running, testing = pins(RUNNING), pins(TESTING)
    assert running.items() <= testing.items()
    assert not {"pytest", "ipykernel", "tf-keras", "tensorflow-model-optimization"} & set(running)
    groups = extras()
    for group, locked in [
        *[(group, running) for group in (hard(), groups["digits"], groups["plots"])],
        *[(group, testing) for name, group in groups.items()],
    ]:
        for name, requirement in group.items():
            if name != "tfnas":
                assert requirement.specifier.contains(locked[name], prereleases=True), name


@pytest.mark.parametrize("path", [RUNNING, TESTING], ids=lambda path: path.name)
def test_each_locked_version_has_hashes_and_no_host(path):
    text = path.read_text("utf-8")
    entries = re.split(r"\n(?=\w)", re.sub(r"^#.*\n", "", text, flags=re.M))
    assert len(entries) == len(pins(path)) > 50
    assert [
        e.split()[0] for e in entries if not re.search(r"--hash=sha256:[0-9a-f]{64}\b", e)
    ] == []
    assert not re.search(r"://|--(extra-)?index|--find-links", text)


@pytest.mark.parametrize("what", ["a package", "a folder without __init__.py"])
def test_asking_for_a_module_imports_no_package(what, monkeypatch, tmp_path):
    inner = tmp_path / "outer_package" / "middle" / "inner.py"
    inner.parent.mkdir(parents=True)
    inner.touch()
    if what == "a package":
        for folder in inner.parents[:2]:
            (folder / "__init__.py").write_text("raise RuntimeError('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    names = ["outer_package.middle.inner", "outer_package.middle", "outer_package.middle.missing"]
    names += ["outer_package.middle.inner.part", "no_such_package.inner"]
    for name in names:
        monkeypatch.setitem(OPTIONAL, name, ("this-package", "micro"))
    require(names[0], "this")
    require(names[1], "this")
    for name in names[2:]:
        with pytest.raises(ImportError, match="this-package must be installed for this"):
            require(name, "this")
    assert not [name for name in sys.modules if name.startswith("outer_package")]
