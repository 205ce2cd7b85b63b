"""Ranges of the numbers inside a layer that an integer file computes by several operators.

They have 16 bits, also between activations of 8: a sum of squares or its inverse root, of which
there is one a row, differs by orders of magnitude from row to row, so that 8 bits would leave the
quiet rows a few steps.
"""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from tfnas.graph.registered_layers import register_layer
from tfnas.quantization.fake_quant import FakeQuant
from tfnas.quantization.quantized_kernel import PACKAGE

BITS = 16
_HEADROOM = 2.0  # a row louder than all that were observed; costs 1 of 16 bits


@register_layer(macs=0)
@keras.saving.register_keras_serializable(PACKAGE)
class InnerRange(FakeQuant):
    """Fake quantization to 16 bits inside a layer, with room for more than was observed.

    Args:
        fixed: A constant (low, high). None: twice the range that is observed.
        **options: As of :class:`FakeQuant`.
    """

    def __init__(self, fixed: tuple[float, float] | None = None, **options: Any) -> None:
        # The layers around it compute in float32, also under a policy of mixed precision.
        super().__init__(**{"bits": BITS, "dtype": "float32", **options, "fixed": fixed})

    def grid_range(self) -> tuple[Any, Any]:
        """Returns the lowest and highest value of the grid, as tensors."""
        low, high = super().grid_range()
        return (low, high) if self.fixed else (_HEADROOM * low, _HEADROOM * high)

    def part(self, x: Any, share: float) -> Any:
        """Rounds numbers to the steps of a share of the range, and cuts them off at its ends.

        Args:
            x: The numbers; they are not observed.
            share: The share, in (0, 1].
        """
        if not self.active:
            return x
        low, high = (share * end for end in self.grid_range())
        return tf.quantization.fake_quant_with_min_max_vars(
            x, low, high, num_bits=self.bits, narrow_range=True
        )


def with_other_bits(x: Any, training: Any) -> Any:
    """A tensor of 8 bits as one that can get a range of 16, or the reverse.

    The converter would give an operator inputs of 8 and outputs of 16 bits, which none takes; it
    leaves values alone that were cast to float64 and back. The file has a single QUANTIZE in the
    end (:mod:`tfnas.tflite.float_gaps`).

    Args:
        x: The tensor.
        training: Whether the model is trained.
    """
    return x if training else tf.cast(tf.cast(x, tf.float64), x.dtype)
