"""Pass: the file as TensorFlow's converter writes it, not validated yet."""

from __future__ import annotations

import dataclasses
import logging
from typing import Any

from tfnas.legacy.rebuild import is_tf_keras
from tfnas.quantization.quantize_aware import unquantized_layers
from tfnas.tflite.passes.conversion_state import Conversion
from tfnas.tflite.recurrent_layers import form_in_file
from tfnas.tflite.tensorflow_converter import run_converter

_LOG = logging.getLogger(__name__)


def convert(conversion: Conversion) -> Conversion:
    """Runs TensorFlow's converter.

    Args:
        conversion: A model in its last form.

    Returns:
        The conversion, with `content` and `origin`.

    Raises:
        ConversionError: TensorFlow can't convert the model.
    """
    model, columns, aware = conversion.model, conversion.columns, conversion.aware
    spec = conversion.converter_spec
    # A model that holds its ranges needs no data, also where a pass has set them by the data.
    content = run_converter(model, spec, () if aware else columns, aware=aware)
    origin = {
        "model": model.name,
        "mode": spec.mode,
        "inputs": [tensor.name for tensor in model.inputs],
        "calibration_examples": len(columns[0]) if columns else 0,
        "quantization_aware": aware and conversion.float_model is None,
        **_forms_of_layers(conversion, content),
        **_versions(),
    }
    return dataclasses.replace(conversion, content=content, origin=origin)


def _forms_of_layers(conversion: Conversion, content: bytes) -> dict[str, Any]:
    """Which layers of an integer file stay float, and the form of the recurrent ones."""
    found: dict[str, Any] = {}
    model = conversion.model
    if conversion.aware and not is_tf_keras(model):
        left = {layer.name: layer.reason for layer in unquantized_layers(model)}
        if left:
            found["unquantized_layers"] = left
            _LOG.warning("%s stays float in the file of %s", ", ".join(left), model.name)
    if conversion.has_recurrent_layers:
        found["recurrent_layers"] = form_in_file(content)
    return found


def _versions() -> dict[str, str]:
    import keras
    import tensorflow as tf

    return {"tensorflow": tf.__version__, "keras": keras.__version__}
