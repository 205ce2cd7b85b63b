"""Seconds of a short `make demo` with the helper process, beside those without.

    python benchmarks/helper_process_demo.py [--pairs=2] [--trials=2]

The search of `make demo` (digits, preset microcontroller, 4 epochs a trial, seed 1) with fewer
trials, and without the trainings after it, each time in a process of its own: by default, as the
command does, and inside of `tfnas.isolated(False)`. The two sides take turns. CPU time is that of
all processes of a run. Writes benchmarks/results/helper_process_demo.json.
"""

from __future__ import annotations

import os
import pathlib
import resource
import statistics
import subprocess
import sys
import tempfile
import time

import record
from absl import app, flags

PAIRS = flags.DEFINE_integer("pairs", 2, "runs of each side", 1)
TRIALS = flags.DEFINE_integer("trials", 2, "trials of a run", 1)
PROGRAM = """
import sys
import tfnas
with tfnas.isolated(sys.argv[1] == "isolated"):
    tfnas.search(
        "digits", preset="microcontroller", max_trials=int(sys.argv[2]), epochs=4, batch_size=32,
        population_size=6, target_latency_ratio=0.03, baseline=False, seed=1, directory=sys.argv[3],
    )
"""


def spent() -> float:
    """CPU time of the processes that have ended, and of what they had started."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def run(side: str) -> tuple[dict[str, float], dict[str, bytes]]:
    """Returns what a search takes, by the clock and of the processors, and its trials' files."""
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    with tempfile.TemporaryDirectory() as folder:
        cpu, clock = spent(), time.perf_counter()
        command = [sys.executable, "-W", "ignore", "-c", PROGRAM, side, str(TRIALS.value), folder]
        subprocess.run(command, check=True, env=environment)
        taken = {"clock": time.perf_counter() - clock, "cpu": spent() - cpu}
        found = pathlib.Path(folder).glob("search/trial_*/model.tflite")
        files = {path.parent.name: path.read_bytes() for path in found}
    print(f"{side}: {taken['clock']:.1f} s, {taken['cpu']:.1f} s of CPU", flush=True)
    return taken, files


def main(argv: list[str]) -> None:
    from tfnas.table import table

    pairs, same, files = [], 0, 0
    for number in range(PAIRS.value):
        sides = ("isolated", "without") if number % 2 else ("without", "isolated")
        runs = {side: run(side) for side in sides}
        apart, here = runs["isolated"][1], runs["without"][1]
        files += len(here)
        same += sum(apart.get(name) == content for name, content in here.items())
        pairs.append({side: taken for side, (taken, _) in runs.items()})
    rows = []
    for kind, label in (("clock", "seconds"), ("cpu", "CPU seconds of all processes")):
        apart, here = ([pair[side][kind] for pair in pairs] for side in ("isolated", "without"))
        rows.append(
            {
                f"a search of {TRIALS.value} trials": label,
                "isolated": f"{statistics.median(apart):.1f}",
                "without": f"{statistics.median(here):.1f}",
                "ratios of pairs": ", ".join(
                    f"{a / b:.3f}" for a, b in zip(apart, here, strict=True)
                ),
            }
        )
    command = (
        f"python benchmarks/helper_process_demo.py --pairs={PAIRS.value} --trials={TRIALS.value}"
    )
    print(f"\n$ {command}\n\n{table(list(rows[0]), [list(row.values()) for row in rows], right=3)}")
    notes = [
        f"{same} of {files} files of the trials were the same byte by byte.",
        "The demo has 12 trials, and trains five networks after them; the helper starts once "
        "there too.",
    ]
    print("\n" + "\n".join(notes))
    record.write("helper_process_demo", rows, seed=1, command=command, notes=notes, pairs=pairs)


if __name__ == "__main__":
    app.run(main)
