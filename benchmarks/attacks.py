"""What attacks on files, processes and searches do, counted: nothing may end the caller.

    python benchmarks/attacks.py [--only=tflite,archives,...] [--part=0.1]

Mutated `.tflite` files, of tfnas and of other converters, are loaded, checked and run; hostile
archives and folders of images are read; state files are edited; searches run without disk, memory,
descriptors or stdout, and for a thousand trials; threads convert at once; searches, their workers,
commands and the workers of a Dask cluster are killed. `--only` replaces the rows of these parts in
the record. The exit code is 1 where an attack succeeded.
"""

from __future__ import annotations

import json
import pathlib
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from typing import Any

import record
from absl import app, flags

ROOT = pathlib.Path(__file__).resolve().parents[1]
ATTACKS = ROOT / "tests" / "attacks"
sys.path.insert(0, str(ATTACKS))

ONLY = flags.DEFINE_list("only", [], "parts; all of them by default")
PART = flags.DEFINE_float("part", 1.0, "fraction of the files, trials and conversions")
Ends = Mapping[str, Any]


def main(argv: list[str]) -> None:
    unknown = set(ONLY.value) - set(PARTS)
    if unknown:
        raise app.UsageError(f"only must name parts, {', '.join(PARTS)}, got {unknown}")
    names = ONLY.value or list(PARTS)
    rows: dict[str, record.Row] = {}
    failures: list[str] = []
    for name in names:
        began = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            ends, faults = PARTS[name](pathlib.Path(folder))
        text = ", ".join(f"{count} {end}" for end, count in ends.items())
        seconds = round(time.monotonic() - began)
        rows[name] = {"part": name, "ended": text, "failures": len(faults), "s": seconds}
        failures += faults
        print(f"{name}: {text}; {len(faults)} failures; {seconds} s", flush=True)
        print("\n".join(faults), end="\n" if faults else "", flush=True)
    rows = {**earlier_rows(names), **rows}  # read now: other parts may have run meanwhile
    ordered = [rows[name] for name in PARTS if name in rows]
    if PART.value == 1.0:
        record.write("attacks", ordered, command="python benchmarks/attacks.py")
    sys.exit(1 if failures else 0)


def earlier_rows(names: list[str]) -> dict[str, record.Row]:
    """Returns the rows of the record whose parts are not run now."""
    path = record.RESULTS / f"{record.RESULT.value or 'attacks'}.json"
    if not path.exists():
        return {}
    rows = json.loads(path.read_text(encoding="utf-8"))["tables"][""]
    return {row["part"]: row for row in rows if row["part"] in PARTS and row["part"] not in names}


def share(count: int) -> int:
    return max(1, round(count * PART.value))


def tflite(folder: pathlib.Path) -> tuple[Ends, list[str]]:
    """2,000 mutated files."""
    import tflite_files

    tflite_files.write_files(
        folder, {**tflite_files.sound_files(), **tflite_files.converted_files()}
    )
    return tflite_files.attack(folder, share(2000))


def archives(folder: pathlib.Path) -> tuple[Ends, list[str]]:
    """60 hostile archives and folders of images, in a process of their own."""
    command = [sys.executable, str(ATTACKS / "hostile_archives.py"), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        return {"ended the process": 1}, [done.stderr[-2000:]]
    ends, faults = json.loads(done.stdout.splitlines()[-1])
    return ends, faults


def _pytest(path: pathlib.Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Runs all tests of a file, the slow ones too."""
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-m", "", str(path)]
    return subprocess.run([*command, *options], capture_output=True, text=True, cwd=ROOT)


def state(folder: pathlib.Path) -> tuple[Ends, list[str]]:
    """Edited state files of searches and jobs: those of the contract tests."""
    path = ROOT / "tests" / "contracts" / "test_state_files.py"
    done = _pytest(path, "-s")
    found = re.search(r"(\d+) passed", done.stdout)
    sys.path[:0] = [str(path.parent), str(ROOT / "tests")]
    import test_state_files

    edits = len(test_state_files.SEEDS) * len(test_state_files.KINDS)
    passed = int(found[1]) if found else 0
    ends = {"edits in tests that passed": edits + passed - len(test_state_files.KINDS)}
    return ends, [] if done.returncode == 0 else [done.stdout[-2000:]]


def limits(folder: pathlib.Path) -> tuple[Ends, list[str]]:
    """Searches without disk, memory, descriptors, stdout or a locale."""
    import process_limits

    found = process_limits.attack(folder)
    ends = {end: list(found.values()).count(end) for end in sorted(set(found.values()))}
    known = ("as undisturbed", "impossible here")
    faults = [f"{name}: {end}" for name, end in found.items() if end not in known]
    return {end: count for end, count in ends.items() if end in known}, faults


def trials(folder: pathlib.Path) -> tuple[Ends, list[str]]:
    """1,000 trials, and what grew between the middle and the last."""
    import long_search

    count = share(1000)
    growth = long_search.attack(count)
    ends = {f"trials, of which the last {count // 2:,} added": f"{count:,}"}
    added = {f"more {name}" if name != "bytes" else name: n for name, n in growth.items()}
    return {**ends, **added}, long_search.faults(growth, count)


def threads(folder: pathlib.Path) -> tuple[Ends, list[str]]:
    """8 threads that convert and predict, in this process and in the helper process."""
    import threads_that_convert

    ends, faults = {}, []
    for isolated in (False, True):
        count, found = threads_that_convert.attack(8, share(10), isolated)
        ends["conversions in the helper" if isolated else "conversions"] = count
        faults += found
    return ends, faults


def killed(folder: pathlib.Path, kinds: list[str], kills: int) -> tuple[Ends, list[str]]:
    """Searches of 200 trials that are killed: the same trials, none lost, none twice."""
    from process_limits import program_ends

    ends, faults = {}, []
    arguments = (folder, ",".join(kinds), max(2 * share(kills), share(200)), share(kills))
    for line in program_ends("killed_searches.py", *arguments):
        for kind, (counts, found) in line.items():
            ends.update({f"{name} of {kind}": count for name, count in counts.items()})
            faults += [f"{kind}: {fault}" for fault in found]
    return ends, faults


def kills(folder: pathlib.Path) -> tuple[Ends, list[str]]:
    """60 kills of the process of each kind of search."""
    return killed(folder, ["evolution", "reinforcement", "halving", "surrogate"], 60)


def processes(folder: pathlib.Path) -> tuple[Ends, list[str]]:
    """60 kills of workers, of what they have started, and of the search above."""
    return killed(folder, ["one process", "two processes"], 30)


def commands(folder: pathlib.Path) -> tuple[Ends, list[str]]:
    """12 kills each of `tfnas search` and `tfnas compress`."""
    from process_limits import program_ends

    ends, faults = {}, []
    for kind in ("search", "compress"):
        [(counts, found)] = program_ends("killed_commands.py", folder / kind, kind, share(12))
        ends.update({f"{name} (tfnas {kind})": count for name, count in counts.items()})
        faults += found
    return ends, faults


def cluster(folder: pathlib.Path) -> tuple[Ends, list[str]]:
    """2 of 4 workers of a Dask cluster, and of Ray where it is installed: the slow tests."""
    path = ROOT / "tests" / "nas" / "executors" / "test_engine.py"
    done = _pytest(path, "-k", "two_workers_of_four")
    ends = {}
    for name in ("passed", "skipped"):
        found = re.search(rf"(\d+) {name}", done.stdout)
        ends[f"clusters {name}"] = int(found[1]) if found else 0
    return ends, [] if done.returncode == 0 else [done.stdout[-2000:]]


PARTS: dict[str, Callable[[pathlib.Path], tuple[Ends, list[str]]]] = {
    function.__name__: function
    for function in (
        *(tflite, archives, state, limits, trials, threads),
        *(kills, processes, commands, cluster),
    )
}


if __name__ == "__main__":
    app.run(main)
