"""The state of a training in one file, so that a training that was killed goes on.

The file is replaced whole after each epoch: a kill at any moment leaves the state of the epoch
before. It holds the model's variables, those of the optimizer, and what callbacks keep beside the
model: a training that goes on has the weights of one that was never stopped.
"""

from __future__ import annotations

import pathlib
from collections.abc import Iterable, Sequence
from typing import Any, Protocol, runtime_checkable

import keras
import numpy as np

from tfnas.runtime.array_files import write_arrays

FORMAT = 1


@runtime_checkable
class Resumable(Protocol):
    """A callback with a state beside the model's."""

    def training_state(self) -> list[np.ndarray]:
        """Returns the state at the end of an epoch."""

    def restore_training_state(self, state: Sequence[np.ndarray]) -> None:
        """Takes a state up, after the callback's own `on_epoch_begin`."""


class TrainingCheckpoint:
    """The file of a training's state.

    Args:
        path: The file; it need not exist.
    """

    def __init__(self, path: pathlib.Path) -> None:
        self.path = path
        self.epoch, self.finished = 0, False
        self._parts: dict[str, list[np.ndarray]] = {}
        if path.exists():
            self._read()

    def _read(self) -> None:
        with np.load(self.path, allow_pickle=False) as file:
            written = int(file["format"])
            if written != FORMAT:
                raise ValueError(
                    f"{self.path.name} must have format {FORMAT}, got {written}: it was written "
                    "by another version of tfnas; choose another folder, or overwrite it"
                )
            self.epoch, self.finished = int(file["epoch"]), bool(file["finished"])
            for part in ("model", "trainer"):
                names = sorted(n for n in file.files if n.startswith(f"{part}."))
                self._parts[part] = [file[name] for name in names]
            self._parts["callbacks"] = [
                file[name] for name in sorted(n for n in file.files if n.startswith("callbacks."))
            ]

    def renewed(self) -> TrainingCheckpoint:
        """Returns the checkpoint of the same file as if nothing had been trained."""
        self.path.unlink(missing_ok=True)
        return TrainingCheckpoint(self.path)

    def restore_model(self, model: keras.Model) -> None:
        """Assigns the model's variables.

        Args:
            model: The model, as it was when the training began.
        """
        if self.epoch:
            _assign(model.variables, self._parts["model"], self.path)

    def finish(self, model: keras.Model) -> None:
        """Keeps the variables of a model whose training has ended, and the callbacks' states.

        Args:
            model: The model.
        """
        states = self._parts.get("callbacks", [])
        self._write(self.epoch, True, {"model": _values(model.variables), "callbacks": states})

    def callback(
        self, model: keras.Model, others: Sequence[keras.callbacks.Callback]
    ) -> keras.callbacks.Callback:
        """Returns the callback that restores and keeps the rest; after all others in the list.

        Args:
            model: The model that is trained.
            others: The callbacks before this one.
        """
        return _KeepState(self, model, others)

    def _write(self, epoch: int, finished: bool, parts: dict[str, list[np.ndarray]]) -> None:
        arrays = {
            f"{part}.{number:06}": array
            for part, values in parts.items()
            for number, array in enumerate(values)
        }
        header = {"format": FORMAT, "epoch": epoch, "finished": finished}
        write_arrays(self.path, {**{n: np.array(v) for n, v in header.items()}, **arrays})


class _KeepState(keras.callbacks.Callback):
    def __init__(
        self,
        checkpoint: TrainingCheckpoint,
        student: keras.Model,
        others: Sequence[keras.callbacks.Callback],
    ) -> None:
        super().__init__()
        self.checkpoint, self.student = checkpoint, student
        self.resumable = [each for each in others if isinstance(each, Resumable)]
        self.waiting = bool(checkpoint.epoch)

    def on_train_begin(self, logs: Any = None) -> None:
        """Restores the callbacks of a training that has ended: they report on it."""
        if self.waiting and self.checkpoint.epoch >= self.params["epochs"]:
            self.waiting = False
            self._restore_callbacks()

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Restores the state of the optimizer and of the callbacks, which have begun by now."""
        if not self.waiting:
            return
        self.waiting = False
        self.model.optimizer.build(self.model.trainable_variables)
        _assign(self._others(), self.checkpoint._parts["trainer"], self.checkpoint.path)
        self._restore_callbacks()

    def _restore_callbacks(self) -> None:
        states = list(self.checkpoint._parts["callbacks"])
        for callback in self.resumable:
            count = int(states.pop(0))
            callback.restore_training_state(states[:count])
            del states[:count]

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Writes the state."""
        states: list[np.ndarray] = []
        for callback in self.resumable:
            state = callback.training_state()
            states += [np.array(len(state)), *state]
        parts = {
            "model": _values(self.student.variables),
            "trainer": _values(self._others()),
            "callbacks": states,
        }
        self.checkpoint.epoch = epoch + 1
        self.checkpoint._parts = parts
        self.checkpoint._write(epoch + 1, False, parts)

    def _others(self) -> list[keras.Variable]:
        """Returns the variables of the optimizer, and of a trainer around the model."""
        own = {id(variable) for variable in self.student.variables}
        around = [v for v in self.model.trainable_variables if id(v) not in own]
        return [*around, *self.model.optimizer.variables]


def _values(variables: Iterable[keras.Variable]) -> list[np.ndarray]:
    return [np.asarray(keras.ops.convert_to_numpy(variable)) for variable in variables]


def _assign(
    variables: Sequence[keras.Variable], values: Sequence[np.ndarray], path: pathlib.Path
) -> None:
    shapes = [tuple(variable.shape) for variable in variables]
    if shapes != [value.shape for value in values]:
        raise ValueError(
            f"{path.name} must hold the {len(variables)} variables of this training, got "
            f"{len(values)} of other shapes; overwrite the folder to start again"
        )
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)
