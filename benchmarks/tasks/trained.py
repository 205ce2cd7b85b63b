"""The trained models of the problems, each kept in a file, and their quality."""

from __future__ import annotations

import pathlib
import time
from types import ModuleType
from typing import Any

import keras
import numpy as np

from . import problem
from .training import inputs, targets


def trained(
    name: str, parts: tuple, models: str | pathlib.Path, epochs: int | None = None, seed: int = 0
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
    print(f"{name}: trained in {time.monotonic() - began:.0f} s", flush=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    model.save(path)
    return model


def quality_of(module: ModuleType, model: keras.Model, test: Any) -> float:
    """Returns the quality of a Keras model on the test part.

    Args:
        module: The problem.
        model: Its model.
        test: The test part.
    """
    return module.quality(targets(test), model.predict(inputs(test), verbose=0))


def quality_of_file(module: ModuleType, file: Any, test: Any) -> float:
    """Returns the quality of a `.tflite` file on the test part.

    Args:
        module: The problem.
        file: A `tfnas.Artifact`.
        test: The test part.
    """
    return module.quality(targets(test), by_output(module, file.predict(inputs(test))))


def by_output(module: ModuleType, outputs: Any) -> np.ndarray | dict[str, np.ndarray]:
    """Returns a file's outputs as the model's: a dictionary where the problem has `OUTPUTS`.

    Args:
        module: The problem.
        outputs: One array, or a list of them in the alphabetical order of their names.
    """
    if isinstance(outputs, dict) or not hasattr(module, "OUTPUTS"):
        return outputs
    return dict(zip(sorted(module.OUTPUTS), outputs, strict=True))
