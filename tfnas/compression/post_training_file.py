"""The file of a model for which nothing is trained."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from tfnas.compression.technique_context import Context
from tfnas.compression.techniques.technique import NotPossible
from tfnas.quantization.aware_models import fake_quants
from tfnas.quantization.spec import QuantSpec
from tfnas.tflite.convert import to_tflite

if TYPE_CHECKING:
    import keras

    from tfnas.tflite.artifact import Artifact


def post_training_file(model: keras.Model, mode: str, context: Context) -> Artifact:
    """Converts a model; 4-bit weights are rounded by second moments where activations are integers.

    Args:
        model: The model; a quantization-aware one has chosen its integers already.
        mode: The number formats.
        context: The data, for the ranges of activations and for the rounding.

    Raises:
        ConversionError: The model can't be converted.
        NotPossible: It can't have these formats, as 4 bits without a layer that takes them.
    """
    if fake_quants(model):
        return to_tflite(model, mode)
    spec = QuantSpec.of(mode)
    if spec.weights == "int4" and spec.needs_calibration:
        # To the nearest of 15 steps, most networks lose nearly all of their accuracy.
        spec = dataclasses.replace(spec, rounding="second_order")
    try:
        return to_tflite(model, spec, context.calibration())
    except ValueError as error:
        raise NotPossible(str(error)) from error
