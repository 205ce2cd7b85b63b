"""A callback that ends a training whose loss is no longer a number: nothing can be learned then."""

from __future__ import annotations

import math
from collections.abc import Mapping

import keras

from tfnas.runtime.failed_work import FailedWork


class Diverged(FailedWork):
    """The loss of a training is NaN or infinite."""


class FiniteLoss(keras.callbacks.Callback):
    """Raises :class:`Diverged` at the end of an epoch whose loss is NaN or infinite.

    `keras.callbacks.TerminateOnNaN` stops in silence, as a training that has ended. Put this one
    first in the list of callbacks: then no other one keeps the weights of such an epoch.

    Raises:
        Diverged: At the end of an epoch.
    """

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        """Keras' hook."""
        loss = (logs or {}).get("loss")
        if loss is not None and not math.isfinite(loss):
            of_all = f" of {self.params['epochs']}" if "epochs" in (self.params or {}) else ""
            raise Diverged(
                f"loss of {self.model.name!r} must stay finite, got {loss} in epoch {epoch + 1}"
                f"{of_all}: the training has diverged; a lower learning rate may help"
            )
