"""`tfnas search` and `tfnas compress`, killed again and again: the result of undisturbed commands.

    python tests/attacks/killed_commands.py FOLDER search|compress KILLS

A command that has ended before its kill counts as a round; the next kill begins another one.
Prints the counts and the faults as JSON.
"""

import hashlib
import json
import pathlib
import random
import signal
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

import process_tree  # noqa: E402
from process_limits import environment  # noqa: E402

COMMON = ["--dataset=digits", "--seed=1", "--deterministic"]
# By accuracy and bytes alone: what the planner and the sampler do must not depend on the clock.
SEARCH = [
    *("--preset=microcontroller", "--objective=file_accuracy", "--train_limit=200"),
    *("--max_trials=4", "--epochs=1", "--population_size=2", "--tournament_size=2"),
    *("--children=1", "--final_epochs=1", "--nobaseline"),
]
COMPRESS = ["--max_bytes=9500", "--epochs=1"]
COMPLETE = {
    "search": [
        *("best.keras", "best_int8.tflite", "best_float32.tflite", "config.json"),
        *("pareto.csv", "pareto.png", "results.json", "trials.jsonl", "report.md", "report.html"),
    ],
    "compress": [
        *("best.tflite", "saved_model/saved_model.pb", "model_analysis.json", "job.json"),
        *("pareto.png", "report.md", "report.html"),
    ],
}
MOST_SECONDS = 900  # of a command, on a busy machine
SMALL_MODEL = HERE / "small_model.py"


def command(kind, model, folder):
    """The arguments of a command that writes into a folder."""
    own = SEARCH if kind == "search" else [str(model), *COMPRESS]
    return [sys.executable, "-m", "tfnas", kind, *own, *COMMON, f"--directory={folder}"]


def started(kind, model, folder):
    """A command that runs; what it prints goes to a file beside its folder."""
    with open(f"{folder}.txt", "ab") as output:
        return subprocess.Popen(
            command(kind, model, folder), stdout=output, stderr=output, env=environment()
        )


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else "missing"


def trials(folder):
    """Each trial of a search: its status, values, score and file."""
    found = {}
    for path in sorted(folder.glob("search/trial_*/trial.json")):
        trial = json.loads(path.read_text())
        values = trial["hyperparameters"]["values"]
        own = digest(path.with_name("model.tflite"))
        found[path.parent.name] = [trial["status"], values, trial["score"], own]
    return found


def candidates(folder):
    """Each candidate of a compression: its costs but the latency, and its file."""
    found = {}
    for path in sorted(folder.glob("candidates/*/record.json")):
        record = json.loads(path.read_text())
        record["costs"].pop("latency")
        found[path.parent.name] = [record, digest(path.with_name("model.tflite"))]
    return found


def result(kind, folder):
    """What a command left in its folder, but for what is measured in seconds."""
    found = trials(folder) if kind == "search" else candidates(folder)
    names = [name for name in COMPLETE[kind] if name.endswith(".tflite")]
    return {**found, **{name: digest(folder / name) for name in names}}


def lacking(kind, folder):
    """What is missing in the folder of a command that has ended, or is too much."""
    found = [f"{name} is missing" for name in COMPLETE[kind] if not (folder / name).exists()]
    found += [f"{path} was left" for path in folder.rglob("*.part*")]
    if kind == "search" and not found:
        state = json.loads((folder / "results.json").read_text())
        found += ["results.json says interrupted"] * bool(state["interrupted"])
    return found


def differences(kind, folder, expected):
    """What differs from the folder of an undisturbed command."""
    found = result(kind, folder)
    faults = [f"{kind} {folder.name}: {text}" for text in lacking(kind, folder)]
    for name in sorted({*found, *expected}):
        if found.get(name) != expected.get(name):
            text = f"{name} is {found.get(name)}, not {expected.get(name)}"
            faults.append(f"{kind} {folder.name}: {text[:600]}")
    return faults


def kill(process):
    """Kills a command; returns what should have ended with it and did not."""
    below = process_tree.descendants(process.pid)
    process.send_signal(signal.SIGKILL)
    process.wait()
    return [f"process {pid} outlived its command" for pid in process_tree.outlived(below)]


def last_lines(folder):
    return pathlib.Path(f"{folder}.txt").read_text(errors="replace")[-1500:]


def attack(folder, kind, kills, seed=0):
    """Kills a command at random moments, and compares its result with an undisturbed one's.

    Args:
        folder: An empty folder.
        kind: "search" or "compress".
        kills: How often it is killed.
        seed: Seed of the moments, as fractions of the time that the undisturbed command took.

    Returns:
        Counts by name, and the faults.
    """
    folder, rng = pathlib.Path(folder), random.Random(seed)
    folder.mkdir(parents=True, exist_ok=True)
    model = folder / "model.keras"
    if kind == "compress":
        program = [sys.executable, str(SMALL_MODEL), str(model)]
        subprocess.run(program, check=True, env=environment(), stderr=subprocess.DEVNULL)
    begin = time.monotonic()
    undisturbed = started(kind, model, folder / "entire")
    if undisturbed.wait(MOST_SECONDS):
        raise RuntimeError(last_lines(folder / "entire"))
    seconds = time.monotonic() - begin
    expected = result(kind, folder / "entire")
    faults = differences(kind, folder / "entire", expected)
    done, rounds = 0, 0
    while done < kills:
        rounds += 1
        place = folder / f"killed_{rounds}"
        while True:
            process = started(kind, model, place)
            try:  # the last round of all is not disturbed again
                process.wait(rng.uniform(0.05, 0.5) * seconds if done < kills else MOST_SECONDS)
                break
            except subprocess.TimeoutExpired:
                faults += kill(process)
                done += 1
        if process.returncode:
            text = last_lines(place)
            faults.append(f"{kind} {place.name} ended with {process.returncode}: {text}")
        faults += differences(kind, place, expected)
    return {"kills": done, f"times {kind}": rounds}, faults


if __name__ == "__main__":
    print(json.dumps(attack(sys.argv[1], sys.argv[2], int(sys.argv[3]))))
