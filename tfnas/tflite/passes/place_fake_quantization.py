"""Pass: ranges and rounding in the graph, for formats that the converter does not offer itself."""

from __future__ import annotations

import dataclasses

from tfnas.quantization.aware_models import unquantized_layers
from tfnas.quantization.float_islands import are_refused, layers_in_the_way, message_of_refusal
from tfnas.quantization.post_training import quantized_after_training
from tfnas.tflite.conversion_error import ConversionError
from tfnas.tflite.passes.conversion_state import Conversion
from tfnas.tflite.passes.read_calibration import as_inputs


def place_fake_quantization(conversion: Conversion) -> Conversion:
    """Makes the model quantization-aware with the ranges of the calibration data.

    Args:
        conversion: A prepared model and its calibration data.

    Returns:
        The conversion, with the quantization-aware model, and the float one in `float_model`.

    Raises:
        ValueError: The formats fit no layer of the model.
        ConversionError: A layer has no integer form, and the formats do not leave it float.
    """
    if not conversion.needs_fake_quantization:
        return conversion
    placed = with_ranges(conversion)
    if not (conversion.has_own_formats or placed.has_recurrent_layers):
        left = layers_in_the_way(placed.model, conversion.spec, unquantized_layers(placed.model))
        if are_refused(left):
            if not (conversion.has_normalizations or conversion.has_own_layout):
                return conversion  # the converter's own ranges may do
            raise ConversionError(message_of_refusal(conversion.spec, left))
    return placed


def with_ranges(conversion: Conversion) -> Conversion:
    """Makes the model quantization-aware, whether the formats need it or not.

    Args:
        conversion: A prepared model and its calibration data.

    Returns:
        The conversion, with the quantization-aware model, and the float one in `float_model`.

    Raises:
        ValueError: The formats fit no layer of the model, or it is no functional model.
    """
    model = conversion.model
    quantized, records = quantized_after_training(
        model,
        conversion.spec,
        as_inputs(model, conversion.columns),
        budget_seconds=conversion.budget_seconds,
        warn=False,  # the file does, if there is one
    )
    return dataclasses.replace(
        conversion, model=quantized, aware=True, float_model=model, rounding=records
    )
