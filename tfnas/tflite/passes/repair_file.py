"""Pass: repair of files that the converter writes for quantization-aware models."""

from __future__ import annotations

import dataclasses

from tfnas.tflite.conversion_error import ConversionError, conversion_message
from tfnas.tflite.graph_repair import repair
from tfnas.tflite.passes.conversion_state import Conversion


def repair_file(conversion: Conversion) -> Conversion:
    """Makes 16-bit operators as TFLite's kernels require them.

    :mod:`tfnas.tflite.graph_repair` says what the converter gets wrong.

    Args:
        conversion: The converter's file.

    Returns:
        The conversion, with the repaired `content`.

    Raises:
        ConversionError: The file can't be repaired.
    """
    if not conversion.aware:
        return conversion
    try:
        content = repair(conversion.content)
    except Exception as error:  # nothing has validated the file: it may raise any type
        message = conversion_message(conversion.model, conversion.spec, error)
        raise ConversionError(message) from error
    return dataclasses.replace(conversion, content=content)
