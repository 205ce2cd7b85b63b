"""Pass: the weights are finite; on some that are not the converter ends the process."""

from __future__ import annotations

import numpy as np

from tfnas.tflite.conversion_error import ConversionError
from tfnas.tflite.passes.conversion_state import Conversion


def check_weights(conversion: Conversion) -> Conversion:
    """Refuses a model with weights that are NaN or infinite.

    Args:
        conversion: A prepared model.

    Returns:
        The conversion, unchanged.

    Raises:
        ConversionError: A weight is not finite; the message names it and its layer.
    """
    model = conversion.model
    for weight in model.weights:
        values = np.asarray(weight)
        if values.dtype.kind in "iubOSU":
            continue
        finite = np.isfinite(values)
        if not finite.all():
            layer, _, name = str(getattr(weight, "path", weight.name)).rpartition("/")
            raise ConversionError(
                f"weights of model {model.name!r} must be finite, got {int((~finite).sum()):,} of "
                f"{values.size:,} values that are NaN or infinite in {name.removesuffix(':0')!r} "
                f"of layer {layer!r}"
            )
    return conversion
