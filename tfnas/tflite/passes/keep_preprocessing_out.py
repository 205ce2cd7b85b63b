"""Pass: the model without lookups, hashes and bins in front, which no file can hold."""

from __future__ import annotations

import dataclasses
import logging
from typing import TYPE_CHECKING, Any

from tfnas.data.reading import spread
from tfnas.data.representative_dataset import (
    CALIBRATION_EXAMPLES,
    is_representative_dataset,
    representative_arrays,
)
from tfnas.graph.preprocessing import preprocessed, preprocessing_layers, split_preprocessing
from tfnas.legacy.rebuild import is_tf_keras
from tfnas.tflite.passes.conversion_state import Conversion

if TYPE_CHECKING:
    import keras

_LOG = logging.getLogger(__name__)


def keep_preprocessing_out(conversion: Conversion) -> Conversion:
    """Takes preprocessing out of the model, and sends the calibration data through it.

    Args:
        conversion: A model with known inputs.

    Returns:
        The conversion, with `kept_out`.

    Raises:
        ValueError: Preprocessing comes after layers that are trained.
    """
    if is_tf_keras(conversion.model):
        return conversion
    front, rest = split_preprocessing(conversion.model)
    if front is None:
        return conversion
    names = preprocessing_layers(front)
    inputs = ", ".join(f"{each.name} {each.dtype} {list(each.shape)}" for each in rest.inputs)
    _LOG.warning(
        "model %r: %s stay out of the file, which takes %s; tfnas.split_preprocessing has the "
        "model that makes them",
        *(rest.name, ", ".join(names), inputs),
    )
    calibration = conversion.calibration
    if calibration is not None:
        calibration = _preprocessed(front, rest, calibration)
    return dataclasses.replace(conversion, model=rest, calibration=calibration, kept_out=names)


def _preprocessed(front: keras.Model, rest: keras.Model, data: Any) -> Any:
    """Calibration data as the rest of the model takes it."""
    if is_representative_dataset(data):
        x: Any = representative_arrays(data, CALIBRATION_EXAMPLES, "calibration")
    else:
        x = spread(data, CALIBRATION_EXAMPLES, "calibration")
    if isinstance(x, dict) and set(x) == {each.name for each in rest.inputs}:
        return x
    return preprocessed(front, x)
