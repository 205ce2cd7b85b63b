"""Trains the models of the eight problems once, and keeps their files.

    python -m benchmarks.tasks.train --data=FOLDER [--task=trec] [--models=runs/tasks] [--arrays]

Prints the quality of each on its test part. A model whose file exists is not trained again. With
`--arrays` the data are written beside each model, as NAME.npz, for the command `tfnas compress`.
"""

from __future__ import annotations

import pathlib

import numpy as np
import tensorflow as tf
from absl import app, flags

from . import NAMES, problem
from .trained import arrays_of, quality_of, trained

ROOT = pathlib.Path(__file__).resolve().parents[2]
DATA = flags.DEFINE_string("data", str(ROOT.parent / "shared/data/tasks"), "folder of the data")
MODELS = flags.DEFINE_string("models", "runs/tasks", "folder of the trained models")
TASK = flags.DEFINE_list("task", list(NAMES), "the problems")
EPOCHS = flags.DEFINE_integer("epochs", None, "epochs; none: the problem's own")
ARRAYS = flags.DEFINE_bool("arrays", False, "write the data as .npz files")
SEED = flags.DEFINE_integer("seed", 0, "seed of weights and of orders")


def main(argv: list[str]) -> None:
    tf.config.threading.set_intra_op_parallelism_threads(1)
    for name in TASK.value:
        module = problem(name)
        parts = module.data(DATA.value)
        model = trained(name, parts, MODELS.value, EPOCHS.value, SEED.value)
        value = quality_of(module, model, parts[2])
        if ARRAYS.value:
            np.savez(pathlib.Path(MODELS.value) / f"{name}.npz", **arrays_of(parts))
        print(f"{name}: {module.METRIC} {value:.4f}, {model.count_params():,} parameters")


if __name__ == "__main__":
    app.run(main)
