"""What a trial's `fit` is called with, so that it does nothing that nobody reads."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import keras
from keras_tuner.src.engine.tuner_utils import SaveBestEpoch, TunerCallback

from tfnas.graph.tracing import TraceOnce


class SaveReadEpochs(keras.callbacks.Callback):
    """keras_tuner's checkpoint, without the files that the next epoch replaces unread.

    Where the objective is not in the logs, since it is measured on the file, keras_tuner writes
    the weights after every epoch; the last ones stay. Here these are written alone.

    Args:
        checkpoint: keras_tuner's callback.
    """

    def __init__(self, checkpoint: SaveBestEpoch) -> None:
        super().__init__()
        self.checkpoint = checkpoint

    def set_model(self, model: keras.Model) -> None:
        """Keras' hook."""
        super().set_model(model)
        self.checkpoint.set_model(model)

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        """Keras' hook."""
        epochs = (self.params or {}).get("epochs")  # none in a training loop of the user's own
        last = epochs is None or epoch + 1 >= epochs or self.model.stop_training
        if last or self.checkpoint.objective.has_value(logs or {}):
            self.checkpoint.on_epoch_end(epoch, logs or {})


def trial_callbacks(callbacks: Iterable[Any]) -> list[Any]:
    """Returns the callbacks of a trial, as keras_tuner made them, that cost less.

    Args:
        callbacks: The user's, then keras_tuner's.
    """
    cheaper = [SaveReadEpochs(c) if isinstance(c, SaveBestEpoch) else c for c in callbacks]
    return [*cheaper, TraceOnce()]


def reads_each_epoch(fit_kwargs: Mapping[str, Any], objectives: Iterable[str]) -> bool:
    """Returns whether somebody may read what an epoch before the last one is validated with.

    Callbacks of the user's may, Keras' progress bar shows it, and an objective of the validation
    data picks the best epoch.

    Example:
        >>> reads_each_epoch({"verbose": 0}, ["reward"])
        False
        >>> reads_each_epoch({"verbose": 0}, ["val_accuracy"])
        True

    Args:
        fit_kwargs: What `fit` is to be called with.
        objectives: Names of the search's objectives.
    """
    own = (TunerCallback, SaveBestEpoch, SaveReadEpochs, TraceOnce)
    listening = any(not isinstance(c, own) for c in fit_kwargs.get("callbacks") or ())
    shown = fit_kwargs.get("verbose", "auto") != 0
    chosen = "validation_freq" in fit_kwargs
    return listening or shown or chosen or any(name.startswith("val_") for name in objectives)


def validated_at_the_end(fit_kwargs: Mapping[str, Any], reported: bool = True) -> dict[str, Any]:
    """Returns arguments of a `fit` that validates in its last epoch alone, or not at all.

    Args:
        fit_kwargs: What `fit` is to be called with.
        reported: Whether what its last epoch logs is reported.
    """
    if not reported:
        return {**fit_kwargs, "validation_data": None}
    return {**fit_kwargs, "validation_freq": [fit_kwargs.get("epochs", 1)]}
