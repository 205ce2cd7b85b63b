"""Trains the models of the eight problems once, and keeps their files.

    python -m benchmarks.tasks.train --data=FOLDER [--task=trec] [--models=runs/tasks]

Prints the quality of each on its test part. A model whose file exists is not trained again.
"""

from __future__ import annotations

import pathlib
import sys
import time
from types import ModuleType
from typing import Any

import keras
import tensorflow as tf
from absl import app, flags

from . import NAMES, problem
from .training import inputs, targets

ROOT = pathlib.Path(__file__).resolve().parents[2]
DATA = flags.DEFINE_string("data", str(ROOT.parent / "shared/data/tasks"), "folder of the data")
MODELS = flags.DEFINE_string("models", "runs/tasks", "folder of the trained models")
TASK = flags.DEFINE_list("task", list(NAMES), "the problems")
EPOCHS = flags.DEFINE_integer("epochs", None, "epochs; none: the problem's own")
SEED = flags.DEFINE_integer("seed", 0, "seed of weights and of orders")


def main(argv: list[str]) -> None:
    tf.config.threading.set_intra_op_parallelism_threads(1)
    for name in TASK.value:
        module = problem(name)
        parts = module.data(DATA.value)
        model = trained(name, parts, MODELS.value, EPOCHS.value, SEED.value)
        value = quality_of(module, model, parts[2])
        print(f"{name}: {module.METRIC} {value:.4f}, {model.count_params():,} parameters")


def trained(
    name: str,
    parts: tuple,
    models: str | pathlib.Path,
    epochs: int | None = None,
    seed: int = 0,
) -> keras.Model:
    """Returns a problem's trained model, from its file where there is one.

    Args:
        name: The problem's name.
        parts: Its data.
        models: Folder of the files.
        epochs: Epochs of a training; None: the problem's own.
        seed: Seed of weights and of orders.
    """
    module, path = problem(name), pathlib.Path(models) / f"{name}.keras"
    if path.exists():
        return keras.saving.load_model(path)
    keras.utils.set_random_seed(seed)
    model = module.model()
    began = time.monotonic()
    module.train(model, parts, epochs or module.EPOCHS)
    print(f"{name}: trained in {time.monotonic() - began:.0f} s", file=sys.stderr)
    path.parent.mkdir(parents=True, exist_ok=True)
    model.save(path)
    return model


def quality_of(module: ModuleType, model: Any, test: Any) -> float:
    """Returns the quality of a model on the test part.

    Args:
        module: The problem.
        model: What has `predict`: a Keras model or a file.
        test: The test part.
    """
    options = {"verbose": 0} if isinstance(model, keras.Model) else {}
    return module.quality(targets(test), model.predict(inputs(test), **options))


if __name__ == "__main__":
    app.run(main)
