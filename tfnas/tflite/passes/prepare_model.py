"""Pass: the model as float32 layers, with fake quantization only where the file is of integers."""

from __future__ import annotations

import dataclasses
from typing import Any

from tfnas.graph.compatibility import check_not_quantized_by_keras
from tfnas.graph.model_class import plain
from tfnas.legacy.rebuild import is_tf_keras
from tfnas.legacy.tfmot_qat import is_quantized
from tfnas.quantization.aware_models import fake_quants, unquantized_layers
from tfnas.quantization.float32_model import to_float32
from tfnas.quantization.integer_inputs import with_integer_inputs
from tfnas.quantization.normal_form import with_integer_categories
from tfnas.quantization.quantize_aware import strip_quantization
from tfnas.quantization.trained_layers import check_trained_layers
from tfnas.tflite.passes.conversion_state import Conversion


def prepare(conversion: Conversion) -> Conversion:
    """Makes a float32 model of a mixed-precision one, and a float one for float activations.

    Args:
        conversion: A built model, and the requested formats.

    Returns:
        The conversion, with `aware`.

    Raises:
        ValueError: The model can't be computed in float32, or can't get these formats.
    """
    model, spec = conversion.model, conversion.spec
    old = is_tf_keras(model)
    by_tfmot = old and is_quantized(model)
    aware = by_tfmot or bool(fake_quants(model))
    if by_tfmot and spec.mode != "int8":
        raise ValueError(
            f"mode must be 'int8' for model {model.name!r}, which tfmot quantized, got "
            f"{spec.mode!r}"
        )
    if not old:
        check_not_quantized_by_keras(model)
        model = to_float32(plain(model))
    if aware and spec.activations == "float32":
        model, aware = strip_quantization(model), False
    if not old and not aware and spec.needs_calibration:
        model = with_integer_categories(with_integer_inputs(model))
    prepared = dataclasses.replace(conversion, model=model, aware=aware)
    _check_formats_of_layers(prepared, conversion.model)
    return prepared


def _check_formats_of_layers(conversion: Conversion, given: Any) -> None:
    """Raises ValueError where single layers can't have the formats that are asked.

    Args:
        conversion: The prepared model.
        given: The model before, whose parts are nested still, with names of their own.
    """
    model, spec = conversion.model, conversion.spec
    if conversion.aware and spec.layers:
        if is_tf_keras(model):
            raise ValueError(
                f"layers must be empty for model {model.name!r}, which tfmot quantized, got "
                f"{dict(spec.layers)}"
            )
        check_trained_layers(given, spec, unquantized_layers(given))
    if spec.layers and spec.weights == "float16":
        raise ValueError(f"layers must be empty for mode 'float16', got {dict(spec.layers)}")
    if conversion.needs_fake_quantization and is_tf_keras(model):
        raise ValueError(
            f"model must be a Keras 3 model for 4-bit weights or formats of single layers with "
            f"{spec.activations} activations, got the tf_keras model {model.name!r}"
        )
