"""Seconds of an entire trial of a search, beside keras_tuner's trial or another checkout's.

    python benchmarks/trial_cost.py [--peer] [--data=fashion_mnist] [--growth=200]
    python benchmarks/trial_cost.py --against=CHECKOUT [--rounds=8] [--epochs=4]

A trial proposes a network, builds, trains, converts, evaluates and measures it, as `make demo`
does. With --peer the other side is a trial of keras_tuner's RandomSearch, which trains the same
network and no more. Each side has a process of its own that lives through all rounds; the sides
take turns, in an order that alternates, and in a round they get the same seed, so the same network.
Each process' first trial is not counted: TensorFlow starts in it. CPU time says what a trial costs
where other jobs run beside. With --growth=N one more process of each side runs a search of N trials
of one short epoch, and tells by how much its memory grew between trial 20 and the last: each is the
median of the five trials that end there, as the allocator takes and gives back tens of megabytes.

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
DATA = flags.DEFINE_enum("data", "digits", ["digits", "fashion_mnist"], "data set")
IMAGES = flags.DEFINE_integer("images", 2000, "training images, at most", 1)
PEER = flags.DEFINE_bool("peer", False, "beside keras_tuner's RandomSearch, which only trains")
GROWTH = flags.DEFINE_integer(
    "growth", 0, "trials of the search whose memory is measured; 0: none", 0
)
WARM_TRIALS = 20  # before the memory counts: what is loaded once is loaded by then
ENGINE = flags.DEFINE_string("engine", None, "run this side's trials, in here; seeds on stdin")
MARK = "trial_cost "  # before a line of results: libraries print too
STAGES = ("train", "convert", "evaluate", "measure", "rest", "total", "cpu")


def tfnas_trial(seed: int) -> dict[str, Any]:
    """One trial of tfnas' random search: seconds a stage, and the file's hash."""
    import keras

    from tfnas.nas import trial_runner

    split = loaded()
    seconds: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        tuner = random_tuner(split, seed, folder)
        for owner, name, stage in (
            (keras.Model, "fit", "train"),
            (trial_runner, "to_tflite", "convert"),
            (trial_runner, "evaluate", "evaluate"),
            (trial_runner, "benchmark", "measure"),
        ):
            stack.enter_context(timed(owner, name, stage, seconds))
        total = timed_search(tuner, split)
        [candidate] = tuner.candidates()
        file = contents(candidate.artifact())
    rest = total["total"] - sum(seconds.values())
    return {**seconds, "rest": rest, **total, "file": file}


def keras_tuner_trial(seed: int) -> dict[str, Any]:
    """One trial of keras_tuner's RandomSearch, of the network that tfnas' search draws."""
    import keras
    import keras_tuner as kt

    split = loaded()
    seconds: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        drawn = random_tuner(split, seed, folder)
        values = drawn.oracle.create_trial("peer").hyperparameters.values
        hypermodel = space_and_optimizer(split)

        def build(hp: Any) -> keras.Model:
            for name, value in values.items():
                hp.Fixed(name, value)
            return hypermodel.build(hp)

        tuner = kt.RandomSearch(
            build,
            objective="val_accuracy",
            max_trials=1,
            seed=seed,
            directory=folder,
            project_name="peer",
        )
        with timed(keras.Model, "fit", "train", seconds):
            total = timed_search(tuner, split)
    return {**seconds, "rest": total["total"] - seconds["train"], **total}


def loaded() -> Any:
    """Returns the data set in its parts."""
    import tfnas

    return tfnas.data.load(DATA.value).limited(IMAGES.value)


def space_and_optimizer(split: Any) -> Any:
    """Returns the hypermodel of both sides."""
    import keras

    import tfnas

    space = tfnas.MobileNetV2Space(split.input_shape, split.num_classes, "microcontroller")
    steps = EPOCHS.value * -(-len(split.x_train) // BATCH.value)
    optimizer = keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(3e-3, steps))
    return space.hypermodel(optimizer=optimizer)


def random_tuner(split: Any, seed: int, folder: str, trials: int = 1) -> Any:
    """Returns tfnas' random search."""
    import tfnas

    return tfnas.RandomTuner(
        space_and_optimizer(split),
        max_trials=trials,
        seed=seed,
        config=tfnas.TunerConfig(target_latency_ratio=0.03),
        directory=folder,
        project_name="search",
    )


def timed_search(tuner: Any, split: Any, epochs: int | None = None) -> dict[str, float]:
    """Runs a search; returns its seconds, of the clock and of the processor."""
    begin, cpu = time.perf_counter(), time.process_time()
    tuner.search(
        split.x_train,
        split.y_train,
        validation_data=(split.x_val, split.y_val),
        epochs=epochs or EPOCHS.value,
        batch_size=BATCH.value,
        verbose=0,
    )
    return {"total": time.perf_counter() - begin, "cpu": time.process_time() - cpu}


def grown(trials: int) -> dict[str, Any]:
    """Runs a search; returns the memory of the process after some trials and after the last."""
    from tfnas.nas.search_callbacks import TrialCallbacks

    sizes: list[int] = []

    class Sizes(TrialCallbacks):
        def trial_ended(self, trial: Any) -> None:
            sizes.append(resident_bytes())
            print("trial", trial.trial_id, f"{sizes[-1]:,} bytes", flush=True)

    split = loaded().limited(256)
    with tempfile.TemporaryDirectory() as folder:
        tuner = random_tuner(split, SEED.value, folder, trials)
        tuner.trial_callbacks = Sizes()
        timed_search(tuner, split, epochs=1)
    return {"sizes": sizes}


def grown_by_keras_tuner(trials: int) -> dict[str, Any]:
    """The same of keras_tuner's random search over the same networks, which only trains them."""
    import keras_tuner as kt

    sizes: list[int] = []

    class Search(kt.RandomSearch):
        def on_trial_end(self, trial: Any) -> None:
            super().on_trial_end(trial)
            sizes.append(resident_bytes())
            print("trial", trial.trial_id, f"{sizes[-1]:,} bytes", flush=True)

    split = loaded().limited(256)
    with tempfile.TemporaryDirectory() as folder:
        tuner = Search(
            space_and_optimizer(split),
            objective="val_accuracy",
            max_trials=trials,
            seed=SEED.value,
            directory=folder,
            project_name="peer",
        )
        timed_search(tuner, split, epochs=1)
    return {"sizes": sizes}


def resident_bytes() -> int:
    """Returns the memory of this process that is not swapped out, on Linux."""
    pages = pathlib.Path("/proc/self/statm").read_text().split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


ENGINES: dict[str, Callable[[int], dict[str, Any]]] = {
    "tfnas": tfnas_trial,
    "keras_tuner": keras_tuner_trial,
    "tfnas' search": grown,
    "keras_tuner's search": grown_by_keras_tuner,
}


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
        self.name = engine if engine != "tfnas" else f"tfnas {record.commit_of(checkout)}"
        arguments = [f"--{flag.name}={flag.value}" for flag in (EPOCHS, BATCH, DATA, IMAGES)]
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
            others = [trial[stage] for trial in trials[last] if stage in trial]
            if not values:
                continue
            row: dict[str, Any] = {"side": name, "stage": stage, "seconds": spread(values)}
            if name != last and others:
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
    if PEER.value and AGAINST.value:
        raise app.UsageError("--peer and --against must not be given together")
    here = pathlib.Path(__file__).resolve().parents[1]
    sides = [("tfnas", here)]
    if PEER.value:
        sides.append(("keras_tuner", here))
    if AGAINST.value:
        sides.append(("tfnas", pathlib.Path(AGAINST.value).resolve()))
    load = os.getloadavg()
    trials = rounds(sides)
    rows, notes = summary(trials), []
    if AGAINST.value:
        files = zip(*([trial["file"] for trial in found] for found in trials.values()), strict=True)
        alike = sum(len(set(of_round)) == 1 for of_round in files)
        notes = [f"{alike} of {ROUNDS.value} rounds gave files of the same operators and weights."]
    tables: dict[str, list[dict[str, Any]]] = {"": rows}
    if GROWTH.value:
        searches = ["tfnas' search", *(["keras_tuner's search"] if PEER.value else [])]
        tables["Memory"] = [growth(search, here) for search in searches]
    for title, found in tables.items():
        print(f"\n{title}\n{shown(found)}")
    print("\n".join(notes))
    record.write(
        "trial_cost",
        tables,
        seed=SEED.value,
        notes=[*notes, f"{DATA.value}, {IMAGES.value:,} training images at most."],
        command=command(list(trials)),
        load_before_and_after=[load[0], os.getloadavg()[0]],
        trials=trials,
    )


def rounds(sides: list[tuple[str, pathlib.Path]]) -> dict[str, list[dict[str, Any]]]:
    """Returns the trials of each side; the sides take turns."""
    with tempfile.TemporaryFile("w+") as log, contextlib.ExitStack() as stack:
        running = [Side(engine, checkout, log) for engine, checkout in sides]
        for side in running:
            stack.callback(side.close)
            side.trial(SEED.value)  # not counted
        trials: dict[str, list[dict[str, Any]]] = {side.name: [] for side in running}
        for round_number in range(ROUNDS.value):
            for side in running if round_number % 2 else reversed(running):
                trial = side.trial(SEED.value + round_number)
                trials[side.name].append(trial)
                print(side.name, f"{trial['total']:.2f} s, cpu {trial['cpu']:.2f} s", flush=True)
    return trials


def growth(search: str, checkout: pathlib.Path) -> dict[str, Any]:
    """Returns a row: the memory of a search in a process of its own."""
    with tempfile.TemporaryFile("w+") as log, contextlib.ExitStack() as stack:
        side = Side(search, checkout, log)
        stack.callback(side.close)
        sizes = side.trial(GROWTH.value)["sizes"]
    ends = min(WARM_TRIALS, len(sizes)), len(sizes)
    first, last = (statistics.median(sizes[max(end - 5, 0) : end]) for end in ends)
    return {
        "of": search,
        "trials": len(sizes),
        f"MB after {min(WARM_TRIALS, len(sizes))}": f"{first / 1e6:.1f}",
        "MB after all": f"{last / 1e6:.1f}",
        "MB grown": f"{(last - first) / 1e6:+.1f}",
    }


def shown(rows: list[dict[str, Any]]) -> str:
    """Returns a table as text."""
    from tfnas.table import table

    columns = list(dict.fromkeys(name for row in rows for name in row))
    values = [[row.get(name, "") for name in columns] for row in rows]
    return table(columns, [[cell(v) if isinstance(v, dict) else str(v) for v in r] for r in values])


def command(sides: list[str]) -> str:
    """Returns the command line, with the commit of another checkout instead of its folder."""
    options = [f"--{f.name}={f.value}" for f in (ROUNDS, EPOCHS, BATCH, SEED, DATA, IMAGES)]
    options += ["--peer"] if PEER.value else []
    options += [f"--growth={GROWTH.value}"] if GROWTH.value else []
    options += [f"--against={sides[1].removeprefix('tfnas ')}"] if AGAINST.value else []
    options += [f"--result={record.RESULT.value}"] if record.RESULT.value else []
    return " ".join(["python benchmarks/trial_cost.py", *options])


if __name__ == "__main__":
    app.run(main)
