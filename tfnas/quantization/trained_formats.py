"""The number formats that a quantization-aware model was made for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tfnas.quantization.quantize_aware import has_4_bit_kernel, ranges_between_layers
from tfnas.quantization.spec import QuantSpec

if TYPE_CHECKING:
    import keras


def trained_formats(model: keras.Model) -> QuantSpec | None:
    """Returns the number formats of a quantization-aware model; None for any other model.

    What single layers have beside them (floats, wider sums, scales of channels) is in the model.

    Args:
        model: A Keras 3 model.
    """
    ranges = ranges_between_layers(model)
    if not ranges:
        return None
    if max(layer.bits for layer in ranges) > 8:
        return QuantSpec.of("int16x8")
    return QuantSpec.of("int8x4" if has_4_bit_kernel(model) else "int8")
