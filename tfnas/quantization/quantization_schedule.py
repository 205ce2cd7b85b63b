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
        self._ranges = np.zeros((0, 2))  # when it began

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
        self._epoch, self._ranges = epoch, self._present_ranges()
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

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Writes `logs["range_change"]`, which callbacks after this one read; Keras calls it.

        Example:
            >>> import keras, numpy as np, tfnas
            >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)])
            >>> model = tfnas.quantize_aware(model)
            >>> model.compile("adam", "mse")
            >>> schedule = tfnas.QuantizationSchedule(freeze_epoch=1)
            >>> data = np.ones((64, 8)), np.ones((64, 4))
            >>> history = model.fit(*data, epochs=2, verbose=0, callbacks=[schedule]).history
            >>> history["range_change"][0] > history["range_change"][1] == 0
            True

        Args:
            epoch: Index of the epoch, from 0.
            logs: Gets by how much both ends of a range of activations moved in this epoch, as a
                fraction of its width at the end: the mean of all ranges that are observed or
                learned. It falls to 0 as they settle.
        """
        if logs is None:
            return
        now = self._present_ranges()
        moved, width = np.abs(now - self._ranges).sum(axis=1), now[:, 1] - now[:, 0]
        changes = np.divide(moved, width, out=np.zeros(len(now)), where=width > 0)
        logs["range_change"] = float(changes.mean()) if len(now) else 0.0

    def _present_ranges(self) -> np.ndarray:
        """The ends of all ranges that can move, (ranges, 2)."""
        layers = [each for each in self._layers(FakeQuant) if each.fixed is None]
        return np.array([each.ends() for each in layers], np.float64).reshape(-1, 2)

    def _layers(self, kinds: Any) -> list[Any]:
        return [layer for layer in all_layers(self.model) if isinstance(layer, kinds)]
