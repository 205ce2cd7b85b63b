"""Pass: bias correction, where it was requested."""

from __future__ import annotations

from tfnas.quantization.bias_correction import correct_bias
from tfnas.tflite.passes.conversion_state import Conversion
from tfnas.tflite.passes.read_calibration import as_inputs

CORRECTION_EXAMPLES = 256


def correct(conversion: Conversion) -> Conversion:
    """Corrects BatchNormalization in a model whose fake quantization a pass has placed.

    Where kernels were rounded by data this has happened already.

    Args:
        conversion: The quantization-aware model, which is changed in place, the float one and
            the calibration data.

    Returns:
        The conversion.
    """
    original = conversion.float_model
    if original is not None and conversion.spec.correct and not conversion.rounding:
        few = [column[:CORRECTION_EXAMPLES] for column in conversion.columns]
        correct_bias(conversion.model, original, as_inputs(original, few))
    return conversion
