"""Builds the distributions of this checkout, for the tests that look into them or install them."""

import pathlib
import shutil
import subprocess
import sys
import tarfile

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


def unpacked_sdist(tree: pathlib.Path, folder: pathlib.Path) -> pathlib.Path:
    """Builds the source distribution of a tree and unpacks it; returns the unpacked folder."""
    folder.mkdir()
    program = "import setuptools.build_meta as b, sys; b.build_sdist(sys.argv[1])"
    done = subprocess.run(
        [sys.executable, "-c", program, str(folder)],
        cwd=tree,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    [file] = folder.iterdir()
    with tarfile.open(file) as opened:
        opened.extractall(folder, filter="data")
    return folder / file.name.removesuffix(".tar.gz")


def built_wheel(tree: pathlib.Path, folder: pathlib.Path) -> pathlib.Path:
    """Builds the wheel of a tree into a folder."""
    wheel = [sys.executable, "-m", "pip", "wheel", ".", "--no-deps", "--no-build-isolation"]
    done = subprocess.run(
        [*wheel, "-w", str(folder)], cwd=tree, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    [file] = folder.iterdir()
    return file
