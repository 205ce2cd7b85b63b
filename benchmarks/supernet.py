"""Weight-sharing search beside a search by trials, over the wall-clock; and what scores are worth.

    python benchmarks/supernet.py --data=digits --seeds=1 [--tau=30] [--folder=runs/supernet]

Both search the same space for accuracy and latency. Every file is judged at the end: its accuracy
on the test part, which no search saw, and its latency beside all other files of its seed. The
hypervolume is that of accuracy and the logarithm of latency, against accuracy 0 and the slowest
file. The seconds are those of the search alone, from its first line to the end of a trial. Searches
are compared by CPU seconds, which tell what they cost where other jobs run beside. The trials of
the evolution are networks that were trained alone: Kendall's tau of their accuracies with the
scores that shared weights give them is reported. The evolution chose them; with --tau=N that of N
random networks is reported too, of the first seed, each trained for --alone_epochs. The best file
of shared weights (by accuracy) is compared, paired, with its network trained alone for all epochs
that the shared weights and it had. The spoken digits are series of 99 frames with 32 mel bands as
channels; four speakers train, a fifth one is validation, a sixth one the test. Each data set has a
record of its own, `supernet_DATA.json`, which holds the numbers of each seed: the same call goes
on, and a call with more seeds measures only those that are missing. What was begun of a seed is
kept in --folder, with its clocks.
"""

from __future__ import annotations

import datetime
import json
import math
import pathlib
import resource
import statistics
import time
from collections.abc import Sequence
from typing import Any

import keras
import record
from absl import app, flags
from sequence_models.spoken_digits_gru import spectrograms

import tfnas
from tfnas.measure.accuracy import correct, paired_difference
from tfnas.measure.measurement import hypervolume
from tfnas.nas.search_callbacks import Phase, TrialCallbacks
from tfnas.nas.supernet.rank_correlation import RankCorrelation
from tfnas.runtime.folder_lock import owner_of
from tfnas.runtime.json_lines import append_json_line, read_json_lines
from tfnas.runtime.randomness import seeded
from tfnas.search_space.hypermodel import compile_for_search

ROOT = pathlib.Path(__file__).resolve().parents[1]
SPOKEN = "spoken_digits"
DATA = flags.DEFINE_enum("data", "digits", ["digits", "fashion_mnist", SPOKEN], "data set")
TASKS = flags.DEFINE_string(
    "tasks", str(ROOT.parent / "shared/data/tasks"), "folder of the spoken digits"
)
IMAGES = flags.DEFINE_integer("images", 10_000, "training images, at most", 1)
SEEDS = flags.DEFINE_integer("seeds", 3, "number of searches of each kind", 1)
SEED = flags.DEFINE_integer("seed", 0, "seed of the first ones", 0)
TAU = flags.DEFINE_integer("tau", 0, "networks trained alone, of the first seed; 0: none", 0)
ALONE = flags.DEFINE_integer("alone_epochs", 20, "epochs of a network trained alone", 1)
PRESET = flags.DEFINE_string("preset", "microcontroller", "preset of the space")
TRIALS = flags.DEFINE_integer("trials", 40, "trials of the evolution", 1)
EPOCHS = flags.DEFINE_integer("epochs", 8, "epochs of a trial of the evolution", 1)
FINALISTS = flags.DEFINE_integer("finalists", 8, "trials of the shared weights", 1)
TUNING = flags.DEFINE_integer("tuning_epochs", 4, "epochs of a finalist", 1)
SHARED = flags.DEFINE_integer("supernet_epochs", 40, "epochs of the shared weights", 1)
RATE = flags.DEFINE_float("learning_rate", 0.01, "of the shared weights, as in SupernetConfig", 0)
EVALUATIONS = flags.DEFINE_integer("evaluations", 1000, "networks that are scored", 1)
BATCH = flags.DEFINE_integer("batch_size", 64, "examples a training step", 1)
FOLDER = flags.DEFINE_string("folder", "runs/benchmark_supernet", "what is kept of the runs")
OF_TRIALS = "tau of the trials"
OBJECTIVES = ["file_accuracy", "latency_ratio"]
SETTINGS = (
    IMAGES,
    ALONE,
    PRESET,
    TRIALS,
    EPOCHS,
    FINALISTS,
    TUNING,
    SHARED,
    RATE,
    EVALUATIONS,
    BATCH,
)
Run = dict[str, Any]  # of a seed: row, paired, points, hypervolumes, tau, date, commit
Point = dict[str, float]  # seconds, CPU seconds, accuracy, latency


class Clock(TrialCallbacks):
    """Writes the seconds at the end of each trial; a search that goes on continues its clock."""

    def __init__(self, path: pathlib.Path) -> None:
        self.path = path
        lines = read_json_lines(path)
        self.begin = time.monotonic() - (lines[-1]["seconds"] if lines else 0.0)
        self.begin_cpu = spent() - (lines[-1]["cpu"] if lines else 0.0)

    def phase_progressed(self, phase: Phase) -> None:
        """Prints what the search does, about ten times a phase."""
        if phase.done % max(1, phase.total // 10) == 0:
            print(f"{phase.text}: {phase.done} of {phase.total}", flush=True)

    def trial_ended(self, trial: Any) -> None:
        """Writes a line."""
        seconds, cpu = time.monotonic() - self.begin, spent() - self.begin_cpu
        line = {"trial": trial.trial_id, "seconds": seconds, "cpu": cpu}
        append_json_line(self.path, line)
        print(f"{self.path.stem}, trial {trial.trial_id}: {seconds:.0f} s", flush=True)

    def times(self) -> dict[str, dict[str, float]]:
        """Returns the seconds of the wall-clock and of the processor by trial."""
        return {line["trial"]: line for line in read_json_lines(self.path)}


def spent() -> float:
    """CPU time of this process, and of what it had started and has ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def loaded() -> Any:
    """Returns the data set in its parts."""
    if DATA.value != SPOKEN:
        return tfnas.data.load(DATA.value).limited(IMAGES.value)
    parts = [each for part in spectrograms(TASKS.value) for each in part]
    return tfnas.data.DataSplit(SPOKEN, *parts, tuple("0123456789")).limited(IMAGES.value)


def space_of(split: Any) -> tfnas.MobileNetV2Space:
    """Returns the space of both searches."""
    return tfnas.MobileNetV2Space(split.input_shape, split.num_classes, PRESET.value)


def optimizer(examples: int, epochs: int) -> keras.optimizers.Optimizer:
    """Returns Adam, whose rate decays along a cosine."""
    steps = epochs * -(-examples // BATCH.value)
    return keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(3e-3, steps))


def sharing() -> tfnas.SupernetConfig:
    """Returns the settings of the shared weights."""
    return tfnas.SupernetConfig(
        epochs=SHARED.value, learning_rate=RATE.value, evaluations=EVALUATIONS.value
    )


def searched(kind: str, split: Any, seed: int) -> tuple[Any, dict[str, dict[str, float]]]:
    """Runs a search, or goes on; returns its tuner, and the times by trial."""
    folder = pathlib.Path(FOLDER.value) / DATA.value
    folder.mkdir(parents=True, exist_ok=True)
    epochs = TUNING.value if kind == "supernet" else EPOCHS.value
    hypermodel = space_of(split).hypermodel(optimizer=optimizer(len(split.x_train), epochs))
    common = {
        "objective": OBJECTIVES,
        "seed": seed,
        "directory": folder,
        "project_name": f"{kind}_{seed}",
    }
    clock = Clock(folder / f"{kind}_{seed}.jsonl")
    if kind == "supernet":
        tuner = tfnas.SupernetTuner(
            hypermodel, max_trials=FINALISTS.value, supernet=sharing(), **common
        )
    else:
        tuner = tfnas.EvolutionTuner(hypermodel, max_trials=TRIALS.value, **common)
    tuner.trial_callbacks = clock
    tuner.search(**fit_arguments(split, epochs))
    return tuner, clock.times()


def fit_arguments(split: Any, epochs: int) -> dict[str, Any]:
    """Returns the arguments of a search."""
    return {
        "x": split.x_train,
        "y": split.y_train,
        "validation_data": (split.x_val, split.y_val),
        "epochs": epochs,
        "batch_size": BATCH.value,
        "verbose": 0,
    }


def judged(tuners: dict[str, Any], clocks: dict[str, Any], split: Any) -> dict[str, list[Point]]:
    """Returns the points of each search, all files measured side by side on the test part."""
    candidates = [(kind, c) for kind, tuner in tuners.items() for c in tuner.candidates()]
    files = [candidate.artifact() for _, candidate in candidates]
    found: dict[str, list[Point]] = {kind: [] for kind in tuners}
    for (kind, candidate), file, latency in zip(
        candidates, files, tfnas.benchmark(files), strict=True
    ):
        accuracy = tfnas.evaluate(file, split.x_test, split.y_test).value
        times = clocks[kind][candidate.trial_id]
        point = {"seconds": times["seconds"], "cpu": times["cpu"], "accuracy": accuracy}
        point["latency"] = latency.ratio
        found[kind].append(point)
    return {kind: sorted(points, key=lambda p: p["seconds"]) for kind, points in found.items()}


def volumes(points: dict[str, list[Point]]) -> dict[str, list[tuple[float, float]]]:
    """Returns (CPU seconds, hypervolume) after each trial of each search."""
    slowest = max(math.log(p["latency"]) for row in points.values() for p in row)
    corner, directions = [0.0, slowest + 1e-9], ["max", "min"]
    found = {}
    for kind, row in points.items():
        rows = [[p["accuracy"], math.log(p["latency"])] for p in row]
        found[kind] = [
            (p["cpu"], hypervolume(rows[: n + 1], corner, directions)) for n, p in enumerate(row)
        ]
    return found


def row_of(
    seed: int, points: dict[str, list[Point]], found: dict[str, list[tuple[float, float]]]
) -> dict[str, Any]:
    """Returns a row of the table: when the evolution had what the shared weights found."""
    clock = {kind: round(row[-1]["seconds"]) for kind, row in points.items()}
    seconds, volume = found["supernet"][-1]
    reached = [s for s, v in found["evolution"] if v >= volume]
    end, last = found["evolution"][-1]
    times = reached[0] / seconds if reached else end / seconds
    return {
        "seed": seed,
        "supernet CPU s": round(seconds),
        "supernet s": clock["supernet"],
        "supernet hypervolume": round(volume, 3),
        "evolution CPU s": round(end),
        "evolution s": clock["evolution"],
        "evolution hypervolume": round(last, 3),
        "evolution had the supernet's after CPU s": round(reached[0]) if reached else "never",
        "times the supernet's CPU s": f"{'' if reached else '> '}{times:.2f}",
        "hypervolume of evolution in the supernet's CPU time": round(
            max((v for s, v in found["evolution"] if s <= seconds), default=0.0), 3
        ),
    }


def trained_alone(arch: Any, split: Any, seed: int) -> tfnas.Artifact:
    """Returns the file of a network that is trained alone for all epochs of the finalist."""
    epochs = SHARED.value + TUNING.value
    path = pathlib.Path(FOLDER.value) / DATA.value / f"alone_{seed}_{arch.key}_{epochs}.tflite"
    if not path.exists():
        with seeded(seed):
            model = compile_for_search(
                space_of(split).build(arch), optimizer=optimizer(len(split.x_train), epochs)
            )
            options = {"batch_size": BATCH.value, "epochs": epochs, "verbose": 0}
            model.fit(split.x_train, split.y_train, **options)
        tfnas.to_tflite(model, "int8", tfnas.data.spread(split.x_train, 256)).save(path)
    return tfnas.Artifact.load(path)


def paired(tuner: Any, split: Any, seed: int) -> dict[str, Any]:
    """Returns a row: the most accurate finalist against its network trained alone."""
    best = max(tuner.candidates(), key=lambda c: c.metrics["file_accuracy"])
    files = best.artifact(), trained_alone(best.architecture, split, seed)
    right = [correct(split.y_test, file.predict(split.x_test)) for file in files]
    value, low, high = (100 * each for each in paired_difference(*right))
    return {
        "seed": seed,
        "network": str(best.architecture),
        "finalist": f"{right[0].mean():.4f}",
        "alone": f"{right[1].mean():.4f}",
        "points": f"{value:+.2f} [{low:+.2f}, {high:+.2f}]",
    }


def main(_: Sequence[str]) -> None:
    """Measures the seeds that are missing, and writes the record."""
    runs, split = kept(), loaded()
    for seed in range(SEED.value, SEED.value + SEEDS.value):
        if str(seed) not in runs:
            runs[str(seed)] = measured(split, seed)
            write(split, runs)
    first = runs[str(SEED.value)]
    if TAU.value and first.get("tau", {}).get("networks") != TAU.value:
        found = ranks(split, SEED.value, fit_arguments(split, ALONE.value))
        first["tau"] = {"networks": TAU.value, "text": str(found)}
    write(split, runs)


def name_of_record() -> str:
    """Returns the name of the data set's record."""
    return str(record.RESULT.value or f"supernet_{DATA.value}")


def settings() -> dict[str, Any]:
    """Returns the flags that numbers depend on."""
    return {flag.name: flag.value for flag in SETTINGS}


def kept() -> dict[str, Run]:
    """Returns what the record holds, by seed.

    Raises:
        ValueError: It was measured with other flags.
    """
    found = record.kept(name_of_record())
    if not found:
        return {}
    if found["settings"] != settings():
        raise ValueError(
            f"{name_of_record()}.json must hold runs with {settings()}, got {found['settings']}: "
            "--result=NAME keeps others"
        )
    return dict(found["runs"])


def measured(split: Any, seed: int) -> Run:
    """Runs both searches of a seed, or goes on; returns its numbers."""
    tuners, clocks = {}, {}
    for kind in ("supernet", "evolution"):
        tuners[kind], clocks[kind] = searched(kind, split, seed)
    points = judged(tuners, clocks, split)
    found = volumes(points)
    commit = record.commit_of(pathlib.Path(__file__).parent)
    return {
        "date": datetime.date.today().isoformat(),
        "commit": commit,
        "row": row_of(seed, points, found),
        "paired": paired(tuners["supernet"], split, seed),
        OF_TRIALS: str(trial_ranks(tuners, split)),
        "points": points,
        "hypervolumes": found,
    }


def trial_ranks(tuners: dict[str, Any], split: Any) -> RankCorrelation:
    """Returns Kendall's tau of the evolution's trials with their scores by shared weights."""
    tuner = tuners["supernet"]
    with owner_of(tuner.folder()):
        sharing = tuner.shared_weights((), fit_arguments(split, TUNING.value))
        trials = tuners["evolution"].candidates()
        scores = [sharing.scores.accuracy(trial.architecture) for trial in trials]
    return RankCorrelation.of(scores, [trial.metrics["file_accuracy"] for trial in trials])


def write(split: Any, runs: dict[str, Run]) -> None:
    """Prints and writes the record."""
    runs = {seed: runs[seed] for seed in sorted(runs, key=int)}
    names = {"Hypervolume": "row", "Paired differences": "paired"}
    tables = {title: [run[name] for run in runs.values()] for title, name in names.items()}
    print(json.dumps(tables), flush=True)
    notes = [
        f"{DATA.value}: {len(split.x_train):,} training, {len(split.x_val):,} validation and "
        f"{len(split.x_test):,} test {split.noun}, {len(runs)} seeds."
    ]
    notes += [
        f"Seed {seed}: {run['tau']['text']}, trained alone for {ALONE.value} epochs."
        for seed, run in runs.items()
        if "tau" in run
    ]
    notes += [
        f"Seed {seed}, scores and accuracies of the evolution's trials: {run[OF_TRIALS]}."
        for seed, run in runs.items()
    ]
    times = [row["supernet CPU s"] for row in tables["Hypervolume"]]
    notes.append(f"A search by shared weights: {statistics.median(times):.0f} CPU s (median).")
    notes.append(record.load_note())
    record.write(
        "supernet",
        tables,
        seed=min(map(int, runs)),
        notes=notes,
        result=name_of_record(),
        settings=settings(),
        runs=runs,
    )


def ranks(split: Any, seed: int, fit: dict[str, Any]) -> Any:
    """Returns Kendall's tau; the networks' rate decays over their own epochs."""
    tuner = tfnas.SupernetTuner(
        space_of(split).hypermodel(optimizer=optimizer(len(split.x_train), ALONE.value)),
        objective=OBJECTIVES,
        max_trials=FINALISTS.value,
        seed=seed,
        supernet=sharing(),
        directory=pathlib.Path(FOLDER.value) / DATA.value,
        project_name=f"supernet_{seed}",
    )
    return tuner.rank_correlation(TAU.value, **fit)


if __name__ == "__main__":
    app.run(main)
