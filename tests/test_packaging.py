"""What the distributions of tfnas hold, and that all that names a version names the same one."""

import re
import shutil
import subprocess
import sys
import zipfile

import pytest
from wheels import ROOT, built_wheel, copied_tree, unpacked_sdist

import tfnas


def files_below(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """What git has, and the source distribution that was made of it."""
    folder = tmp_path_factory.mktemp("distributions")
    tree = copied_tree(folder)
    whole = files_below(tree)  # before the build leaves its own files there
    return whole, unpacked_sdist(tree, folder / "sdist")


def test_the_version_is_the_same_everywhere():
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    [version] = re.findall(r"^version: (.*)$", citation, re.MULTILINE)
    [released] = re.findall(r"^date-released: (.*)$", citation, re.MULTILINE)
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    headings = re.findall(r"^## \[(.*)\](.*)$", changes, re.MULTILINE)
    assert version == tfnas.__version__
    assert headings[:2] == [("Unreleased", ""), (version, f" - {released}")]
    assert f"| tfnas {version.rpartition('.')[0]} |" in (ROOT / "README.md").read_text("utf-8")


def test_the_source_distribution_holds_all_that_git_has(source):
    whole, unpacked = source
    assert unpacked.name == f"tfnas-{tfnas.__version__}"
    held = files_below(unpacked)
    assert {name for name in whole - held if not name.startswith((".ci/", ".git"))} == set()
    assert {name for name in held - whole if ".egg-info/" not in name} == {"PKG-INFO"}


@pytest.mark.slow  # slow tests install the wheel
def test_the_wheel_of_the_source_distribution_holds_the_package_and_nothing_else(source, tmp_path):
    # A copy: a build leaves files of its own.
    tree = shutil.copytree(source[1], tmp_path / source[1].name)
    file = built_wheel(tree, tmp_path / "wheels")
    assert file.name == f"tfnas-{tfnas.__version__}-py3-none-any.whl"
    with zipfile.ZipFile(file) as opened:
        held = set(opened.namelist())
        info = f"tfnas-{tfnas.__version__}.dist-info/"
        scripts = opened.read(f"{info}entry_points.txt").decode().split()
        metadata = opened.read(f"{info}METADATA").decode()
    assert scripts == ["[console_scripts]", "tfnas", "=", "tfnas.cli.app:run"]
    assert "Requires-Dist: keras-tuner" in metadata
    code = {path.relative_to(tree).as_posix() for path in (tree / "tfnas").rglob("*.py")}
    others = {"tfnas/__init__.pyi", "tfnas/py.typed", "tfnas/measure/reference.tflite"}
    others |= {"tfnas/measure/elsewhere/timing_page.html"}
    others |= {p.relative_to(tree).as_posix() for p in (tree / "tfnas").rglob("templates/*")}
    assert len(code) > 30
    assert {name for name in held if not name.startswith(info)} == code | others
    # Python imports from the file itself too, as it stands in a sys.path.
    program = (
        f"import sys; sys.path.insert(0, {str(file)!r}); import tfnas; print(tfnas.__file__);"
        "assert tfnas.BlockSpec.__module__ == 'tfnas.search_space.block_spec'"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(str(file))
