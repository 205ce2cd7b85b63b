"""Runs TensorFlow's `TFLiteConverter` on a Keras model.

The model is first written as a SavedModel: most as one of constants, which converts faster (see
:mod:`tfnas.tflite.frozen_saved_model`); those that can't be frozen, such as models that assign
variables at inference, with their variables. Inside of :func:`tfnas.isolated` the helper process
converts it, else this one does; the file is the same. A model that can't be written goes through
`TFLiteConverter.from_keras_model`.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from tfnas.keras_private import name_scopes_kept
from tfnas.legacy.rebuild import is_tf_keras
from tfnas.quantization.recurrent_forms import has_placeholders
from tfnas.quantization.spec import QuantSpec
from tfnas.runtime.helper_process import HelperDied, call, is_isolated
from tfnas.tflite.conversion_error import ConversionError, conversion_message, death_message
from tfnas.tflite.forms_for_conversion import traced_for_conversion
from tfnas.tflite.frozen_saved_model import (
    SIGNATURE,
    SharedNames,
    can_be_frozen,
    write_frozen_saved_model,
    write_saved_model,
)
from tfnas.tflite.quiet_converter import quiet_converter
from tfnas.tflite.recurrent_layers import may_be_fused, states_at_rest
from tfnas.tflite.saved_model_converter import (
    NEW_CONVERTER,
    ConverterOptions,
    convert_saved_model,
    convert_stored,
    run,
)

if TYPE_CHECKING:
    import keras

_LOG = logging.getLogger(__name__)


def run_converter(
    model: keras.Model,
    spec: QuantSpec,
    columns: Sequence[np.ndarray],
    *,
    sparse: bool = False,
    aware: bool = False,
) -> bytes:
    """Converts a model with TensorFlow's converter, without checks of the model or the file.

    Args:
        model: A built Keras 3 or tf_keras model with known inputs.
        spec: The formats of weights and activations.
        columns: Calibration data: for each input, in the order of `model.inputs`, an array of
            shape (examples, ...). Empty where the formats need none.
        sparse: Whether kernels are stored in TFLite's sparse encoding.
        aware: Whether the model is quantization-aware: its ranges are in the graph.

    Returns:
        The content of the `.tflite` file.

    Raises:
        ConversionError: TensorFlow can't convert the model; whatever it raises becomes this.
    """
    names = tuple(tensor.name for tensor in model.inputs)
    placeholders = has_placeholders(model)
    options = ConverterOptions(spec, names, sparse, aware, placeholders)
    try:
        with (
            quiet_converter(),
            name_scopes_kept(),
            traced_for_conversion(),
            states_at_rest(model),
            tempfile.TemporaryDirectory() as folder,
        ):
            errors: list[Exception] = []
            saved_model = written_for_converter(model, folder, errors)
            if saved_model is None:
                return _converted_by_keras_way(model, options, columns, errors)
            if not is_isolated() or any(column.dtype.hasobject for column in columns):
                return convert_saved_model(saved_model, SIGNATURE, options, columns)
            return _converted_apart(saved_model, options, columns, folder)
    except HelperDied as error:
        raise ConversionError(death_message(model, spec, error)) from error
    except Exception as error:  # the converter raises many types for one cause
        raise ConversionError(conversion_message(model, spec, error)) from error


def written_for_converter(model: keras.Model, folder: str, errors: list[Exception]) -> str | None:
    """Writes a model as a SavedModel: of constants, or as `from_keras_model` writes it.

    Args:
        model: A built Keras 3 or tf_keras model with known inputs.
        folder: An empty folder.
        errors: Gets what a way that fails raises.

    Returns:
        The SavedModel's folder. None: it can't be written.
    """
    for part, write in (("frozen", _write_frozen), ("entire", write_saved_model)):
        try:
            if write(model, f"{folder}/{part}") is not False:
                return f"{folder}/{part}"
        except SharedNames:
            raise
        except Exception as error:  # there is another way
            _LOG.debug("%s can't be written as a SavedModel (%s): %r", model.name, part, error)
            errors.append(error)
    return None


def _write_frozen(model: keras.Model, directory: str) -> bool:
    if is_tf_keras(model) or not can_be_frozen(model):
        return False
    if may_be_fused(model) or has_placeholders(model):
        return False  # freezing inlines the functions that the converter replaces by an operator
    return write_frozen_saved_model(model, directory)


def _converted_apart(
    saved_model: str,
    options: ConverterOptions,
    columns: Sequence[np.ndarray],
    folder: str,
) -> bytes:
    """Converts a SavedModel in the helper process; the calibration data goes through files."""
    paths = []
    for number, column in enumerate(columns):
        paths.append(f"{folder}/{number}.npy")
        np.save(paths[-1], column, allow_pickle=False)
    return call(convert_stored, saved_model, SIGNATURE, options, paths)


def _converted_by_keras_way(
    model: keras.Model,
    options: ConverterOptions,
    columns: Sequence[np.ndarray],
    errors: Sequence[Exception],
) -> bytes:
    """Converts by `from_keras_model`, which needs no SavedModel; always in this process.

    Where it fails too, the first of the errors of the other ways is the reason: its own, of a model
    that can't be traced, is one of Keras 2.
    """
    import tensorflow as tf

    try:
        with NEW_CONVERTER:
            converter = tf.lite.TFLiteConverter.from_keras_model(model)
        return run(converter, options, columns)
    except Exception as error:
        if errors:
            raise errors[0] from error
        raise
