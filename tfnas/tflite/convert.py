"""Conversion of a Keras model to an :class:`Artifact`: the only place in tfnas that converts.

This module decides how a model is converted. TensorFlow's converter itself runs in
:mod:`tfnas.tflite.tensorflow_converter`. Every file is checked after conversion: the element types
of its inputs and outputs (and of every tensor, if all must be integers) are read back from the
file, and the interpreter must accept it.
"""

from __future__ import annotations

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
from tfnas.tflite.flatbuffer import read_graphs
from tfnas.tflite.quantizer_recipes import apply_recipe, weights_recipe
from tfnas.tflite.tensorflow_converter import run_converter

if TYPE_CHECKING:
    import keras

    from tfnas.data.data_types import CalibrationData

CORRECTION_EXAMPLES = 256
SPARSE_MODES = ("float32", "float16", "int8")
INT8_HINT = " (XNNPACK takes int8 dense layers only unpruned or in 1x16 blocks)"


def to_tflite(
    model: keras.Model,
    mode: str | QuantSpec = "float32",
    calibration: CalibrationData | None = None,
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
        mode: The number formats of the file, as a :class:`tfnas.QuantSpec` (which may give
            single layers another format) or as one of these names:

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
            At most 500 examples are used: evenly spaced ones of arrays, the first ones of other
            data.
        sparse: Whether kernels of which at least 30% is zero are stored without the zeros. This
            makes the file smaller, not faster; gzip makes a dense file nearly as small.
            Possible in three modes: "float32"; "float16", for models without transposed
            convolutions and without dense layers pruned in 1x4 blocks; "int8", for models whose
            dense layers are unpruned or pruned in 1x16 blocks. The `origin` of the artifact then
            holds the size of the dense file: `dense_size` and `dense_gzip_size`, in bytes.

    Returns:
        The artifact.

    Raises:
        ValueError: The mode is unknown, the model is not built, `calibration` is missing, has a
            wrong shape or contains NaN, or the mode has no sparse files.
        ConversionError: An operation has no TFLite kernel (the message names its layer),
            TensorFlow can't export the model, or the file does not have the formats of the mode.
            With `sparse` also if no kernel has enough zeros, if the file is not smaller than the
            dense one, or if its outputs differ from those of the dense one.
        RuntimeError: Keras runs on another backend than TensorFlow.

    References:
        `tf.lite.TFLiteConverter`: https://www.tensorflow.org/api_docs/python/tf/lite/TFLiteConverter
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
    content = run_converter(model, spec, columns, aware=aware)
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
    content = run_converter(model, spec, columns, sparse=True)
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
