"""Pass: the file as TensorFlow's converter writes it, not validated yet."""

from __future__ import annotations

import dataclasses

from tfnas.tflite.passes.conversion_state import Conversion
from tfnas.tflite.tensorflow_converter import run_converter


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
        **({"kept_out": list(conversion.kept_out)} if conversion.kept_out else {}),
        **_versions(),
    }
    return dataclasses.replace(conversion, content=content, origin=origin)


def _versions() -> dict[str, str]:
    import keras
    import tensorflow as tf

    return {"tensorflow": tf.__version__, "keras": keras.__version__}
