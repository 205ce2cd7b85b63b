"""The trained models of the problems, each kept in a file, and their quality."""

from __future__ import annotations

import pathlib
import time
from types import ModuleType
from typing import Any

import keras
import numpy as np
import tensorflow as tf

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


def arrays_of(parts: tuple) -> dict[str, np.ndarray]:
    """Returns the parts as the command takes them in an `.npz` file: arrays by name and part.

    Of a dataset that is one pass over it.

    Example:
        >>> part = (np.zeros((2, 3)), {"oil": np.ones(2), "load": np.ones(2)})
        >>> list(arrays_of((part, part, part)))[:3]
        ['x_train', 'oil_train', 'load_train']

    Args:
        parts: The data of a problem.
    """
    arrays = {}
    for name, part in zip(("train", "validation", "test"), parts, strict=True):
        x, y = inputs(part), targets(part)
        weight = () if isinstance(part, tf.data.Dataset) else part[2:]
        sides = [("x", x), ("y", y), *(("sample_weight", each) for each in weight)]
        for side, values in sides:
            columns = values if isinstance(values, dict) else {side: values}
            arrays |= {f"{column}_{name}": array for column, array in columns.items()}
    return arrays
