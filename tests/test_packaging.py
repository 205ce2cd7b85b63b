"""What a wheel of tfnas holds."""

import subprocess
import sys
import zipfile

from wheels import built_wheel, copied_tree

import tfnas


def test_the_wheel_holds_the_package_and_nothing_else(tmp_path):
    tree = copied_tree(tmp_path)
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
