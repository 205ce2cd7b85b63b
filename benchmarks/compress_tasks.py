"""One call on each problem of `benchmarks/tasks`: half the bytes of the int8 file, a stated loss.

    python benchmarks/compress_tasks.py --task=trec [--way=command] [--effort=quick] [--data=FOLDER]

The problem's model is trained where `--models` has no file of it. `tfnas.compress`, or with
`--way=command` the command `tfnas compress` in a process of its own, then takes the model, its data
and its metric, as a user would pass them, and looks for a file of at most half the bytes of the
model's int8 file that loses at most what the problem states. Prints the quality of
the original's file and of all files found on the test part, which nothing was chosen by, with
bytes and time; whether the budget is kept, and how long the call took. Run it with
`--result=compress_tasks_NAME` to keep each problem's record.
"""

from __future__ import annotations

import pathlib
import sys
import time
from types import ModuleType
from typing import Any

import command_run
import keras
import numpy as np
import record
import tensorflow as tf
from absl import app, flags, logging
from tasks import NAMES, boxes, problem
from tasks.trained import arrays_of, by_output, quality_of, trained
from tasks.training import calibration_inputs

import tfnas
from tfnas.cli.console import PlainProgress
from tfnas.compression.results.compress_result import remarks
from tfnas.table import table
from tfnas.tasks.compiled_task import CompiledTask
from tfnas.tasks.metrics import mean_average_precision

ROOT = pathlib.Path(__file__).resolve().parents[1]
TASK = flags.DEFINE_enum("task", None, NAMES, "the problem", required=True)
EFFORT = flags.DEFINE_string("effort", "normal", "quick, normal or thorough")
DATA = flags.DEFINE_string("data", str(ROOT.parent / "shared/data/tasks"), "folder of the data")
MODELS = flags.DEFINE_string("models", "runs/tasks", "folder of the trained models")
DIRECTORY = flags.DEFINE_string("directory", "runs/compress_tasks", "folder of the jobs")
SHARE = flags.DEFINE_float("share", 0.5, "share of the int8 file's bytes")
SEED = flags.DEFINE_integer("seed", 0, "seed of the job")
WAY = flags.DEFINE_enum("way", "python", ("python", "command"), "how `compress` is called")


def main(argv: list[str]) -> None:
    logging.set_verbosity(logging.WARNING)
    tf.config.threading.set_intra_op_parallelism_threads(1)
    name, module = TASK.value, problem(TASK.value)
    parts = module.data(DATA.value)
    model = trained(name, parts, MODELS.value)
    value = quality_of(module, model, parts[2])
    print(f"{name}: {module.METRIC} {value:.4f}, {model.count_params():,} parameters", flush=True)
    int8 = tfnas.to_tflite(model, "int8", calibration_inputs(parts[0]))
    budget = {"max_bytes": int(SHARE.value * int8.size), **module.LIMIT}
    folder = pathlib.Path(f"{DIRECTORY.value}/{name}_{EFFORT.value}")
    if WAY.value == "command":
        found = by_command(name, module, parts, budget, folder, int8.size)
    else:
        found = by_python(module, model, parts, budget, folder, int8.size)
    headers, cells, said, remarked, minutes = found
    print("\n$ python", " ".join(sys.argv))
    print(table(headers, cells))
    limits = ", ".join(f"{key} {limit:,}" for key, limit in budget.items())
    notes = [
        f"{name}: {module.METRIC} of the Keras model on the whole test part: {value:.4f}; its int8 "
        f"file has {int8.size:,} bytes.",
        f"Budget: {limits}; {said}.",
        *remarked,
        f"`compress`, effort {EFFORT.value}, took {minutes:.1f} minutes, called "
        f"{'by the command' if WAY.value == 'command' else 'from Python'}.",
    ]
    print(*notes, sep="\n")
    tables = {name: record.table_rows(headers, cells)}
    record.write("compress_tasks", tables, seed=SEED.value, notes=notes, way=WAY.value)


# Headers, cells, verdict, what the final part shows otherwise, minutes.
Found = tuple[list[str], list[list[str]], str, list[str], float]


def by_python(
    module: ModuleType,
    model: keras.Model,
    parts: tuple,
    budget: dict[str, float],
    folder: pathlib.Path,
    int8_bytes: int,
) -> Found:
    """Returns the files that `tfnas.compress` finds, whether they keep the budget, and minutes."""
    train, validation, test = parts
    began = time.monotonic()
    result = tfnas.compress(
        model,
        train,
        budget,
        validation_data=validation,
        test_data=test,
        **judged_by(module, model),
        effort=EFFORT.value,
        directory=folder,
        seed=SEED.value,
        progress=PlainProgress(),
    )
    minutes = (time.monotonic() - began) / 60
    print(f"\n{result}")
    remarked = [line for line in remarks(result) if line.startswith(command_run.OTHERWISE)]
    remarked += [line for line in result.plan.reasons if line.startswith("the smallest number")]
    return *file_rows(result, int8_bytes), verdict(result), remarked, minutes


def by_command(
    name: str,
    module: ModuleType,
    parts: tuple,
    budget: dict[str, float],
    folder: pathlib.Path,
    int8_bytes: int,
) -> Found:
    """Returns the same of the command `tfnas compress`, which reads the data from a file."""
    models = pathlib.Path(MODELS.value)
    np.savez(models / f"{name}.npz", **arrays_of(parts))
    options = {"data": models / f"{name}.npz", **budget, "effort": EFFORT.value}
    options |= {"directory": folder, "seed": SEED.value, **named_metric(module)}
    began = time.monotonic()
    said, remarked = command_run.run(models / f"{name}.keras", options)
    minutes = (time.monotonic() - began) / 60
    headers, cells = command_run.files_of(folder / "report.md", int8_bytes)
    return headers, cells, said, remarked, minutes


class Boxes(CompiledTask):
    """The detector's task: its outputs are decoded to boxes before they are judged."""

    def postprocess(self, outputs: Any) -> np.ndarray:
        """Returns the boxes of each image; of a Keras model and of its file alike."""
        return boxes.decode(by_output(problem("blood_cells"), outputs))


def judged_by(module: ModuleType, model: keras.Model | None) -> dict[str, Any]:
    """Returns the arguments `task` or `metric`, as a user passes them.

    None are needed where the model was compiled with the metric.

    Args:
        module: The problem.
        model: Its model; None: only the metric is asked for.
    """
    if module.METRIC == "map50":
        return {"task": Boxes.of(model, metric=mean_average_precision(0.5))}
    if hasattr(module, "OUTPUT"):  # the first output decides
        others = [name for name in module.OUTPUTS if name != module.OUTPUT]
        return {"metric": dict.fromkeys((module.OUTPUT, *others), module.METRIC)}
    return {"metric": module.METRIC} if module.METRIC in ("mse", "AUC") else {}


def named_metric(module: ModuleType) -> dict[str, str]:
    """Returns the flag `--metric` of a problem; none where its model was compiled with the metric.

    Args:
        module: The problem.

    Raises:
        ValueError: The command can't judge the problem: its outputs are decoded to boxes first.
    """
    if module.METRIC == "map50":
        raise ValueError("way must be python for a task that decodes its outputs, got 'command'")
    metric = judged_by(module, None).get("metric")
    if isinstance(metric, dict):
        metric = ",".join(f"{output}={name}" for output, name in metric.items())
    return {} if metric is None else {"metric": metric}


def file_rows(result: Any, int8_bytes: int) -> tuple[list[str], list[list[str]]]:
    """Returns headers and cells: a row a file, the original's first, on the final examples.

    Args:
        result: A `tfnas.CompressResult`.
        int8_bytes: Size of the original's int8 file.
    """
    headers = ["file", "quality [95%]", "lost [95%]", "bytes", "of int8", "time"]
    cells = []
    for row in result.rows:
        metric = row.assessment.metric
        lost = sorted(metric.drop(each) for each in row.difference or ())
        middle = metric.drop(row.difference[0]) if row.difference else 0.0
        ratio, low, high = result.time_ratio(row)
        cells.append(
            [
                f"{row.label} (best)" if row.label == str(result.best.recipe) else row.label,
                str(row.score),
                f"{metric.text(middle)} [{lost[0]:.4g}, {lost[-1]:.4g}]" if lost else "",
                f"{row.file.size:,}",
                f"{row.file.size / int8_bytes:.3f}",
                f"{ratio:.3f}x [{low:.3f}, {high:.3f}]",
            ]
        )
    return headers, cells


def verdict(result: Any) -> str:
    """Returns whether the budget is kept on the examples for choosing, or what exceeds it."""
    if result.meets:
        return f"kept by {result.best.recipe}"
    over = ", ".join(f"{name} by {value:.3g}" for name, value in result.excesses.items())
    return f"not kept; {result.best.recipe}, the nearest, exceeds {over}"


if __name__ == "__main__":
    app.run(main)
