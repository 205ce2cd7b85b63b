"""The loss and the metrics of each epoch of the trainings of a job, in one file of its folder.

The file is replaced whole after each epoch. A training that goes on after a kill continues its
curve: what was written of epochs that are trained again is dropped.
"""

from __future__ import annotations

import math
import pathlib
from collections.abc import Mapping
from typing import Any

import keras

from tfnas.runtime.store import Record, damage_named

FILE = "training_curves.json"
FORMAT = 1
Curves = Mapping[str, Mapping[str, list[float | None]]]  # training -> name -> a value an epoch


class TrainingCurves:
    """The curves of a job.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     curves = TrainingCurves(f"{folder}/training_curves.json")
        ...     curves.add("prune", 0, {"loss": 0.5})
        ...     curves.add("prune", 1, {"loss": 0.25})
        ...     TrainingCurves(curves.path).curves
        {'prune': {'loss': [0.5, 0.25]}}

    Args:
        path: The file; it need not exist.

    Raises:
        ValueError: The file holds something else.
    """

    def __init__(self, path: str | pathlib.Path) -> None:
        self.path = pathlib.Path(path)
        self.curves: dict[str, dict[str, list[float | None]]] = {}
        self._record = Record(self.path, "training curves", FORMAT)
        if self._record.exists():
            values = self._record.read()
            with damage_named(self.path, "training curves"):
                self.curves = {
                    name: {key: list(each) for key, each in curves.items()}
                    for name, curves in values["trainings"].items()
                }

    def add(self, training: str, epoch: int, logs: Mapping[str, Any]) -> None:
        """Adds an epoch to the curves of a training, and writes the file.

        Args:
            training: Name of the training.
            epoch: Number of the epoch, from 0; what is known of it and of later ones is replaced.
            logs: Name -> value at the end of the epoch, as Keras' callbacks get them.
        """
        before = self.curves.get(training, {}) if epoch else {}
        names = dict.fromkeys([*before, *logs])
        self.curves[training] = {
            name: [*_as_long(before.get(name, []), epoch), _finite(logs.get(name))]
            for name in names
        }
        self._record.write({"trainings": self.curves})

    def callback(self, training: str) -> keras.callbacks.Callback:
        """Returns the callback that adds each epoch of a training.

        Args:
            training: Name of the training.
        """
        return keras.callbacks.LambdaCallback(
            on_epoch_end=lambda epoch, logs: self.add(training, epoch, logs or {})
        )


def _as_long(values: list[float | None], epochs: int) -> list[float | None]:
    """Returns the values of the first epochs; None for those that are not known."""
    return [*values[:epochs], *[None] * (epochs - len(values))]


def _finite(value: Any) -> float | None:
    """Returns a number as JSON holds it."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None
