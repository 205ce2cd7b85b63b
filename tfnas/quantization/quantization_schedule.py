"""Schedule of quantization-aware training: when rounding starts, and when ranges freeze."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

from tfnas.keras_private import all_layers, renew_functions
from tfnas.quantization.fake_quant import FakeQuant
from tfnas.quantization.quantized_kernel import QuantizedKernel


class QuantizationSchedule(keras.callbacks.Callback):
    """Callback that starts quantization after some epochs, and freezes ranges after some more.

    Ranges are observed from the first epoch on, so that rounding starts with good ones. Frozen
    ranges in the last epochs let the weights settle on one grid (Krishnamoorthi 2018, section
    3.2).

    Example:
        >>> import keras, numpy as np, tfnas
        >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)])
        >>> model = tfnas.quantize_aware(model)
        >>> model.compile("adam", "mse")
        >>> schedule = tfnas.QuantizationSchedule(start_epoch=1, freeze_epoch=2)
        >>> data = np.zeros((64, 8)), np.zeros((64, 4))
        >>> history = model.fit(*data, epochs=3, verbose=0, callbacks=[schedule])

    Args:
        start_epoch: First epoch with rounding, counted from 0.
        freeze_epoch: First epoch in which the ranges of activations are frozen. None: never.

    Raises:
        ValueError: An epoch is below 0, or `freeze_epoch` is before `start_epoch`.

    References:
        Krishnamoorthi, "Quantizing deep convolutional networks for efficient inference",
        arXiv 1806.08342, 2018.
    """

    def __init__(self, start_epoch: int = 0, freeze_epoch: int | None = None) -> None:
        super().__init__()
        freeze = start_epoch if freeze_epoch is None else freeze_epoch
        for name, value in (("start_epoch", start_epoch), ("freeze_epoch", freeze)):
            if not isinstance(value, int) or value < 0:
                raise ValueError(f"{name} must be a whole number from 0 on, got {value!r}")
        if freeze_epoch is not None and freeze_epoch < start_epoch:
            raise ValueError(
                f"freeze_epoch must not be before start_epoch {start_epoch}, got {freeze_epoch}"
            )
        self.start_epoch, self.freeze_epoch = start_epoch, freeze_epoch
        self._epoch: int | None = None  # the last one that began in this training

    def on_train_begin(self, logs: Mapping[str, float] | None = None) -> None:
        """Checks that the model is quantization-aware.

        Example:
            >>> import keras, numpy as np, tfnas
            >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)])
            >>> model = tfnas.quantize_aware(model)
            >>> model.compile("adam", "mse")
            >>> schedule = tfnas.QuantizationSchedule(start_epoch=1)
            >>> schedule.set_model(model)
            >>> schedule.on_train_begin()

        Args:
            logs: Not used.

        Raises:
            ValueError: The model is not quantization-aware.
        """
        self._epoch = None
        if not self._layers(FakeQuant):
            raise ValueError(f"model must be quantization-aware, got {self.model.name!r}")

    def training_state(self) -> list[np.ndarray]:
        """Returns the number of the last epoch, for a training that is continued."""
        return [np.array(self._epoch)]

    def restore_training_state(self, state: Sequence[np.ndarray]) -> None:
        """Sets the state of all layers where no epoch of a continued training is left.

        Args:
            state: The result of :meth:`training_state`.
        """
        if self._epoch is None:
            self.on_epoch_begin(int(state[0]))

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        """Sets the state of all layers; the model is traced again where it changes.

        Example:
            >>> import keras, numpy as np, tfnas
            >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)])
            >>> model = tfnas.quantize_aware(model)
            >>> model.compile("adam", "mse")
            >>> schedule = tfnas.QuantizationSchedule(start_epoch=1)
            >>> schedule.set_model(model)
            >>> schedule.on_epoch_begin(0)
            >>> {layer.active for layer in model.layers if hasattr(layer, "active")}
            {False}

        Args:
            epoch: Index of the epoch, from 0.
            logs: Not used.
        """
        self._epoch = epoch
        active = epoch >= self.start_epoch
        frozen = self.freeze_epoch is not None and epoch >= self.freeze_epoch
        changed = False
        for layer in self._layers(FakeQuant | QuantizedKernel):
            changed |= layer.active != active
            layer.active = active
            if isinstance(layer, FakeQuant):
                changed |= layer.frozen != frozen
                layer.frozen = frozen
        if changed:
            renew_functions(self.model)

    def _layers(self, kinds: Any) -> list[Any]:
        return [layer for layer in all_layers(self.model) if isinstance(layer, kinds)]
