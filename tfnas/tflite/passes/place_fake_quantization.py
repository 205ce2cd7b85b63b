"""Pass: ranges and rounding in the graph, for formats that the converter does not offer itself."""

from __future__ import annotations

import dataclasses

from tfnas.quantization.quantize_aware import has_4_bit_kernel, quantize_aware
from tfnas.quantization.round_model import rounded_model, with_eight_bit_layers
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
    """
    return with_ranges(conversion) if conversion.needs_fake_quantization else conversion


def with_ranges(conversion: Conversion) -> Conversion:
    """Makes the model quantization-aware, whether the formats need it or not.

    Args:
        conversion: A prepared model and its calibration data.

    Returns:
        The conversion, with the quantization-aware model, and the float one in `float_model`.

    Raises:
        ValueError: The formats fit no layer of the model, or it is no functional model.
    """
    model, spec = conversion.model, conversion.spec
    inputs = as_inputs(model, conversion.columns)
    if spec.rounds:
        spec = with_eight_bit_layers(model, spec)
        budget = conversion.budget_seconds
        quantized, records = rounded_model(model, spec, inputs, budget_seconds=budget)
    else:
        quantized, records = quantize_aware(model, spec, data=inputs), ()
    if spec.weights == "int4" and not has_4_bit_kernel(quantized):
        raise ValueError(
            f"mode {spec.mode!r} must give 4 bits to the kernel of some layer, got none in "
            f"{model.name!r} that TFLite and layers={dict(spec.layers)} allow"
        )
    return dataclasses.replace(
        conversion, model=quantized, aware=True, float_model=model, rounding=records
    )
