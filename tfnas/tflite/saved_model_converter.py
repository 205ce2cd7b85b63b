"""Runs TensorFlow's converter on a SavedModel; the helper process imports this module.

So it imports neither Keras nor more of tfnas than it needs.
"""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from tfnas.keras_private import change_before_integer_ends, converter_of
from tfnas.quantization.spec import QuantSpec
from tfnas.tflite.calibrated_ranges import check_calibrated
from tfnas.tflite.shared_outputs import split_shared_outputs

if TYPE_CHECKING:
    import tensorflow as tf


# Held while a converter is made: TensorFlow keeps what it is made from in a variable of its class.
NEW_CONVERTER = threading.Lock()


class ConverterFailed(Exception):
    """TensorFlow's converter raised an error of this text."""


@dataclasses.dataclass(frozen=True)
class ConverterOptions:
    """What the converter is asked for.

    Args:
        spec: The formats of weights and activations.
        inputs: Names of the model's inputs, in their order.
        sparse: Whether kernels are stored in TFLite's sparse encoding.
        aware: Whether the model is quantization-aware: its ranges are in the graph.
        placeholders: Whether a pass writes operators in the place of custom ones.
    """

    spec: QuantSpec
    inputs: tuple[str, ...]
    sparse: bool = False
    aware: bool = False
    placeholders: bool = False


def convert_stored(
    saved_model: str,
    signature: str,
    options: ConverterOptions,
    columns: Sequence[str],
) -> bytes:
    """Converts a SavedModel with calibration data in files: for the helper process.

    Args:
        saved_model: As for :func:`convert_saved_model`.
        signature: As there.
        options: As there.
        columns: For each input the path of an array.

    Returns:
        The content of the `.tflite` file.

    Raises:
        ConverterFailed: The converter raised an error.
    """
    arrays = [np.load(path, mmap_mode="r", allow_pickle=False) for path in columns]
    try:
        return convert_saved_model(saved_model, signature, options, arrays)
    except Exception as error:  # of many types, some of which do not pickle
        raise ConverterFailed(str(error) or type(error).__name__) from None


def convert_saved_model(
    saved_model: str,
    signature: str,
    options: ConverterOptions,
    columns: Sequence[np.ndarray],
) -> bytes:
    """Converts a SavedModel.

    Args:
        saved_model: Its folder.
        signature: The one that is converted.
        options: The formats.
        columns: Calibration data: for each input an array of shape (examples, ...).

    Returns:
        The content of the `.tflite` file.

    Raises:
        Exception: TensorFlow can't convert it.
    """
    import tensorflow as tf

    with without_old_garbage():
        with NEW_CONVERTER:
            if os.path.exists(os.path.join(saved_model, "debug")):  # names lines in errors
                converter = tf.lite.TFLiteConverter.from_saved_model(saved_model, [signature])
            else:
                converter = converter_of(saved_model, signature, check_calibrated)
        return run(converter, options, columns)


def run(
    converter: tf.lite.TFLiteConverter, options: ConverterOptions, columns: Sequence[np.ndarray]
) -> bytes:
    """Sets the formats of a converter, and converts.

    Args:
        converter: TensorFlow's converter.
        options: The formats.
        columns: Calibration data: for each input an array of shape (examples, ...).

    Returns:
        The content of the `.tflite` file.
    """
    _set_formats(converter, options, columns)
    return bytes(converter.convert())


@contextlib.contextmanager
def without_old_garbage() -> Iterator[None]:
    """Excludes existing objects from garbage collection while the context is open.

    The converter runs the garbage collector during each conversion. In a process that has
    trained networks, scanning all existing objects takes longer than the conversion.
    """
    if gc.get_freeze_count():  # keep the user's own gc.freeze()
        yield
        return
    # The caller's garbage in reference cycles that exists now is not collected until the context is
    # closed; `unfreeze` makes all objects collectable again, in all threads.
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def _set_formats(
    converter: tf.lite.TFLiteConverter, options: ConverterOptions, columns: Sequence[np.ndarray]
) -> None:
    import tensorflow as tf

    spec = options.spec
    if spec.mode != "float32":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.allow_custom_ops = options.placeholders
    if options.sparse:
        sparsity = tf.lite.Optimize.EXPERIMENTAL_SPARSITY
        converter.optimizations = [*converter.optimizations, sparsity]
    if spec.mode == "float16":
        converter.target_spec.supported_types = [tf.float16]
    int16 = tf.lite.OpsSet.EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8
    if (
        options.aware
    ):  # ranges are in the graph; TFLITE_BUILTINS_INT8 would require calibration data
        converter.inference_input_type = converter.inference_output_type = tf.as_dtype(
            spec.activations
        )
        change_before_integer_ends(converter, split_shared_outputs)
        if spec.activations == "int16":
            converter.target_spec.supported_ops = [int16, tf.lite.OpsSet.TFLITE_BUILTINS]
    elif spec.needs_calibration:
        int8 = tf.lite.OpsSet.TFLITE_BUILTINS_INT8
        converter.target_spec.supported_ops = [int16 if spec.activations == "int16" else int8]
        converter.representative_dataset = _representative_dataset(options.inputs, columns)
        converter.inference_input_type = converter.inference_output_type = tf.as_dtype(
            spec.activations
        )


def _representative_dataset(
    names: Sequence[str], columns: Sequence[np.ndarray]
) -> Callable[[], Iterator[dict[str, np.ndarray]]]:
    def examples() -> Iterator[dict[str, np.ndarray]]:
        for i in range(len(columns[0])):
            yield {
                name: np.asarray(column[i : i + 1])
                for name, column in zip(names, columns, strict=True)
            }

    return examples
