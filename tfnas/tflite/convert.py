"""Conversion of a Keras model to an :class:`Artifact`: the only place in tfnas that converts.

A conversion is a row of passes (`PASSES`), each in a file of its own in :mod:`tfnas.tflite.passes`
and entered once. :func:`to_tflite` checks its arguments and runs the row. Every file is checked
after conversion: the element types of its inputs and outputs (and of every tensor, if all must be
integers) are read back from the file, and the interpreter must accept it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import numbers
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from tfnas.graph.functional_form import opaque_form
from tfnas.graph.precision import new_layers_of
from tfnas.legacy.rebuild import is_tf_keras
from tfnas.quantization.spec import FLOAT, QuantSpec
from tfnas.tflite.artifact import Artifact
from tfnas.tflite.conversion_error import ConversionError
from tfnas.tflite.gpu_forms.gpu_form import check_fit_for, fitted_for
from tfnas.tflite.passes.check_fake_quantization import check_fake_quantization
from tfnas.tflite.passes.check_weights import check_weights
from tfnas.tflite.passes.conversion_state import Conversion
from tfnas.tflite.passes.convert_model import convert
from tfnas.tflite.passes.correct_batchnorm import correct
from tfnas.tflite.passes.encode_sparsely import encode_sparsely
from tfnas.tflite.passes.fix_batch import fix_batch
from tfnas.tflite.passes.integer_loops import write_integer_loops
from tfnas.tflite.passes.keep_preprocessing_out import keep_preprocessing_out
from tfnas.tflite.passes.place_fake_quantization import place_fake_quantization
from tfnas.tflite.passes.prepare_model import prepare
from tfnas.tflite.passes.quantize_weights import quantize_weights
from tfnas.tflite.passes.read_calibration import read_calibration
from tfnas.tflite.passes.repair_file import repair_file
from tfnas.tflite.passes.share_vectors import share_vectors
from tfnas.tflite.passes.validate_file import validate
from tfnas.tflite.passes.write_states import keep_one_frame, write_states
from tfnas.tflite.size_comparison import with_comparison

if TYPE_CHECKING:
    import keras

    from tfnas.data.data_types import CalibrationData
    from tfnas.graph.functional_form import InputShape

_LOG = logging.getLogger(__name__)
STREAM_MODES = ("float32", "int8", "int16x8")
SPARSE_MODES = ("float32", "float16", "int8")
PASSES: tuple[Callable[[Conversion], Conversion], ...] = (
    keep_preprocessing_out,
    prepare,
    check_weights,
    read_calibration,
    place_fake_quantization,
    correct,
    check_fake_quantization,
    keep_one_frame,
    fix_batch,
    convert,
    write_integer_loops,
    write_states,
    repair_file,
    share_vectors,
    validate,
    quantize_weights,
    encode_sparsely,
)


def to_tflite(
    model: keras.Model,
    mode: str | QuantSpec | None = None,
    calibration: CalibrationData | None = None,
    *,
    sparse: bool = False,
    rounding: str | None = None,
    budget_seconds: float | None = None,
    input_shape: InputShape | None = None,
    streaming: bool = False,
    fit_for: str | None = None,
    batch_size: int | None = None,
) -> Artifact:
    """Converts a Keras model to a `.tflite` file and checks the file.

    Example:
        >>> import keras, numpy as np, tfnas
        >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)])
        >>> data = np.random.default_rng(0).normal(size=(100, 8))
        >>> tfnas.to_tflite(model, "int8", data).inputs[0].dtype
        'int8'

    Args:
        model: A Keras 3 model, or a tf_keras model. A subclassed one is opened, see
            :func:`tfnas.as_functional`; where it can't be, its file is written by Keras' export,
            in the formats that need no change of layers. Lookups of words, hashes and bins in front
            of a model stay out of the file, see :func:`tfnas.split_preprocessing`.
        mode: The number formats of the file, as a :class:`tfnas.QuantSpec` (which may give
            single layers another format) or as one of the names below. None: of a
            quantization-aware model the formats that it was trained for, of others "float32".

            - "float32";
            - "float16": weights of 16 bits;
            - "dynamic" and "int4": weights of 8 or 4 bits, float activations; operators
              compute in integers;
            - "weights8" and "weights4": the same, but operators compute in floats, with
              weights that are dequantized first;
            - "int8" and "int8x4": weights of 8 or 4 bits, 8-bit activations; inputs and outputs
              of the file are int8 too;
            - "int16x8": weights of 8 bits, 16-bit activations.
        calibration: Typical inputs, which "int8", "int8x4" and "int16x8" need to find the ranges
            of activations; 100 are enough for most models. Accepted are arrays of shape
            (examples, ...), a `tf.data.Dataset`, a `keras.utils.PyDataset` (targets are ignored
            in both), or a TFLite representative dataset. That is a function without arguments.
            It yields lists of arrays of shape (batch, ...) in the order of `model.inputs`,
            dictionaries by input name, or tuples of a signature key and such a dictionary.
            At most 500 examples are used: of arrays one of each equal part, drawn at random, of
            other data the first ones. A quantization-aware model has its ranges from its training:
            data for it is not used, which a warning says.
        sparse: Whether kernels of which at least 30% is zero are stored without the zeros. This
            makes the file smaller, not faster; gzip makes a dense file nearly as small.
            Possible in three modes: "float32"; "float16", for models without transposed
            convolutions and without dense layers pruned in 1x4 blocks; "int8", for models whose
            dense layers are unpruned or pruned in 1x16 blocks. The `origin` of the artifact then
            holds the size of the dense file: `dense_size` and `dense_gzip_size`, in bytes.
        rounding: "nearest" or "second_order", see :class:`tfnas.QuantSpec`. Integers chosen by
            "second_order" need no training and lose far less at 4 bits. Depthwise convolutions,
            the first and the last layer, and small layers that lose much, then keep 8 bits, up to
            `eight_bit_share` of the weights, and Dense layers of 4 bits become
            convolutions of size 1, which have one scale per channel. The `origin` of the artifact
            holds, under "rounding", the bits and the output error of each layer. Progress and the
            time left are logged with level INFO, by the logger "tfnas". None: the rounding of
            `mode`.
        budget_seconds: With `rounding`, the time after which no further layer is fitted: the
            others are rounded to nearest, and their records say so. None: no limit.
        input_shape: Shape of the input without the batch, for a model that leaves it open: a
            Sequential model without `keras.Input`, a series of any length. For several inputs a
            list of shapes, or a dictionary by input name.
        streaming: Whether the file takes one frame of a sequence and the state after the frames
            before, and returns the output for it and the new state, in the modes "float32",
            "int8" and "int16x8". It computes what the file of the whole sequence computes.
            The model has recurrent layers or causal convolutions, and layers that take each frame
            by itself. :class:`tfnas.FileStream` runs it.
        fit_for: "gpu": operators that TFLite's GPU delegate refuses get other forms with equal
            outputs, where it takes more of the file then (see :func:`tfnas.readiness`). Such a file
            is for a batch of 1. Its outputs are compared with those of the file as it was, on
            random inputs and on ends of ranges; they differ by at most 1e-5 of the largest of an
            example. The `origin` of the artifact holds, under "fit_for", what was rewritten and the
            shares of multiply-accumulates that are predicted to be delegated before and after.
            None: the file stays as it is converted.
        batch_size: Examples that the file takes at once, where the model leaves the number open.
            TFLite Micro needs a fixed one, 1, where shapes are computed from it, as in recurrent
            and attention layers. None: it stays open.

    Returns:
        The artifact. Where an integer file has more bytes than the one of mode "dynamic" or
        "float32", its `origin` holds theirs under "larger_than", and a warning is logged. Files
        below 16 kB are not compared.

    Raises:
        ValueError: The mode is unknown, the model is not built, a layer can't be streamed,
            `calibration` is missing, has a wrong shape or contains NaN, the mode has no sparse
            files, `fit_for` is unknown or meets a sparse or streaming file, or `batch_size` is not
            positive or is none for this model.
        ConversionError: A weight is NaN or infinite, or an operation has no TFLite kernel (the
            message names the layer); TensorFlow can't export the model; inside of
            :func:`tfnas.isolated`, the converter ended its process; or the file does not have the
            formats of the mode.
            With `sparse` also if no kernel has enough zeros, if the file is not smaller than the
            dense one, or if its outputs differ from those of the dense one.
        RuntimeError: Keras runs on another backend than TensorFlow.

    References:
        `tf.lite.TFLiteConverter`: https://www.tensorflow.org/api_docs/python/tf/lite/TFLiteConverter
    """
    spec = _formats(model, mode)
    if rounding is not None:
        spec = dataclasses.replace(spec, rounding=rounding)
    with _formats_explained(mode, spec):
        _check_budget(budget_seconds, spec)
        if sparse:
            _check_sparse(spec)
        _check_model(model)
        if streaming:
            _check_streaming(model, spec, sparse)
        if fit_for is not None:
            check_fit_for(fit_for)
            _check_fits(fit_for, sparse, streaming)
        given = model
        if not is_tf_keras(model):
            model = opaque_form(model, calibration, input_shape)
        if calibration is not None and model is given:  # else its shape was read
            _warn_of_unused(model, spec, mode)
        _check_batch(batch_size, model, streaming)
        file = converted(
            Conversion(model, spec, calibration, sparse, budget_seconds, streaming, batch_size)
        )
    if fit_for is not None:
        file = fitted_for(file, fit_for)
    if streaming or sparse:
        return file

    def other_file(other: str) -> Artifact:
        return converted(Conversion(model, QuantSpec.of(other), quiet=True))

    return with_comparison(file, model, spec, other_file)


def _warn_of_unused(model: Any, spec: QuantSpec, mode: str | QuantSpec | None) -> None:
    """Says where calibration data changes nothing and the call looks as if it should."""
    from tfnas.quantization.aware_models import trained_formats

    if spec.needs_calibration and trained_formats(model) is not None:
        _LOG.warning(
            "calibration is not used: the quantization-aware model %r holds the ranges of its "
            "training; tfnas.calibrate(model, data) widens them",
            model.name,
        )
    elif mode is None and spec.mode == FLOAT:
        _LOG.warning(
            "calibration is not used: without a mode the file of %r is of floats; mode='int8' "
            "uses it",
            model.name,
        )


def _formats(model: Any, mode: str | QuantSpec | None) -> QuantSpec:
    from tfnas.quantization.aware_models import trained_formats

    trained = trained_formats(model) if mode is None else None
    return trained or QuantSpec.of(mode or FLOAT)


@contextlib.contextmanager
def _formats_explained(mode: str | QuantSpec | None, spec: QuantSpec) -> Iterator[None]:
    """Says in errors where the number formats come from, if the caller named none."""
    try:
        yield
    except (ValueError, ConversionError) as error:
        if mode is not None or spec.mode == FLOAT:
            raise
        kind = ConversionError if isinstance(error, ConversionError) else ValueError
        raise kind(
            f"{error} (mode is {spec.mode!r}, what the model was trained for; mode='float32' "
            "writes a file of floats)"
        ) from error


def converted(conversion: Conversion) -> Artifact:
    """Returns the file of a conversion, which is not compared with files of other modes.

    Args:
        conversion: A checked model, with the formats of its file.
    """
    with new_layers_of("float32"):  # whatever the policy of Keras is
        for run in PASSES:
            conversion = run(conversion)
    return conversion.file


def _check_budget(budget: float | None, spec: QuantSpec) -> None:
    if budget is None:
        return
    if isinstance(budget, bool) or not isinstance(budget, int | float) or not budget > 0:
        raise ValueError(f"budget_seconds must be a number above 0, got {budget!r}")
    if not spec.rounds:
        raise ValueError(f"budget_seconds goes with rounding 'second_order', got {budget!r}")


def _check_sparse(spec: QuantSpec) -> None:
    if spec.mode not in SPARSE_MODES:
        raise ValueError(
            f"sparse must be False for the modes other than {', '.join(SPARSE_MODES)}, "
            f"got True for {spec.mode!r}: the interpreter refuses or misreads such files"
        )
    if spec.layers:
        raise ValueError(
            f"sparse must be False if layers have other formats, got {dict(spec.layers)}"
        )
    if spec.rounds:
        raise ValueError(f"sparse must be False for rounding {spec.rounding!r}, got True")
    if spec.needs_calibration and (spec.correct or spec.ranges != QuantSpec().ranges):
        raise ValueError(
            "sparse must be False for an integer file with corrected biases or with ranges other "
            f"than {QuantSpec().ranges!r}, got True with correct={spec.correct} and "
            f"ranges={spec.ranges!r}"
        )


def _check_streaming(model: Any, spec: QuantSpec, sparse: bool) -> None:
    if is_tf_keras(model):
        raise ValueError(
            f"model must be a Keras 3 model for streaming, got the tf_keras model {model.name!r}"
        )
    if spec.mode not in STREAM_MODES:
        raise ValueError(
            f"mode must be one of {', '.join(STREAM_MODES)} for streaming, got {spec.mode!r}"
        )
    if sparse:
        raise ValueError("sparse must be False for streaming, got True")


def _check_fits(fit_for: str, sparse: bool, streaming: bool) -> None:
    if sparse or streaming:
        raise ValueError(
            f"fit_for must be None for sparse and for streaming files, got {fit_for!r} with "
            f"sparse={sparse} and streaming={streaming}"
        )


def _check_batch(size: int | None, model: Any, streaming: bool) -> None:
    if size is None:
        return
    if isinstance(size, bool) or not isinstance(size, numbers.Integral) or size < 1:
        raise ValueError(f"batch_size must be a whole number of at least 1, got {size!r}")
    if streaming:
        raise ValueError(f"batch_size must be None for a streaming file, got {size}")
    if is_tf_keras(model):
        raise ValueError(
            f"batch_size must be None for the tf_keras model {model.name!r}, got {size}: "
            "tfnas.legacy.from_tf_keras makes a Keras 3 model of it"
        )
    own = {tensor.shape[0] for tensor in model.inputs} - {None}
    if own - {size}:
        raise ValueError(f"batch_size must be the model's own, {min(own)}, or None, got {size}")


def _check_model(model: Any) -> None:
    import keras

    if keras.backend.backend() != "tensorflow":
        raise RuntimeError(
            "Keras must run on the TensorFlow backend to write .tflite files, got "
            f"{keras.backend.backend()!r}: set KERAS_BACKEND=tensorflow, or load the saved "
            ".keras file in such a process"
        )
    if not isinstance(model, keras.Model) and not is_tf_keras(model):
        raise ValueError(f"model must be a Keras 3 or tf_keras model, got {type(model).__name__}")
    if isinstance(getattr(model, "student", None), keras.Model):
        raise ValueError(
            f"model must be the model to deploy, got the {type(model).__name__} {model.name!r}: "
            f"give its student, {model.name}.student"
        )
