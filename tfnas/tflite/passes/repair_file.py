"""Pass: repair of what the converter gets wrong in integer files."""

from __future__ import annotations

import dataclasses

from tfnas.graph.batchnorm import layers_of
from tfnas.quantization.fake_quant import FakeQuant
from tfnas.quantization.integer_layers import FloatInput
from tfnas.tflite.conversion_error import ConversionError, conversion_message
from tfnas.tflite.graph_repair import repair
from tfnas.tflite.passes.conversion_state import Conversion
from tfnas.tflite.shared_biases import with_own_biases
from tfnas.tflite.table_lookups import mend_lookups


def repair_file(conversion: Conversion) -> Conversion:
    """Makes biases, 16-bit operators and lookups of tables as TFLite's kernels require them.

    :mod:`tfnas.tflite.graph_repair` and :mod:`tfnas.tflite.table_lookups` say what the converter
    gets wrong for quantization-aware models, :mod:`tfnas.tflite.shared_biases` what it does where
    it finds the ranges itself.

    Args:
        conversion: The converter's file.

    Returns:
        The conversion, with the repaired `content`.

    Raises:
        ConversionError: The file can't be repaired.
    """
    if not conversion.aware:
        if not conversion.spec.needs_calibration:
            return conversion
        return dataclasses.replace(conversion, content=with_own_biases(conversion.content))
    layers = layers_of(conversion.model, (FloatInput, FakeQuant))
    detours = {layer.name for layer in layers}
    try:
        content = mend_lookups(repair(conversion.content, detours))
    except Exception as error:  # nothing has validated the file: it may raise any type
        message = conversion_message(conversion.model, conversion.spec, error)
        raise ConversionError(message) from error
    return dataclasses.replace(conversion, content=content)
