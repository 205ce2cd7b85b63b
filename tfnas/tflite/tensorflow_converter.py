"""Runs TensorFlow's `TFLiteConverter` on a Keras model.

Most models are first written as a frozen SavedModel, which converts faster (see
:mod:`tfnas.tflite.frozen_saved_model`). Models that can't be frozen, such as those that assign
variables at inference, go through `TFLiteConverter.from_keras_model`.
"""

from __future__ import annotations

import contextlib
import io
import logging
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from tfnas.legacy.rebuild import is_tf_keras
from tfnas.quantization.spec import QuantSpec
from tfnas.tflite.conversion_error import ConversionError, conversion_message
from tfnas.tflite.frozen_saved_model import (
    SharedNames,
    can_be_frozen,
    without_old_garbage,
    write_frozen_saved_model,
)

if TYPE_CHECKING:
    import keras
    import tensorflow as tf

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
    try:
        with quiet_converter(), _converter(model) as converter:
            _set_formats(converter, model, spec, columns, sparse, aware)
            return bytes(converter.convert())
    except Exception as error:  # the converter raises many types for one cause
        raise ConversionError(conversion_message(model, spec, error)) from error


def _set_formats(
    converter: tf.lite.TFLiteConverter,
    model: keras.Model,
    spec: QuantSpec,
    columns: Sequence[np.ndarray],
    sparse: bool,
    aware: bool,
) -> None:
    import tensorflow as tf

    if spec.mode != "float32":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if sparse:
        sparsity = tf.lite.Optimize.EXPERIMENTAL_SPARSITY
        converter.optimizations = [*converter.optimizations, sparsity]
    if spec.mode == "float16":
        converter.target_spec.supported_types = [tf.float16]
    int16 = tf.lite.OpsSet.EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8
    if aware:  # ranges are in the graph; TFLITE_BUILTINS_INT8 would require calibration data
        converter.inference_input_type = converter.inference_output_type = tf.as_dtype(
            spec.activations
        )
        if spec.activations == "int16":
            converter.target_spec.supported_ops = [int16, tf.lite.OpsSet.TFLITE_BUILTINS]
    elif spec.needs_calibration:
        int8 = tf.lite.OpsSet.TFLITE_BUILTINS_INT8
        converter.target_spec.supported_ops = [int16 if spec.activations == "int16" else int8]
        converter.representative_dataset = _representative_dataset(model, columns)
        converter.inference_input_type = converter.inference_output_type = tf.as_dtype(
            spec.activations
        )


@contextlib.contextmanager
def _converter(model: keras.Model) -> Iterator[tf.lite.TFLiteConverter]:
    """TensorFlow's converter for a model, from a frozen SavedModel where that is possible."""
    import tensorflow as tf

    if not is_tf_keras(model) and can_be_frozen(model):
        with tempfile.TemporaryDirectory() as directory, without_old_garbage():
            converter = _frozen_converter(model, directory)
            if converter is not None:
                yield converter
                return
    yield tf.lite.TFLiteConverter.from_keras_model(model)


def _frozen_converter(model: keras.Model, directory: str) -> tf.lite.TFLiteConverter | None:
    """The converter for a frozen SavedModel; None where the model can't be written as one."""
    import tensorflow as tf

    try:
        if write_frozen_saved_model(model, directory):
            return tf.lite.TFLiteConverter.from_saved_model(directory)
    except SharedNames:
        raise
    except Exception as error:  # a shortcut that fails must not fail the conversion
        _LOG.debug("%s: from_keras_model converts, freezing failed: %r", model.name, error)
    return None


def _representative_dataset(
    model: keras.Model, columns: Sequence[np.ndarray]
) -> Callable[[], Iterator[dict[str, np.ndarray]]]:
    names = [tensor.name for tensor in model.inputs]

    def examples() -> Iterator[dict[str, np.ndarray]]:
        for i in range(len(columns[0])):
            yield {name: column[i : i + 1] for name, column in zip(names, columns, strict=True)}

    return examples


@contextlib.contextmanager
def quiet_converter() -> Iterator[None]:
    """Hides the converter's prints, log messages and harmless warnings while it is open."""
    import tensorflow as tf

    logger = tf.get_logger()  # in a notebook it logs every folder it writes
    level = logger.level
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Statistics for quantized inputs were expected")
        # Issued by the converter's own calibrator.
        warnings.filterwarnings("ignore", r"\s*Warning: tf\.lite\.Interpreter is deprecated")
        logger.setLevel(max(level, logging.WARNING))
        try:
            yield
        finally:
            logger.setLevel(level)
