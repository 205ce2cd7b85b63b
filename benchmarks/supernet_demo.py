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
Everything is kept in --folder: the same call goes on. Writes
benchmarks/results/supernet_demo.json.
"""

from __future__ import annotations

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

SEEDS = flags.DEFINE_integer("seeds", 5, "number of seeds", 2)
SEED = flags.DEFINE_integer("seed", 1, "the first of them", 0)
RANDOM = flags.DEFINE_integer("random", 12, "random networks of a seed", 1)
FORMER = flags.DEFINE_bool("former", False, "run the demo as it was too")
FOLDER = flags.DEFINE_string("folder", "runs/supernet_demo", "what is kept of the runs")
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


def notes_of(behind: Mapping[str, Any]) -> list[str]:
    """Returns sentences on all seeds."""
    notes = []
    for rival in ("best random in its time", "best of all random", "former demo"):
        rewards = [
            (run["points"]["demo"]["reward"], run["points"][rival]["reward"])
            for run in behind.values()
            if rival in run["points"]
        ]
        if len(rewards) > 1:
            found = spread([ours - other for ours, other in rewards])
            won = sum(ours > other for ours, other in rewards)
            notes.append(
                f"Reward of the demo less that of the {rival}: {found}, paired by seed (95%); "
                f"ahead in {won} of {len(rewards)}."
            )
    ratios = [r["times"]["cpu"] / r["former"]["cpu"] for r in behind.values() if r["former"]]
    if ratios:
        notes.append(
            f"CPU time of the demo over that of the former one: {statistics.median(ratios):.2f} "
            f"(median of {len(ratios)})."
        )
    return notes


def main(_: Sequence[str]) -> None:
    """Runs what is missing, prints and writes the table."""
    target = float(re.findall(r"--target_latency_ratio=(\S+)", " ".join(demo_flags()))[0])
    rows, behind = [], {}
    for seed in range(SEED.value, SEED.value + SEEDS.value):
        row, behind[str(seed)] = run_seed(seed, target)
        rows.append(row)
        print(json.dumps(row), flush=True)
    notes = notes_of(behind)
    print("\n".join(notes))
    record.write("supernet_demo", rows, seed=SEED.value, notes=notes, runs=behind)


if __name__ == "__main__":
    app.run(main)
