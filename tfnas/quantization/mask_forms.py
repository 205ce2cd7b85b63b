"""Masks that a model computes from its numbers, as `keras.layers.Masking` does, in integers.

A step counts where some of its numbers differ from the value of the mask. In an integer file the
integers are compared: those of the numbers with that of the value, on the same grid, so that the
model in training and its file mask the same steps (:mod:`tfnas.tflite.integer_comparisons`).
"""

from __future__ import annotations

import math
from typing import Any

import keras

from tfnas.graph.constant_calls import Constant
from tfnas.graph.functional import Call, LayerCopies
from tfnas.graph.registered_layers import register_layer
from tfnas.quantization.quantized_kernel import PACKAGE


@register_layer(macs=0, integer_form="compute")
@keras.saving.register_keras_serializable(PACKAGE)
class ComparedNumber(Constant):
    """A constant that is compared with numbers, and has their grid, of 8 or of 16 bits."""


@register_layer(macs=0, integer_form="compute")
@keras.saving.register_keras_serializable(PACKAGE)
class DiffersFrom(keras.layers.Layer):
    """Whether numbers differ from a number, which is rounded as they are.

    Args:
        number: The number.
    """

    def __init__(self, number: float, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.number, self.supports_masking = number, True

    def compute_mask(self, *_: Any) -> None:
        """Returns no mask: this is one."""

    def call(self, x: Any, rounded: Any) -> Any:
        """Compares.

        Args:
            x: Numbers on a grid.
            rounded: The number on the same grid, (1,).
        """
        return keras.ops.not_equal(x, rounded)

    def compute_output_spec(self, x: Any, rounded: Any) -> keras.KerasTensor:
        """Returns truth values of the shape of `x`."""
        return keras.KerasTensor(x.shape, "bool")

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {**super().get_config(), "number": self.number}

    def float_form(self, x: Any) -> Any:
        """Returns what it computes without a grid."""
        return keras.ops.not_equal(x, self.number)


def compared(number: float, x: Any, grid: Any, copies: LayerCopies) -> Any:
    """Returns whether numbers differ from another one, on their grid.

    Args:
        number: The other one.
        x: The numbers, rounded to the grid.
        grid: The fake quantization that has rounded them.
        copies: Gives names to new layers.

    Raises:
        ValueError: The numbers can't have this value, since their range is known without data.
    """
    low, high = grid.fixed or (-math.inf if grid.relu is None else 0.0, grid.relu or math.inf)
    if not low <= number <= high:
        raise ValueError(
            f"mask_value must be a number that {grid.name!r} can have, {low:g} to {high:g}, in an "
            f"integer file, got {number:g}"
        )
    constant = ComparedNumber([number], x.dtype, name=copies.unique("compared_number"))
    rounded = grid(constant(x), training=False)
    return DiffersFrom(number, name=copies.unique("differs"))(x, rounded)


def opened_masking(call: Call, tensors: list[Any]) -> list[Any] | None:
    """Returns the output of a Masking layer by operations; None for other calls.

    The mask itself is a call of its own in the model.

    Args:
        call: Any call.
        tensors: The new tensors of its inputs.
    """
    if call.kind != "Masking" or not isinstance(call.operation.mask_value, int | float):
        return None
    (x,) = tensors
    differs = keras.ops.not_equal(x, call.operation.mask_value)
    return [keras.ops.where(keras.ops.any(differs, axis=-1, keepdims=True), x, 0.0)]
