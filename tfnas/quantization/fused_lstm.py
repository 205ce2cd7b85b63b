"""An LSTM with fake quantization, as TFLite's fused operator computes it in 8 bits.

UNIDIRECTIONAL_SEQUENCE_LSTM takes int8 inputs and kernels, gives int8 outputs, which are its state
too, and has 16 bits in between. All ranges of its step but one are prescribed: sums of the gates
end at 8, what sigmoid and tanh give ends at 1. The cell's range is that of the data, up to a power
of two. Each gate has a scale of its own for either kernel.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfnas.graph.batchnorm import layers_of
from tfnas.graph.macs import layer_macs
from tfnas.graph.registered_layers import register_layer
from tfnas.quantization.fake_quant import FakeQuant
from tfnas.quantization.quantized_kernel import PACKAGE
from tfnas.quantization.recurrent_forms import QuantizedRecurrent

GATES = 4
_STEPS = 2**15
# Of 16 bits around 0, of which the lowest is not used.
_SUMS_END, _GATE_END = (float(end * (1.0 - 1.0 / _STEPS)) for end in (8, 1))
_SUMS = ("input_sums", "recurrent_sums", "sums")
_GATES = ("keep", "enter", "show", "new", "shown")
# Products have the steps of the cell, to which they are added.
_LIKE_CELL = ("kept", "entered")
# LiteRT's kernel takes cells of 2 to the power of 0 to 6.
_CELL_ENDS = 2.0 ** np.arange(7, dtype=np.float32)


@keras.saving.register_keras_serializable(PACKAGE)
class PowerOfTwoRange(FakeQuant):
    """Rounds to 16 bits between a power of two from 1 to 64 and its negative."""

    def grid_range(self) -> tuple[Any, Any]:
        """Returns the lowest and highest value of the grid, as tensors."""
        largest = tf.maximum(-self.low.value, self.high.value)
        ends = tf.constant(_CELL_ENDS)
        reached = tf.where(ends >= largest, ends, tf.reduce_max(ends))
        end = tf.reduce_min(reached) * (1.0 - 1.0 / _STEPS)
        return -end, end


@keras.saving.register_keras_serializable(PACKAGE)
class QuantizedFusedLstm(QuantizedRecurrent):
    """Calls an LSTM with each step rounded as UNIDIRECTIONAL_SEQUENCE_LSTM of int8 rounds it.

    Args:
        layer: An LSTM of Keras' standard activations.
        **options: As of :class:`QuantizedRecurrent`.

    References:
        LiteRT's `tflite/kernels/lstm_eval.cc`, `LstmStepInteger8x8_16`.
    """

    def _new_ranges(self) -> dict[str, FakeQuant]:
        ends = {**dict.fromkeys(_SUMS, _SUMS_END), **dict.fromkeys(_GATES, _GATE_END)}
        found = {
            name: FakeQuant(16, fixed=(-end, end), dtype="float32", name=f"{name}_range")
            for name, end in ends.items()
        }
        found["cell"] = PowerOfTwoRange(16, momentum=self.momentum, name="cell_range")
        hidden = self.step.ranges(8)["hidden"]
        found["hidden"] = FakeQuant(8, fixed=hidden, dtype="float32", name="hidden_range")
        return found

    def range_of(self, name: str) -> FakeQuant:
        """Returns the layer that rounds to a range of the step.

        Args:
            name: A name of :meth:`RecurrentStep.ranges`.
        """
        return super().range_of("cell" if name in _LIKE_CELL else name)

    def rounded(self, kernel: Any, use: int = 0) -> Any:
        """Returns a kernel of which each gate's part is rounded to a grid of its own."""
        parts = tf.split(tf.convert_to_tensor(kernel), GATES, axis=-1)
        return tf.concat([self._on_grid(part, use, whole=True) for part in parts], axis=-1)


def fused_layers(model: Any) -> list[QuantizedFusedLstm]:
    """Returns the layers of a model that become fused operators; none of a tf_keras one.

    Args:
        model: A Keras 3 or tf_keras model.
    """
    return layers_of(model, QuantizedFusedLstm) if isinstance(model, keras.Model) else []


register_layer(QuantizedFusedLstm, macs=lambda own, x, y: layer_macs(own.layer, x, y))
