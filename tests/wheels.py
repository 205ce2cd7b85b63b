"""Builds the wheel of this checkout, for the tests that look into it or install it."""

import pathlib
import shutil
import subprocess
import sys

ROOT = pathlib.Path(__file__).parent.parent


def copied_tree(folder: pathlib.Path) -> pathlib.Path:
    """Copies what git has or would add: building in place leaves build/ and *.egg-info."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    tree = folder / "tree"
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, tree / name)
    return tree


def built_wheel(tree: pathlib.Path, folder: pathlib.Path) -> pathlib.Path:
    """Builds the wheel of a tree into a folder."""
    wheel = [sys.executable, "-m", "pip", "wheel", ".", "--no-deps", "--no-build-isolation"]
    done = subprocess.run(
        [*wheel, "-w", str(folder)], cwd=tree, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    [file] = folder.iterdir()
    return file
