"""From a Keras model to an :class:`Artifact`: the only place in tfnas that converts.

The converter is believed only after a look at what it wrote: the element types of the
file's inputs and outputs (and of every tensor, where all must be integers) are read back,
and the interpreter has to take it.
"""

from __future__ import annotations

import contextlib
import io
import logging
import re
import tempfile
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from tfnas.data.representative_dataset import CALIBRATION_EXAMPLES
from tfnas.graph.batchnorm import fitting_columns
from tfnas.legacy.rebuild import is_tf_keras
from tfnas.legacy.tfmot_qat import computes_in_float, is_quantized
from tfnas.quantization.bias_correction import correct_bias
from tfnas.quantization.float32_model import in_float32, in_half_precision
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
from tfnas.tflite.graph_repair import mend
from tfnas.tflite.quantizer_recipes import apply_recipe, weights_recipe

CORRECTION_EXAMPLES = 256
SPARSE_MODES = ("float32", "float16", "int8")
INT8_HINT = " (XNNPACK takes int8 dense layers only unpruned or in 1x16 blocks)"


def to_tflite(
    model: Any,
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
            known inputs).
        mode: "float32", "float16" (weights), "dynamic" (int8 weights, float
            activations), "int4" (the same with 4 bits), "weights8" and "weights4" (the
            same, unpacked to floats as they are used), "int8" (every weight and
            activation, inputs and outputs included), "int8x4" (the same with 4-bit
            weights), "int16x8" (int8 weights, int16 activations), or a
            :class:`tfnas.QuantSpec`, which may give some layers another format.
        calibration: Typical inputs for "int8", "int8x4" and "int16x8": arrays, a
            `tf.data.Dataset` or a `keras.utils.PyDataset`; targets are ignored and at most
            500 examples are used (of arrays evenly spaced ones, else the first). 100
            are enough for most models.
        sparse: Whether kernels with 30% zeros or more are stored without them. This
            promises a smaller file, no speed; gzip gains most of it from a dense file.
            For "float32", "float16" (no dense layer in 1x4 blocks, no transposed
            convolution) and "int8" (dense layers unpruned, or in 1x16 blocks). `origin`
            tells the dense file's size, plain and gzipped.

    Returns:
        The artifact.

    Raises:
        ValueError: An argument is outside its rule: no calibration data, a wrong shape
            or NaN in it, an unknown mode, a model that was never built, a mode that has
            no sparse files.
        ConversionError: An operation has no TFLite kernel (its layer is named), or the
            file is not what was asked for; a sparse one also where no kernel holds enough
            zeros, where it is not smaller, or computes something else than the dense one.
        RuntimeError: Keras runs on another backend than TensorFlow.
    """
    spec = QuantSpec.of(mode)
    if sparse:
        _check_sparse(spec)
    _check_model(model)
    by_tfmot = is_tf_keras(model) and is_quantized(model)
    trained = by_tfmot or bool(fake_quants(model))
    if by_tfmot and spec.mode != "int8":
        raise ValueError(
            f"mode must be 'int8' for model {model.name!r}, which tfmot quantized, got "
            f"{spec.mode!r}"
        )
    if not is_tf_keras(model):
        model = in_float32(model)
    if trained and spec.activations == "float32":
        model, trained = strip_quantization(model), False
    if _needs_recipe(spec):
        return _by_recipe(model, spec)
    if not trained and _needs_roundings(spec):
        return _by_roundings(model, spec, calibration)
    _check_trained(model, spec, trained, sparse)
    columns = [] if trained else _calibration_columns(model, spec, calibration)
    content = _convert(model, spec, columns, trained=trained)
    origin = {
        "model": model.name,
        "mode": spec.mode,
        "inputs": [tensor.name for tensor in model.inputs],
        "calibration_examples": len(columns[0]) if columns else 0,
        "quantization_aware": trained,
        **_versions(),
    }
    artifact = Artifact(content, spec.mode, origin)
    _verify(artifact, spec, floats=trained and _has_floats(model, by_tfmot))
    return _sparse(model, spec, columns, artifact) if sparse else artifact


def _check_sparse(spec: QuantSpec) -> None:
    if spec.mode not in SPARSE_MODES:
        raise ValueError(
            f"sparse must be False for the modes that are not among {', '.join(SPARSE_MODES)}, "
            f"got True for {spec.mode!r}: the interpreter refuses or misreads such files"
        )
    if spec.layers:
        raise ValueError(
            f"sparse must be False where layers differ in format, got {dict(spec.layers)}"
        )


def _needs_recipe(spec: QuantSpec) -> bool:
    """Whether the converter alone can't make the file: weights of more than one format."""
    if spec.needs_calibration:
        return False
    if spec.layers and spec.weights == "float16":
        raise ValueError(f"layers must be empty for mode 'float16', got {dict(spec.layers)}")
    return bool(spec.layers) or spec.weights == "int4" or spec.weight_only


def _needs_roundings(spec: QuantSpec) -> bool:
    """Whether integer activations are asked for in a way that the converter has no word for."""
    own = spec.layers or spec.weights == "int4" or spec.correct
    return spec.needs_calibration and bool(own or spec.ranges != QuantSpec().ranges)


def _by_recipe(model: Any, spec: QuantSpec) -> Artifact:
    """The float file, its weights then quantized a layer at a time."""
    plain = to_tflite(model)
    artifact = apply_recipe(plain, weights_recipe(model, plain, spec))
    artifact = Artifact(artifact.content, spec.mode, {**artifact.origin, "mode": spec.mode})
    _verify(artifact, spec)
    return artifact


def _by_roundings(model: Any, spec: QuantSpec, calibration: Any) -> Artifact:
    """As after training, with the ranges that the calibration data show."""
    if is_tf_keras(model):
        raise ValueError(
            f"model must be a Keras 3 model for 4-bit weights or a format a layer beside "
            f"{spec.activations} activations, got the tf_keras model {model.name!r}"
        )
    columns = _calibration_columns(model, spec, calibration)
    rounding = quantize_aware(model, spec, data=_packed(model, columns))
    if spec.weights == "int4" and not _four_bits(rounding):
        raise ValueError(
            f"mode {spec.mode!r} must give 4 bits to the kernel of some layer, got none in "
            f"{model.name!r} that TFLite and layers={dict(spec.layers)} allow"
        )
    if spec.correct:
        correct_bias(rounding, model, _packed(model, [c[:CORRECTION_EXAMPLES] for c in columns]))
    artifact = to_tflite(rounding, spec)
    untrained = {"calibration_examples": len(columns[0]), "quantization_aware": False}
    return Artifact(artifact.content, spec.mode, {**artifact.origin, **untrained})


def _packed(model: Any, columns: list[np.ndarray]) -> Any:
    import keras

    functional = getattr(model, "_functional", None) or model  # a Sequential model has one inside
    return keras.tree.pack_sequence_as(functional.input, columns)


def _has_floats(model: Any, by_tfmot: bool) -> bool:
    return computes_in_float(model) if by_tfmot else bool(unquantized_layers(model))


def _check_trained(model: Any, spec: QuantSpec, trained: bool, sparse: bool) -> None:
    """What quantization-aware models alone can do, and what they can't."""
    if not trained:
        return
    if sparse:
        raise ValueError("sparse must be False for a quantization-aware model, got True")
    layers = fake_quants(model)
    wrong = next((layer for layer in layers if layer.bits != spec.activation_bits), None)
    if wrong is not None:
        raise ValueError(
            f"mode must have activations of {wrong.bits} bits as model {model.name!r} was trained "
            f"for, got {spec.mode!r}"
        )
    unseen = [layer.name for layer in layers if not layer.observed]
    if unseen:
        raise ValueError(
            f"model must have seen data before it is exported, got no range for {unseen[0]!r} and "
            f"{len(unseen) - 1} more: train it, or tfnas.quantize_aware(model, data=...)"
        )
    if spec.weights == "int4" and not _four_bits(model):
        raise ValueError(
            f"mode must have weights of 8 bits as model {model.name!r} was trained for, got "
            f"{spec.mode!r}"
        )
    half = in_half_precision(model)
    if half:
        raise ValueError(
            f"model must compute in float32 to be exported, got {half[0]!r} of another precision, "
            "whose class has no get_config() that makes it again in float32"
        )
    idle = [layer.name for layer in layers if not layer.active]
    if idle:
        raise ValueError(f"model must round its activations, got {idle[0]!r} inactive")


def _four_bits(model: Any) -> bool:
    """Whether a quantization-aware model has a kernel of 4 bits."""
    kernels = (k for k in model._flatten_layers() if isinstance(k, QuantizedKernel))
    return any(kernel.bits == 4 for kernel in kernels)


def _sparse(model: Any, spec: QuantSpec, columns: list[np.ndarray], dense: Artifact) -> Artifact:
    """The file again with the sparse encoding, held against the dense one."""
    content = _convert(model, spec, columns, sparse=True)
    sizes = {"dense_size": dense.size, "dense_gzip_size": dense.gzip_size}
    artifact = Artifact(content, spec.mode, {**dense.origin, "sparse": True, **sizes})
    try:
        _verify(artifact, spec)
        fault = sparse_fault(artifact, dense)
    except RuntimeError as error:  # a ConversionError, or the interpreter's own
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
            f"model must be what is to be run, got the {type(model).__name__} {model.name!r}: "
            f"give its student, {model.name}.student"
        )
    if not model.built or not getattr(model, "inputs", None):
        raise ValueError(
            f"model must be built and have known inputs, got {model.name!r}: begin it with "
            "keras.Input, or wrap it in a functional model"
        )


def _calibration_columns(model: Any, spec: QuantSpec, calibration: Any) -> list[np.ndarray]:
    """The calibration data in the order of the model's inputs, checked."""
    if not spec.needs_calibration:
        return []
    if calibration is None:
        raise NoCalibration(
            f"calibration must hold typical inputs for mode {spec.mode!r}, got None: "
            "pass about 100 training examples"
        )
    return fitting_columns(model, calibration, CALIBRATION_EXAMPLES, "calibration")


def _convert(
    model: Any,
    spec: QuantSpec,
    columns: list[np.ndarray],
    sparse: bool = False,
    trained: bool = False,
) -> bytes:
    import tensorflow as tf

    with quiet_converter(), _converter_of(model) as converter:
        if spec.mode != "float32":
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
        if sparse:
            sparsity = tf.lite.Optimize.EXPERIMENTAL_SPARSITY
            converter.optimizations = [*converter.optimizations, sparsity]
        if spec.mode == "float16":
            converter.target_spec.supported_types = [tf.float16]
        int16 = tf.lite.OpsSet.EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8
        if trained:  # its ranges are in the graph; asking for integer operators would want data
            converter.inference_input_type = converter.inference_output_type = tf.as_dtype(
                spec.activations
            )
            if spec.activations == "int16":
                converter.target_spec.supported_ops = [int16, tf.lite.OpsSet.TFLITE_BUILTINS]
        elif spec.needs_calibration:
            int8 = tf.lite.OpsSet.TFLITE_BUILTINS_INT8
            converter.target_spec.supported_ops = [int16 if spec.activations == "int16" else int8]
            converter.representative_dataset = _representative(model, columns)
            converter.inference_input_type = converter.inference_output_type = tf.as_dtype(
                spec.activations
            )
        try:
            content = bytes(converter.convert())
            return mend(content) if trained else content
        except Exception as error:  # the converter raises many types for one cause
            raise ConversionError(_explain(model, spec, error)) from error


@contextlib.contextmanager
def _converter_of(model: Any) -> Iterator[Any]:
    """TensorFlow's converter of a model, as fast as its graph allows."""
    import tensorflow as tf

    if is_tf_keras(model) or not can_be_frozen(model):
        yield tf.lite.TFLiteConverter.from_keras_model(model)
        return
    with tempfile.TemporaryDirectory() as directory, without_old_garbage():
        write_frozen_saved_model(model, directory)
        yield tf.lite.TFLiteConverter.from_saved_model(directory)


def _representative(
    model: Any, columns: list[np.ndarray]
) -> Callable[[], Iterator[dict[str, np.ndarray]]]:
    names = [tensor.name for tensor in model.inputs]

    def examples() -> Iterator[dict[str, np.ndarray]]:
        for i in range(len(columns[0])):
            yield {name: column[i : i + 1] for name, column in zip(names, columns, strict=True)}

    return examples


@contextlib.contextmanager
def quiet_converter() -> Iterator[None]:
    """Keeps what the converter prints, logs and warns of to itself from the terminal."""
    import tensorflow as tf

    logger = tf.get_logger()  # in a notebook it tells of every folder it writes
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


def _explain(model: Any, spec: QuantSpec, error: Exception) -> str:
    """One line: which operation of which layer has no kernel, as far as the error tells."""
    text = str(error)
    # Scopes: loc("model_1/gelu_1/Erf"); an operation may add scopes of its own inside.
    places = re.findall(r'"([\w./;-]+/[\w./;-]+)', text)
    layers = sorted({name for place in places if (name := _innermost_layer(place, model))})
    ops = sorted(
        set(
            re.findall(r"(?:Flex ops|Custom ops|failed to legalize operation): ?'?([\w., ]+)", text)
        )
    )
    ops += sorted(set(re.findall(r"'(tf\.\w+|tfl\.\w+)' op", text)))
    cause = text.strip().splitlines()[0][:200] if text.strip() else type(error).__name__
    where = f" in layer {', '.join(layers)}" if layers else ""
    what = f"operation {', '.join(o.strip() for o in ops)} has no TFLite kernel" if ops else cause
    return f"model {model.name!r} can't be converted to {spec.mode}: {what}{where}"


def _innermost_layer(place: str, model: Any) -> str | None:
    """The last part of a scoped name that is a layer of the model, first without its counter."""
    names = {layer.name for layer in model._flatten_layers(include_self=False)}
    return innermost(place.split(";")[0].split("/"), names)


def _verify(artifact: Artifact, spec: QuantSpec, floats: bool = False) -> None:
    """Raises ConversionError where the file is not what was asked for."""
    if spec.needs_calibration and not floats:
        operators = [op for graph in read_graphs(artifact.content) for op in graph.operators]
        wrong = [
            f"{tensor.dtype} {tensor.name!r} of layer {op.layer!r} ({op.name})"
            # Those that compute in floats come first, what brings them floats last.
            for op in sorted(operators, key=lambda op: "QUANTIZE" in op.name)
            for tensor in (*op.inputs, *op.outputs)
            if tensor.dtype.startswith("float")
        ]
        if wrong:
            raise ConversionError(
                f"file must hold no float tensor in mode {spec.mode!r}, got {wrong[0]}"
                f" and {len(wrong) - 1} more"
            )
    graph_ends = artifact.graph.inputs, artifact.graph.outputs
    for what, tensors in zip(("inputs", "outputs"), graph_ends, strict=True):
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
            f"file of mode {spec.mode!r} was written but the interpreter refuses it: "
            f"{str(error).splitlines()[0]}"
        ) from error


def _versions() -> dict[str, str]:
    import keras
    import tensorflow as tf

    return {"tensorflow": tf.__version__, "keras": keras.__version__}
