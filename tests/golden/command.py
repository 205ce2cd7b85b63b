"""The command line of the script."""

import argparse
import importlib
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
SCRIPT = pathlib.Path("tests", "golden.py")
GROUPS = ("conversion", "techniques", "training", "proposals", "planning", "measures")


def main(argv=None):
    """Runs the command; returns the exit code."""
    arguments = _parser().parse_args(argv)
    if arguments.compare is not None:
        return _compare(ROOT, arguments.compare.resolve(), arguments.only)
    _settle()
    names = load().chosen(arguments.only)
    _check_package()
    if not names:
        print(f"no entry matches {arguments.only!r}", file=sys.stderr)
        return 2
    if arguments.list:
        print("\n".join(names))
        return 0
    found = _computed(names)
    if arguments.write is not None:
        arguments.write.write_text(json.dumps(found, indent=1))
    return 0


def load():
    """Returns the module of the entries, with all of them in it."""
    for group in GROUPS:
        importlib.import_module(f"golden.{group}")
    return importlib.import_module("golden.entries")


def differences(ours, theirs):
    """Returns a line an entry that is not the same in both."""
    lines = []
    for name in sorted({*ours, *theirs}):
        one, other = ours.get(name), theirs.get(name)
        if one is None or other is None:
            lines.append(f"{name}: only in the {'other' if one is None else 'first'}")
        elif one["sha256"] != other["sha256"]:
            lines.append(f"{name}: {one['summary']} | {other['summary']}")
    return lines


def _parser():
    parser = argparse.ArgumentParser(prog="golden.py", description="Hashes of what tfnas computes.")
    parser.add_argument("--compare", type=pathlib.Path, metavar="CHECKOUT", help="or a file")
    parser.add_argument("--write", type=pathlib.Path, metavar="FILE", help="hashes as JSON")
    parser.add_argument("--only", metavar="PATTERN", help="entries of this beginning or pattern")
    parser.add_argument("--list", action="store_true", help="names of the entries, nothing else")
    return parser


def _check_package():
    """Hashes of another checkout's package would prove nothing."""
    package = importlib.import_module("golden.names").PACKAGE
    if package.parent != ROOT:
        raise SystemExit(f"tfnas must be that of {ROOT}, got {package}")


def _settle():
    """One thread, and no kernel that adds up in an order of its own."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    import tensorflow as tf

    tf.config.threading.set_inter_op_parallelism_threads(1)
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.experimental.enable_op_determinism()
    tf.config.set_visible_devices([], "GPU")


def _computed(names):
    entries = load()
    found, start = {}, time.perf_counter()
    for name in names:
        began = time.perf_counter()
        digest, told = entries.compute(name)
        seconds = time.perf_counter() - began
        found[name] = {"sha256": digest, "summary": told}
        print(f"{digest[:12]} {seconds:5.1f} s  {name}: {told}", flush=True)
    print(f"{len(found)} entries in {time.perf_counter() - start:.0f} s")
    return found


def _compare(first, other, only):
    ours, theirs = (_read(place, only) for place in (first, other))
    lines = differences(ours, theirs)
    print("\n".join([f"{first} | {other}", *lines]) if lines else f"{len(ours)} entries equal")
    return 1 if lines else 0


def _read(place, only):
    """Returns the hashes of a checkout, or of a file, which may have more than are asked for."""
    if not place.is_file():
        return _run(place, only)
    found = json.loads(place.read_text())
    matches = importlib.import_module("golden.entries").matches
    return {name: entry for name, entry in found.items() if matches(name, only)}


def _run(root, only):
    """Runs a checkout's own script in a process of its own, with that checkout's tfnas."""
    with tempfile.TemporaryDirectory() as folder:
        file = pathlib.Path(folder, "golden.json")
        command = [sys.executable, str(root / SCRIPT), "--write", str(file)]
        command += [] if only is None else ["--only", only]
        environment = {**os.environ, "PYTHONPATH": str(root)}
        ran = subprocess.run(
            command, cwd=root, env=environment, capture_output=True, text=True, check=False
        )
        if ran.returncode:
            raise SystemExit(f"the script failed in {root}:\n{ran.stderr[-4000:]}")
        return json.loads(file.read_text())
