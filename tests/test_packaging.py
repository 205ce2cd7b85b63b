"""What a wheel of tfnas holds."""

import pathlib
import shutil
import subprocess
import sys
import zipfile

import tfnas

ROOT = pathlib.Path(__file__).parent.parent


def test_the_wheel_holds_the_package_and_nothing_else(tmp_path):
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    tree = tmp_path / "tree"  # building in place would leave build/ and *.egg-info
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, tree / name)
    wheel = [sys.executable, "-m", "pip", "wheel", ".", "--no-deps", "--no-build-isolation"]
    done = subprocess.run(
        [*wheel, "-w", str(tmp_path / "wheels")],
        cwd=tree,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    [file] = (tmp_path / "wheels").iterdir()
    assert file.name == f"tfnas-{tfnas.__version__}-py3-none-any.whl"
    with zipfile.ZipFile(file) as opened:
        held = set(opened.namelist())
        info = f"tfnas-{tfnas.__version__}.dist-info/"
        scripts = opened.read(f"{info}entry_points.txt").decode().split()
        metadata = opened.read(f"{info}METADATA").decode()
    assert scripts == ["[console_scripts]", "tfnas", "=", "tfnas.cli.app:run"]
    assert "Requires-Dist: keras-tuner" in metadata
    code = {path.relative_to(tree).as_posix() for path in (tree / "tfnas").rglob("*.py")}
    wanted = {*code, "tfnas/py.typed", "tfnas/bench/reference.tflite"}
    assert len(code) > 30
    assert {name for name in held if not name.startswith(info)} == wanted
