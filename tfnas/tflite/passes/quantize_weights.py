"""Pass: weights in formats that the converter does not write, by a recipe of ai-edge-quantizer."""

from __future__ import annotations

import dataclasses

from tfnas.tflite.artifact import Artifact
from tfnas.tflite.passes.conversion_state import Conversion
from tfnas.tflite.passes.validate_file import check_formats
from tfnas.tflite.quantizer_recipes import with_weight_formats


def quantize_weights(conversion: Conversion) -> Conversion:
    """Quantizes the weights of each layer in a float file.

    Args:
        conversion: A model and its validated float32 file.

    Returns:
        The conversion, with the quantized file as `artifact`.

    Raises:
        ConversionError: ai-edge-quantizer can't quantize the file, or wrote another one than was
            requested.
        ValueError: The formats fit no layer of the model.
    """
    if not conversion.uses_recipe:
        return conversion
    spec, float_file = conversion.spec, conversion.file
    quantized = with_weight_formats(conversion.model, float_file, spec)
    origin = {**quantized.origin, "mode": spec.mode}
    artifact = Artifact(quantized.content, spec.mode, origin)
    check_formats(artifact, spec)
    return dataclasses.replace(conversion, artifact=artifact)
