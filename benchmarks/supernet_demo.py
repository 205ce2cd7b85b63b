"""The winner of `make demo` beside the best of as many random networks as its time allows.

    python benchmarks/supernet_demo.py [--seeds=5] [--former] [--folder=runs/supernet_demo]

For each seed the command of `make demo` is run, as it stands in the Makefile, and then random
networks are trained, converted and measured as trials: the best of them by the reward on the
validation part is its rival. "As many as the time allows" are those that ended within the CPU time
of the whole demo, with its start and its comparison; the best of all --random networks stands
beside. All files of a seed are judged at the end: accuracy on the test part, which nothing was
chosen by, latency side by side, MnasNet's reward with the demo's target. Times are CPU seconds of
all processes, which tell what a search costs where other jobs run beside; those of the clock are
kept too. --former runs the demo as it was before it shared weights, for its time and reward.
What was begun is kept in --folder, and the numbers of each seed in the record: the same call goes
on, and a call with more seeds measures only those that are missing. Writes
benchmarks/results/supernet_demo.json.
"""

from __future__ import annotations

import datetime
import json
import math
import os
import pathlib
import re
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

import record
from absl import app, flags

import tfnas
from tfnas.nas.reward import mnasnet_reward

SEEDS = flags.DEFINE_integer("seeds", 5, "number of seeds", 1)
SEED = flags.DEFINE_integer("seed", 1, "the first of them", 0)
RANDOM = flags.DEFINE_integer("random", 12, "random networks of a seed", 1)
FORMER = flags.DEFINE_bool("former", False, "run the demo as it was too")
FOLDER = flags.DEFINE_string("folder", "runs/supernet_demo", "what is kept of the runs")
NAME = "supernet_demo"
RIVALS = ("best random in its time", "best of all random", "MobileNetV2 0.35", "former demo")
MAKEFILE = pathlib.Path(__file__).parents[1] / "Makefile"
BEFORE = (
    "--dataset=digits --preset=microcontroller --max_trials=12 --epochs=4 --batch_size=32 "
    "--population_size=6 --final_epochs=20 --target_latency_ratio=0.03 --random_candidates=3"
)
RANDOM_SEARCH = """
import json, resource, sys, time
begin = time.monotonic()
import tfnas
from tfnas.jobs.search_tuner import tuner_of
from tfnas.nas.search_callbacks import TrialCallbacks
from tfnas.nas.search_config import SearchConfig
from tfnas.runtime.json_lines import append_json_line
import keras, pathlib
folder, seed, trials, target = pathlib.Path(sys.argv[1]), *map(float, sys.argv[2:])
config = SearchConfig(
    "digits", preset="microcontroller", algorithm="random", max_trials=int(trials), epochs=4,
    batch_size=32, target_latency_ratio=target, seed=int(seed),
)
split = tfnas.data.load("digits")
steps = config.epochs * -(-len(split.x_train) // config.batch_size)
rate = keras.optimizers.schedules.CosineDecay(config.learning_rate, steps)
space = tfnas.MobileNetV2Space(split.input_shape, split.num_classes, config.preset)
hypermodel = space.hypermodel(optimizer=keras.optimizers.Adam(rate))
tuner = tuner_of(hypermodel, config, folder, overwrite=True)

class Clock(TrialCallbacks):
    def trial_ended(self, trial):
        used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        line = {"trial": trial.trial_id, "clock": time.monotonic() - begin}
        line["cpu"] = sum(each.ru_utime + each.ru_stime for each in used)
        append_json_line(folder / "times.jsonl", line)

tuner.trial_callbacks = Clock()
tuner.search(
    split.x_train, split.y_train, validation_data=(split.x_val, split.y_val),
    epochs=config.epochs, batch_size=config.batch_size, verbose=0,
)
rewards = {c.trial_id: [c.objective, str(c.path.relative_to(folder))] for c in tuner.candidates()}
(folder / "rewards.json").write_text(json.dumps(rewards))
"""


def demo_flags() -> list[str]:
    """Returns the flags of `make demo` but for those of the seed and the folder."""
    recipe = MAKEFILE.read_text(encoding="utf-8").split("\ndemo:")[1].split("\n\n")[0]
    found: list[str] = re.findall(r"--\S+", recipe)
    return [each for each in found if not re.match(r"--(seed|directory|overwrite)", each)]


def spent() -> float:
    """CPU time of the processes that have ended, and of what they had started."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def timed(command: Sequence[str], folder: pathlib.Path) -> dict[str, float]:
    """Runs a command that fills a folder, and returns its times; those of a whole run are kept."""
    kept = folder.with_suffix(".json")
    if not kept.exists():
        folder.mkdir(parents=True, exist_ok=True)
        cpu, clock = spent(), time.monotonic()
        environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
        subprocess.run(command, check=True, env=environment)
        times = {"clock": time.monotonic() - clock, "cpu": spent() - cpu}
        kept.write_text(json.dumps(times))
    found: dict[str, float] = json.loads(kept.read_text())
    return found


def searched(options: Sequence[str], folder: pathlib.Path, seed: int) -> dict[str, float]:
    """Runs `tfnas search`, and returns its times."""
    more = [f"--seed={seed}", f"--directory={folder}", "--overwrite"]
    return timed([sys.executable, "-m", "tfnas", "search", *options, *more], folder)


def best_random(folder: pathlib.Path, seconds: float) -> tuple[int, pathlib.Path | None]:
    """Returns how many random networks ended in so many CPU seconds, and the best one's file."""
    rewards = json.loads((folder / "rewards.json").read_text())
    lines = (folder / "times.jsonl").read_text().splitlines()
    times = {line["trial"]: line["cpu"] for line in map(json.loads, lines)}
    within = [trial for trial in rewards if times[trial] <= seconds]
    best = max(within, key=lambda trial: rewards[trial][0], default=None)
    return len(within), None if best is None else folder / rewards[best][1]


def judged(files: Mapping[str, pathlib.Path], target: float) -> dict[str, dict[str, float]]:
    """Returns accuracy, latency and reward of each file, all measured side by side."""
    split = tfnas.data.load("digits")
    artifacts = {name: tfnas.Artifact.load(path) for name, path in files.items()}
    found = {}
    latencies = tfnas.benchmark(list(artifacts.values()))
    for (name, file), latency in zip(artifacts.items(), latencies, strict=True):
        accuracy = tfnas.evaluate(file, split.x_test, split.y_test).value
        reward = mnasnet_reward(accuracy, latency.ratio, target)
        found[name] = {"accuracy": accuracy, "latency": latency.ratio, "reward": reward}
    return found


def run_seed(seed: int, target: float) -> tuple[dict[str, Any], dict[str, Any]]:
    """Runs what is missing of a seed; returns its row, and what is behind it."""
    folder = pathlib.Path(FOLDER.value)
    demo, randoms = folder / f"demo_{seed}", folder / f"random_{seed}"
    times = searched(demo_flags(), demo, seed)
    program = [sys.executable, "-W", "ignore", "-c", RANDOM_SEARCH, str(randoms)]
    timed([*program, *map(str, (seed, RANDOM.value, target))], randoms)
    number, rival = best_random(randoms, times["cpu"])
    _, best = best_random(randoms, math.inf)
    files = {"demo": demo / "best_int8.tflite", "best of all random": best}
    if rival is not None:
        files["best random in its time"] = rival
    before: dict[str, float] = {}
    if FORMER.value:
        before = searched(BEFORE.split(), folder / f"former_{seed}", seed)
        files["former demo"] = folder / f"former_{seed}" / "best_int8.tflite"
    points = judged({name: path for name, path in files.items() if path is not None}, target)
    [baseline] = [
        row
        for row in json.loads((demo / "results.json").read_text())["test"]
        if row["label"].startswith("MobileNetV2")
    ] or [None]
    row = {"seed": seed, "CPU s": round(times["cpu"]), "random networks in its time": number}
    row |= {f"reward, {name}": round(point["reward"], 4) for name, point in points.items()}
    row["reward, MobileNetV2 0.35"] = "" if baseline is None else round(baseline["reward"], 4)
    row["latency / target"] = round(points["demo"]["latency"] / target, 2)
    row["former CPU s"] = round(before["cpu"]) if before else ""
    return row, {"times": times, "points": points, "former": before}


def spread(differences: Sequence[float]) -> str:
    """Returns the mean of paired differences with its 95% interval (Student's t)."""
    from scipy.stats import t

    mean, count = statistics.mean(differences), len(differences)
    half = t.ppf(0.975, count - 1) * statistics.stdev(differences) / math.sqrt(count)
    return f"{mean:+.4f} [{mean - half:+.4f}, {mean + half:+.4f}]"


def notes_of(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Returns sentences on all seeds."""
    notes = []
    for rival in RIVALS:
        pairs = [(row["reward, demo"], row.get(f"reward, {rival}", "")) for row in rows]
        rewards = [(ours, other) for ours, other in pairs if other != ""]
        if len(rewards) > 1:
            found = spread([ours - other for ours, other in rewards])
            won = sum(ours > other for ours, other in rewards)
            notes.append(
                f"Reward of the demo less that of {rival}: {found}, paired by seed (95%); "
                f"ahead in {won} of {len(rewards)}."
            )
    ratios = [row["CPU s"] / row["former CPU s"] for row in rows if row["former CPU s"]]
    if ratios:
        notes.append(
            f"CPU time of the demo over that of the former one: {statistics.median(ratios):.2f} "
            f"(median of {len(ratios)})."
        )
    within = sum(row["latency / target"] <= 1 for row in rows)
    notes.append(f"Measured again, {within} of {len(rows)} winners keep the target latency.")
    return notes


def kept() -> dict[str, dict[str, Any]]:
    """Returns what the record holds, by seed: the row, and what is behind it."""
    found = record.kept(record.RESULT.value or NAME)
    if not found:
        return {}
    where = {"date": found["date"], "commit": found["commit"], "cpu": found["provenance"]["cpu"]}
    rows = {str(row["seed"]): row for row in found["tables"][""]}
    return {seed: {**where, "row": rows[seed], **run} for seed, run in found["runs"].items()}


def main(_: Sequence[str]) -> None:
    """Runs what is missing, prints and writes the table."""
    from tfnas.measure.latency import provenance

    target = float(re.findall(r"--target_latency_ratio=(\S+)", " ".join(demo_flags()))[0])
    runs = kept()
    for seed in map(str, range(SEED.value, SEED.value + SEEDS.value)):
        if seed not in runs:
            row, behind = run_seed(int(seed), target)
            made = datetime.date.today().isoformat()
            commit = record.commit_of(pathlib.Path(__file__).parent)
            where = {"date": made, "commit": commit, "cpu": provenance()["cpu"]}
            runs[seed] = {**where, "row": row, **behind}
            write(runs)
    write(runs)


def processors(runs: dict[str, dict[str, Any]]) -> list[str]:
    """Returns a sentence on each processor, if seeds ran on several."""
    found: dict[str, list[str]] = {}
    for seed, run in runs.items():
        found.setdefault(run["cpu"], []).append(seed)
    if len(found) == 1:
        return []
    return [f"On {cpu}: seeds {', '.join(seeds)}." for cpu, seeds in found.items()]


def write(runs: dict[str, dict[str, Any]]) -> None:
    """Prints and writes the record."""
    runs = {seed: runs[seed] for seed in sorted(runs, key=int)}
    columns = list(dict.fromkeys(name for run in runs.values() for name in run["row"]))
    rows = [{name: run["row"].get(name, "") for name in columns} for run in runs.values()]
    notes = notes_of(rows) if len(rows) > 1 else []
    notes += processors(runs)
    notes.append(record.load_note())
    print("\n".join([*map(json.dumps, rows), *notes]), flush=True)
    seed = min(map(int, runs))
    command = f"python benchmarks/supernet_demo.py --seeds={len(runs)}"
    record.write("supernet_demo", rows, seed=seed, notes=notes, command=command, runs=runs)


if __name__ == "__main__":
    app.run(main)
