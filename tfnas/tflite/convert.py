"""Conversion of a Keras model to an :class:`Artifact`: the only place in tfnas that converts.

Every file is checked after conversion: the element types of its inputs and outputs (and of every
tensor, if all must be integers) are read back from the file, and the interpreter must accept it.
"""

from __future__ import annotations

import contextlib
import io
import logging
import re
import tempfile
import warnings
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from tfnas.data.representative_dataset import CALIBRATION_EXAMPLES
from tfnas.graph.batchnorm import fitting_columns
from tfnas.keras_private import all_layers, functional_inside
from tfnas.legacy.rebuild import is_tf_keras
from tfnas.legacy.tfmot_qat import computes_in_float, is_quantized
from tfnas.quantization.bias_correction import correct_bias
from tfnas.quantization.float32_model import half_precision_layers, to_float32
from tfnas.quantization.quantize_aware import (
    fake_quants,
    quantize_aware,
    strip_quantization,
    unquantized_layers,
)
from tfnas.quantization.quantized_kernel import QuantizedKernel
from tfnas.quantization.spec import QuantSpec
from tfnas.tflite.artifact import Artifact
from tfnas.tflite.conversion_error import ConversionError, NoCalibration
from tfnas.tflite.file_sparsity import sparse_fault
from tfnas.tflite.flatbuffer import innermost, read_graphs
from tfnas.tflite.frozen_saved_model import (
    can_be_frozen,
    without_old_garbage,
    write_frozen_saved_model,
)
from tfnas.tflite.graph_repair import repair
from tfnas.tflite.quantizer_recipes import apply_recipe, weights_recipe

if TYPE_CHECKING:
    import keras

CORRECTION_EXAMPLES = 256
SPARSE_MODES = ("float32", "float16", "int8")
INT8_HINT = " (XNNPACK takes int8 dense layers only unpruned or in 1x16 blocks)"


def to_tflite(
    model: keras.Model,
    mode: str | QuantSpec = "float32",
    calibration: Any = None,
    *,
    sparse: bool = False,
) -> Artifact:
    """Converts a Keras model to a `.tflite` file and checks the file.

    Example:
        >>> import keras, numpy as np, tfnas
        >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)])
        >>> data = np.random.default_rng(0).normal(size=(100, 8))
        >>> tfnas.to_tflite(model, "int8", data).inputs[0].dtype
        'int8'

    Args:
        model: A built Keras 3 model (functional, Sequential, or a subclass of them with
            known inputs), or a tf_keras model.
        mode: "float32", "float16" (weights), "dynamic" (int8 weights, float
            activations), "int4" (the same with 4 bits), "weights8" and "weights4" (the
            same, but weights are dequantized before use), "int8" (every weight and
            activation, inputs and outputs included), "int8x4" (the same with 4-bit
            weights), "int16x8" (int8 weights, int16 activations), or a
            :class:`tfnas.QuantSpec`, which may give some layers another format.
        calibration: Typical inputs for "int8", "int8x4" and "int16x8": arrays, a
            `tf.data.Dataset` or a `keras.utils.PyDataset` (targets are ignored), or a TFLite
            representative dataset: a function that yields lists (one array for each input,
            batch dimension included, in the model's order) or dictionaries by input name. At
            most 500 examples are used, evenly spaced ones of arrays and the first ones of
            other data. 100 are enough for most models.
        sparse: Whether kernels with 30% zeros or more are stored without the zeros. The file
            is smaller, not faster, and a gzipped dense file is nearly as small. For
            "float32", "float16" (without dense layers in 1x4 blocks and without transposed
            convolutions) and "int8" (dense layers unpruned, or in 1x16 blocks). `origin`
            holds the size of the dense file in bytes, plain and gzipped.

    Returns:
        The artifact.

    Raises:
        ValueError: An argument is invalid: calibration data that is missing, has a wrong shape
            or contains NaN, an unknown mode, a model that is not built, a mode without sparse
            files.
        ConversionError: An operation has no TFLite kernel (the message names its layer), or
            the file is not as requested. With `sparse` also if no kernel has enough zeros, or
            the file is not smaller than the dense one or computes something else.
        RuntimeError: Keras runs on another backend than TensorFlow.
    """
    spec = QuantSpec.of(mode)
    if sparse:
        _check_sparse(spec)
    _check_model(model)
    by_tfmot = is_tf_keras(model) and is_quantized(model)
    aware = by_tfmot or bool(fake_quants(model))
    if by_tfmot and spec.mode != "int8":
        raise ValueError(
            f"mode must be 'int8' for model {model.name!r}, which tfmot quantized, got "
            f"{spec.mode!r}"
        )
    if not is_tf_keras(model):
        model = to_float32(model)
    if aware and spec.activations == "float32":
        model, aware = strip_quantization(model), False
    if _needs_recipe(spec):
        return _convert_by_recipe(model, spec)
    if not aware and _needs_fake_quant(spec):
        return _convert_by_fake_quant(model, spec, calibration)
    if aware:
        _check_quantization_aware(model, spec, sparse)
    columns = [] if aware else _calibration_columns(model, spec, calibration)
    content = _convert(model, spec, columns, aware=aware)
    origin = {
        "model": model.name,
        "mode": spec.mode,
        "inputs": [tensor.name for tensor in model.inputs],
        "calibration_examples": len(columns[0]) if columns else 0,
        "quantization_aware": aware,
        **_versions(),
    }
    artifact = Artifact(content, spec.mode, origin)
    partly_float = aware and _stays_partly_float(model, by_tfmot)
    _check_artifact(artifact, spec, allow_floats=partly_float)
    return _convert_sparse(model, spec, columns, artifact) if sparse else artifact


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


def _needs_recipe(spec: QuantSpec) -> bool:
    """Whether ai-edge-quantizer must quantize the weights: the converter has no such format."""
    if spec.needs_calibration:
        return False
    if spec.layers and spec.weights == "float16":
        raise ValueError(f"layers must be empty for mode 'float16', got {dict(spec.layers)}")
    return bool(spec.layers) or spec.weights == "int4" or spec.weight_only


def _needs_fake_quant(spec: QuantSpec) -> bool:
    """Whether integer activations need fake quantization in the graph, not the converter's own."""
    custom = spec.layers or spec.weights == "int4" or spec.correct
    return spec.needs_calibration and bool(custom or spec.ranges != QuantSpec().ranges)


def _convert_by_recipe(model: keras.Model, spec: QuantSpec) -> Artifact:
    """Converts to float32, then quantizes the weights of each layer."""
    float_file = to_tflite(model)
    artifact = apply_recipe(float_file, weights_recipe(model, float_file, spec))
    artifact = Artifact(artifact.content, spec.mode, {**artifact.origin, "mode": spec.mode})
    _check_artifact(artifact, spec)
    return artifact


def _convert_by_fake_quant(model: keras.Model, spec: QuantSpec, calibration: Any) -> Artifact:
    """Makes the model quantization-aware with the ranges of the calibration data, and converts."""
    if is_tf_keras(model):
        raise ValueError(
            f"model must be a Keras 3 model for 4-bit weights or formats of single layers with "
            f"{spec.activations} activations, got the tf_keras model {model.name!r}"
        )
    columns = _calibration_columns(model, spec, calibration)
    quantized = quantize_aware(model, spec, data=_as_inputs(model, columns))
    if spec.weights == "int4" and not _has_4_bit_kernel(quantized):
        raise ValueError(
            f"mode {spec.mode!r} must give 4 bits to the kernel of some layer, got none in "
            f"{model.name!r} that TFLite and layers={dict(spec.layers)} allow"
        )
    if spec.correct:
        few = [column[:CORRECTION_EXAMPLES] for column in columns]
        correct_bias(quantized, model, _as_inputs(model, few))
    artifact = to_tflite(quantized, spec)
    origin = {"calibration_examples": len(columns[0]), "quantization_aware": False}
    return Artifact(artifact.content, spec.mode, {**artifact.origin, **origin})


def _as_inputs(model: keras.Model, columns: list[np.ndarray]) -> Any:
    """Arrays in the structure of the model's inputs (an array, a list or a dictionary)."""
    import keras

    return keras.tree.pack_sequence_as(functional_inside(model).input, columns)


def _stays_partly_float(model: Any, by_tfmot: bool) -> bool:
    return computes_in_float(model) if by_tfmot else bool(unquantized_layers(model))


def _check_quantization_aware(model: Any, spec: QuantSpec, sparse: bool) -> None:
    """Raises ValueError if a quantization-aware model can't be converted to these formats."""
    if sparse:
        raise ValueError("sparse must be False for a quantization-aware model, got True")
    layers = fake_quants(model)
    wrong = next((layer for layer in layers if layer.bits != spec.activation_bits), None)
    if wrong is not None:
        raise ValueError(
            f"mode must have activations of {wrong.bits} bits as model {model.name!r} was trained "
            f"for, got {spec.mode!r}"
        )
    unknown = [layer.name for layer in layers if not layer.observed]
    if unknown:
        raise ValueError(
            f"model must have seen data before it is exported, got no range for {unknown[0]!r} and "
            f"{len(unknown) - 1} more: train it, or tfnas.quantize_aware(model, data=...)"
        )
    if spec.weights == "int4" and not _has_4_bit_kernel(model):
        raise ValueError(
            f"mode must have weights of 8 bits as model {model.name!r} was trained for, got "
            f"{spec.mode!r}"
        )
    half = half_precision_layers(model)
    if half:
        raise ValueError(
            f"model must compute in float32 to be exported, got {half[0]!r} of another precision, "
            "which can't be rebuilt in float32 because its class has no full get_config()"
        )
    inactive = [layer.name for layer in layers if not layer.active]
    if inactive:
        raise ValueError(f"model must round its activations, got {inactive[0]!r} inactive")


def _has_4_bit_kernel(model: keras.Model) -> bool:
    kernels = (k for k in all_layers(model) if isinstance(k, QuantizedKernel))
    return any(kernel.bits == 4 for kernel in kernels)


def _convert_sparse(
    model: keras.Model, spec: QuantSpec, columns: list[np.ndarray], dense: Artifact
) -> Artifact:
    """Converts again with TFLite's sparse encoding, and compares the file with the dense one."""
    content = _convert(model, spec, columns, sparse=True)
    sizes = {"dense_size": dense.size, "dense_gzip_size": dense.gzip_size}
    artifact = Artifact(content, spec.mode, {**dense.origin, "sparse": True, **sizes})
    try:
        _check_artifact(artifact, spec)
        fault = sparse_fault(artifact, dense)
    except RuntimeError as error:  # a ConversionError, or one of the interpreter
        fault = f"{error}{INT8_HINT if spec.mode == 'int8' else ''}"
    if fault:
        raise ConversionError(f"sparse must be False for model {model.name!r}: {fault}")
    return artifact


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
    if not model.built or not getattr(model, "inputs", None):
        raise ValueError(
            f"model must be built and have known inputs, got {model.name!r}: start it with "
            "keras.Input, or wrap it in a functional model"
        )


def _calibration_columns(model: keras.Model, spec: QuantSpec, calibration: Any) -> list[np.ndarray]:
    """Checks the calibration data and returns one array for each input, in the model's order."""
    if not spec.needs_calibration:
        return []
    if calibration is None:
        raise NoCalibration(
            f"calibration must hold typical inputs for mode {spec.mode!r}, got None: "
            "pass about 100 training examples"
        )
    return fitting_columns(model, calibration, CALIBRATION_EXAMPLES, "calibration")


def _convert(
    model: keras.Model,
    spec: QuantSpec,
    columns: list[np.ndarray],
    sparse: bool = False,
    aware: bool = False,
) -> bytes:
    import tensorflow as tf

    with quiet_converter(), _converter(model) as converter:
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
        try:
            content = bytes(converter.convert())
            return repair(content) if aware else content
        except Exception as error:  # the converter raises many types for one cause
            raise ConversionError(_error_message(model, spec, error)) from error


@contextlib.contextmanager
def _converter(model: keras.Model) -> Iterator[Any]:
    """TensorFlow's converter for a model, from a frozen SavedModel where that is possible."""
    import tensorflow as tf

    if not is_tf_keras(model) and can_be_frozen(model):
        with tempfile.TemporaryDirectory() as directory, without_old_garbage():
            if write_frozen_saved_model(model, directory):
                yield tf.lite.TFLiteConverter.from_saved_model(directory)
                return
    yield tf.lite.TFLiteConverter.from_keras_model(model)


def _representative_dataset(
    model: keras.Model, columns: list[np.ndarray]
) -> Callable[[], Iterator[dict[str, np.ndarray]]]:
    names = [tensor.name for tensor in model.inputs]

    def examples() -> Iterator[dict[str, np.ndarray]]:
        for i in range(len(columns[0])):
            yield {name: column[i : i + 1] for name, column in zip(names, columns, strict=True)}

    return examples


@contextlib.contextmanager
def quiet_converter() -> Iterator[None]:
    """Hides the converter's prints, log messages and harmless warnings."""
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


def _error_message(model: keras.Model, spec: QuantSpec, error: Exception) -> str:
    """One line with the operation that has no kernel and its layer, where the error has them."""
    text = str(error)
    # Scopes such as loc("model_1/gelu_1/Erf"); an operation may add inner scopes.
    scopes = re.findall(r'"([\w./;-]+/[\w./;-]+)', text)
    layers = sorted({name for scope in scopes if (name := _innermost_layer(scope, model))})
    ops = sorted(
        set(
            re.findall(r"(?:Flex ops|Custom ops|failed to legalize operation): ?'?([\w., ]+)", text)
        )
    )
    ops += sorted(set(re.findall(r"'(tf\.\w+|tfl\.\w+)' op", text)))
    cause = text.strip().splitlines()[0][:200] if text.strip() else type(error).__name__
    where = f" in layer {', '.join(layers)}" if layers else ""
    if ops:
        cause = f"operation {', '.join(op.strip() for op in ops)} has no TFLite kernel"
    return f"model {model.name!r} can't be converted to {spec.mode}: {cause}{where}"


def _innermost_layer(scope: str, model: keras.Model) -> str | None:
    """The last part of a scoped name that is a layer of the model."""
    names = {layer.name for layer in all_layers(model, include_self=False)}
    return innermost(scope.split(";")[0].split("/"), names)


def _check_artifact(artifact: Artifact, spec: QuantSpec, allow_floats: bool = False) -> None:
    """Raises ConversionError if the file does not have the requested formats, or does not run."""
    if spec.needs_calibration and not allow_floats:
        operators = [op for graph in read_graphs(artifact.content) for op in graph.operators]
        wrong = [
            f"{tensor.dtype} {tensor.name!r} of layer {op.layer!r} ({op.name})"
            # Name an operator that computes in floats, not the (DE)QUANTIZE beside it.
            for op in sorted(operators, key=lambda op: "QUANTIZE" in op.name)
            for tensor in (*op.inputs, *op.outputs)
            if tensor.dtype.startswith("float")
        ]
        if wrong:
            raise ConversionError(
                f"file must hold no float tensor in mode {spec.mode!r}, got {wrong[0]}"
                f" and {len(wrong) - 1} more"
            )
    ends = {"inputs": artifact.graph.inputs, "outputs": artifact.graph.outputs}
    for what, tensors in ends.items():
        for tensor in tensors:
            quantized = tensor.dtype in ("int8", "int16", "float32")
            if quantized and tensor.dtype != spec.activations:
                raise ConversionError(
                    f"{what} of the file must be {spec.activations}, got {tensor.dtype} "
                    f"{tensor.name!r}"
                )
    try:
        artifact.interpreter()
    except (RuntimeError, ValueError) as error:
        raise ConversionError(
            f"file of mode {spec.mode!r} was written, but the interpreter refuses it: "
            f"{str(error).splitlines()[0]}"
        ) from error


def _versions() -> dict[str, str]:
    import keras
    import tensorflow as tf

    return {"tensorflow": tf.__version__, "keras": keras.__version__}
