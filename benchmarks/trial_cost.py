"""Seconds of an entire trial of a search on scikit-learn's digits, beside another checkout's.

    python benchmarks/trial_cost.py [--against=CHECKOUT] [--rounds=8] [--epochs=4]

A trial proposes a network, builds, trains, converts, evaluates and measures it, as `make demo`
does. Each side has a process of its own that lives through all rounds; the sides take turns, in
an order that alternates, and in a round they get the same seed, so the same network. Each
process' first trial is not counted: TensorFlow starts in it. CPU time says what a trial costs
where other jobs run beside. Writes benchmarks/results/trial_cost.json.

A further side is a function in `ENGINES` that runs one trial of a seed and returns its seconds.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

import record
from absl import app, flags

AGAINST = flags.DEFINE_string("against", None, "folder of another checkout of tfnas")
ROUNDS = flags.DEFINE_integer("rounds", 8, "trials of each side that count", 1)
EPOCHS = flags.DEFINE_integer("epochs", 4, "epochs of a trial", 1)
BATCH = flags.DEFINE_integer("batch_size", 32, "examples a training step", 1)
SEED = flags.DEFINE_integer("seed", 1, "seed of the first round", 0)
ENGINE = flags.DEFINE_string("engine", None, "run this side's trials, in here; seeds on stdin")
MARK = "trial_cost "  # before a line of results: libraries print too
STAGES = ("train", "convert", "evaluate", "measure", "rest", "total", "cpu")


def tfnas_trial(seed: int) -> dict[str, Any]:
    """One trial of tfnas' random search: seconds a stage, and the file's hash."""
    import keras

    import tfnas
    from tfnas.nas import trial_runner

    split = tfnas.data.load("digits")
    space = tfnas.MobileNetV2Space(split.input_shape, split.num_classes, "microcontroller")
    steps = EPOCHS.value * -(-len(split.x_train) // BATCH.value)
    optimizer = keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(3e-3, steps))
    seconds: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        tuner = tfnas.RandomTuner(
            space.hypermodel(optimizer=optimizer),
            max_trials=1,
            seed=seed,
            config=tfnas.TunerConfig(target_latency_ratio=0.03),
            directory=folder,
            project_name="search",
        )
        for owner, name, stage in (
            (keras.Model, "fit", "train"),
            (trial_runner, "to_tflite", "convert"),
            (trial_runner, "evaluate", "evaluate"),
            (trial_runner, "benchmark", "measure"),
        ):
            stack.enter_context(timed(owner, name, stage, seconds))
        begin, cpu = time.perf_counter(), time.process_time()
        tuner.search(
            split.x_train,
            split.y_train,
            validation_data=(split.x_val, split.y_val),
            epochs=EPOCHS.value,
            batch_size=BATCH.value,
            verbose=0,
        )
        total, cpu = time.perf_counter() - begin, time.process_time() - cpu
        [candidate] = tuner.candidates()
        file = contents(candidate.artifact())
    rest = total - sum(seconds.values())
    return {
        **seconds,
        "rest": rest,
        "total": total,
        "cpu": cpu,
        "file": file,
    }


ENGINES: dict[str, Callable[[int], dict[str, Any]]] = {"tfnas": tfnas_trial}


def contents(artifact: Any) -> str:
    """Returns a hash of a file's operators and weights; names of tensors may differ."""
    described = sorted(
        str((op.name, [(t.dtype, t.shape, t.scales, t.zero_points, t.constant) for t in ends]))
        for op in artifact.graph.operators
        for ends in [(*op.inputs, *op.outputs)]
    )
    return hashlib.sha256("".join(described).encode()).hexdigest()


@contextlib.contextmanager
def timed(owner: Any, name: str, stage: str, seconds: dict[str, float]) -> Iterator[None]:
    """Adds up the seconds of a function under a stage's name."""
    function = getattr(owner, name)

    def measured(*args: Any, **kwargs: Any) -> Any:
        begin = time.perf_counter()
        try:
            return function(*args, **kwargs)
        finally:
            seconds[stage] = seconds.get(stage, 0.0) + time.perf_counter() - begin

    setattr(owner, name, measured)
    try:
        yield
    finally:
        setattr(owner, name, function)


class Side:
    """A process that runs trials of one engine, with the tfnas of one checkout."""

    def __init__(self, engine: str, checkout: pathlib.Path, log: Any) -> None:
        self.name = f"{engine} {record.commit_of(checkout)}"
        arguments = [f"--{flag.name}={flag.value}" for flag in (EPOCHS, BATCH)]
        self.process = subprocess.Popen(
            [sys.executable, __file__, f"--engine={engine}", *arguments],
            env={**os.environ, "PYTHONPATH": str(checkout)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )

    def trial(self, seed: int) -> dict[str, Any]:
        """Runs one trial."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(seed, file=self.process.stdin, flush=True)
        for line in self.process.stdout:
            if line.startswith(MARK):
                return json.loads(line.removeprefix(MARK))
        raise RuntimeError(f"{self.name} ended with code {self.process.wait()}")

    def close(self) -> None:
        """Ends the process."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def serve(engine: str) -> None:
    """Runs a trial for each seed on stdin."""
    import tfnas

    checkout, source = os.environ["PYTHONPATH"], pathlib.Path(tfnas.__file__)
    if not source.is_relative_to(checkout):
        raise RuntimeError(f"tfnas must be that of {checkout}, got {source}")
    for line in sys.stdin:
        print(MARK + json.dumps(ENGINES[engine](int(line))), flush=True)


def spread(values: list[float]) -> dict[str, float]:
    """Returns the median, least and most."""
    return {"median": statistics.median(values), "least": min(values), "most": max(values)}


def summary(trials: dict[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Returns a row a side and stage; ratios are of the same round, to the last side."""
    *_, last = trials
    rows = []
    for name, found in trials.items():
        for stage in STAGES:
            values = [trial[stage] for trial in found if stage in trial]
            row: dict[str, Any] = {"side": name, "stage": stage, "seconds": spread(values)}
            if name != last:
                others = [trial[stage] for trial in trials[last]]
                pairs = zip(values, others, strict=True)
                row["ratio"] = spread([mine / other for mine, other in pairs])
            rows.append(row)
    return rows


def cell(row: dict[str, float], digits: int = 2) -> str:
    """Returns "median [least, most]"."""
    return "{median:.{0}f} [{least:.{0}f}, {most:.{0}f}]".format(digits, **row)


def main(argv: list[str]) -> None:
    if ENGINE.value:
        serve(ENGINE.value)
        return
    from tfnas.table import table

    checkouts = [pathlib.Path(__file__).resolve().parents[1]]
    if AGAINST.value:
        checkouts.append(pathlib.Path(AGAINST.value).resolve())
    load = os.getloadavg()
    with tempfile.TemporaryFile("w+") as log, contextlib.ExitStack() as stack:
        sides = [Side("tfnas", checkout, log) for checkout in checkouts]
        for side in sides:
            stack.callback(side.close)
            side.trial(SEED.value)  # not counted
        trials: dict[str, list[dict[str, Any]]] = {side.name: [] for side in sides}
        for round_number in range(ROUNDS.value):
            for side in sides if round_number % 2 else reversed(sides):
                trial = side.trial(SEED.value + round_number)
                trials[side.name].append(trial)
                print(side.name, f"{trial['total']:.2f} s, cpu {trial['cpu']:.2f} s", flush=True)
    rows = summary(trials)
    files = zip(*([trial.get("file") for trial in found] for found in trials.values()), strict=True)
    alike = sum(len(set(of_round)) == 1 for of_round in files)
    command = " ".join(
        [
            "python benchmarks/trial_cost.py",
            *(f"--{f.name}={f.value}" for f in (ROUNDS, EPOCHS, BATCH, SEED)),
            *([f"--against={sides[1].name.removeprefix('tfnas ')}"] if AGAINST.value else []),
        ]
    )
    print(f"\n$ {command}\n")
    cells = [
        [r["side"], r["stage"], cell(r["seconds"]), cell(r["ratio"]) if "ratio" in r else ""]
        for r in rows
    ]
    print(table(["side", "stage", "s [least, most]", "ratio of a round"], cells, right=2))
    note = f"{alike} of {ROUNDS.value} rounds gave files of the same operators and weights."
    print(f"\n{note}")
    record.write(
        "trial_cost",
        rows,
        seed=SEED.value,
        notes=[note] if AGAINST.value else [],
        command=command,
        load_before_and_after=[load[0], os.getloadavg()[0]],
        rounds_with_the_same_file=alike,
        trials=trials,
    )


if __name__ == "__main__":
    app.run(main)
