"""Pass: the calibration data as one checked array for each input."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from tfnas.data.representative_dataset import CALIBRATION_EXAMPLES
from tfnas.graph.batchnorm import fitting_columns
from tfnas.keras_private import functional_inside
from tfnas.tflite.conversion_error import NoCalibration
from tfnas.tflite.passes.conversion_state import Conversion

if TYPE_CHECKING:
    import keras

    from tfnas.data.data_types import Arrays


def read_calibration(conversion: Conversion) -> Conversion:
    """Reads at most 500 examples, where the ranges of activations are not known yet.

    Args:
        conversion: A prepared model, the requested formats, and the data.

    Returns:
        The conversion, with `columns`.

    Raises:
        NoCalibration: Data is needed, and there is none.
        ValueError: The data holds other inputs, has the wrong shape, or is not finite.
    """
    spec = conversion.spec
    if conversion.aware or not spec.needs_calibration:
        return conversion
    if conversion.calibration is None:
        raise NoCalibration(
            f"calibration must hold typical inputs for mode {spec.mode!r}, got None: "
            "pass about 100 training examples"
        )
    columns = fitting_columns(
        conversion.model, conversion.calibration, CALIBRATION_EXAMPLES, "calibration"
    )
    return dataclasses.replace(conversion, columns=tuple(columns))


def as_inputs(model: keras.Model, columns: Sequence[np.ndarray]) -> Arrays:
    """Returns arrays in the structure of a model's inputs: an array, a list or a dictionary.

    Args:
        model: A functional model.
        columns: For each input an array of shape (examples, ...).
    """
    import keras

    packed: Arrays = keras.tree.pack_sequence_as(functional_inside(model).input, list(columns))
    return packed
