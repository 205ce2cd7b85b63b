"""Arguments of a trial's `fit` that avoid work whose results are not used.

Epochs are validated and checkpointed only if a callback, an objective or the user needs it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import keras

from tfnas.data.reading import arrays
from tfnas.graph.finite_loss import FiniteLoss
from tfnas.graph.tracing import TraceOnce
from tfnas.nas.keras_tuner_private import SaveBestEpoch, TunerCallback


def validation_pair(validation_data: Any) -> tuple[Any, Any]:
    """Returns the inputs and targets of Keras' argument `validation_data`.

    Args:
        validation_data: A tuple (x, y) or (x, y, sample_weight), or a data set, which is read.
    """
    if not isinstance(validation_data, tuple | list):
        validation_data = arrays(validation_data, what="validation_data")
    x, y = validation_data[:2]
    return x, y


class SaveUsedEpochs(keras.callbacks.Callback):
    """keras_tuner's checkpoint callback, which skips files that the next epoch would replace.

    If the objective is not in the logs, because it is measured on the file, keras_tuner writes the
    weights after each epoch and uses only the last ones. This callback writes only those.

    Args:
        checkpoint: keras_tuner's callback.
    """

    def __init__(self, checkpoint: SaveBestEpoch) -> None:
        super().__init__()
        self.checkpoint = checkpoint

    def set_model(self, model: keras.Model) -> None:
        """Sets the model of both callbacks."""
        super().set_model(model)
        self.checkpoint.set_model(model)

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        """Writes the weights in the last epoch, or if the objective is in the logs."""
        epochs = (self.params or {}).get("epochs")  # None in a custom training loop
        last = epochs is None or epoch + 1 >= epochs or self.model.stop_training
        if last or self.checkpoint.objective.has_value(logs or {}):
            self.checkpoint.on_epoch_end(epoch, logs or {})


def cheaper_callbacks(callbacks: Iterable[Any]) -> list[Any]:
    """Returns callbacks of a trial that checkpoint less often and trace the training step once.

    The first one raises :class:`~tfnas.graph.finite_loss.Diverged`.

    Args:
        callbacks: The callbacks that keras_tuner passes to `fit`.
    """
    cheaper = [SaveUsedEpochs(c) if isinstance(c, SaveBestEpoch) else c for c in callbacks]
    return [FiniteLoss(), *cheaper, TraceOnce()]


def needs_every_validation(fit_kwargs: Mapping[str, Any], objectives: Iterable[str]) -> bool:
    """Returns whether the validation of epochs before the last one is used.

    It is used by callbacks of the user, by Keras' progress bar, and by an objective on the
    validation data, which selects the best epoch.

    Example:
        >>> needs_every_validation({"verbose": 0}, ["reward"])
        False
        >>> needs_every_validation({"verbose": 0}, ["val_accuracy"])
        True

    Args:
        fit_kwargs: Keyword arguments of `fit`.
        objectives: Names of the search's objectives.
    """
    internal = (TunerCallback, SaveBestEpoch, SaveUsedEpochs, TraceOnce)
    callbacks = fit_kwargs.get("callbacks") or ()
    return (
        any(not isinstance(callback, internal) for callback in callbacks)
        or fit_kwargs.get("verbose", "auto") != 0
        or "validation_freq" in fit_kwargs
        or any(name.startswith("val_") for name in objectives)
    )


def validate_at_the_end(fit_kwargs: Mapping[str, Any], reported: bool = True) -> dict[str, Any]:
    """Returns keyword arguments of a `fit` that validates only in its last epoch, or not at all.

    Args:
        fit_kwargs: Keyword arguments of `fit`.
        reported: Whether the logs of its last epoch are reported.
    """
    if not reported:
        return {**fit_kwargs, "validation_data": None}
    return {**fit_kwargs, "validation_freq": [fit_kwargs.get("epochs", 1)]}
