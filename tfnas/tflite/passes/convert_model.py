"""Pass: the file as TensorFlow's converter writes it, not validated yet."""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Sequence
from typing import Any

from tfnas.graph.functional import Skipped
from tfnas.legacy.rebuild import is_tf_keras
from tfnas.quantization.aware_models import unquantized_layers
from tfnas.quantization.float_islands import (
    BY_SPECIFICATION,
    are_refused,
    layers_in_the_way,
    message_of_refusal,
)
from tfnas.tflite.artifact import Artifact
from tfnas.tflite.conversion_error import ConversionError
from tfnas.tflite.file_weights import FileKernel, read_kernels
from tfnas.tflite.flatbuffer import OperatorInfo, read_graphs
from tfnas.tflite.graph_repair import too_fine
from tfnas.tflite.narrowed_ranges import has_narrowed_range
from tfnas.tflite.passes.conversion_state import Conversion
from tfnas.tflite.passes.place_fake_quantization import with_ranges
from tfnas.tflite.recurrent_layers import form_in_file
from tfnas.tflite.tensorflow_converter import run_converter

_LEAST = 1024
_SMALL = "less than 1,024 weights, the least that the converter quantizes in mode 'dynamic'"
_LOG = logging.getLogger(__name__)


def convert(conversion: Conversion) -> Conversion:
    """Runs TensorFlow's converter.

    Where the ranges that it finds by itself give no file, or one that can't be used, such as one
    with steps of nearly 0, it runs a second time with the ranges of :func:`tfnas.quantize_aware`.
    So it does for a SUM, see :mod:`tfnas.quantization.reduction_forms`, and for ranges that it has
    made too narrow, :mod:`tfnas.tflite.narrowed_ranges`; both stay where nothing replaces them.

    Args:
        conversion: A model in its last form.

    Returns:
        The conversion, with `content` and `origin`.

    Raises:
        ConversionError: TensorFlow can't convert the model.
    """
    conversion, content = _usable_file(conversion)
    model, columns, aware = conversion.model, conversion.columns, conversion.aware
    spec = conversion.converter_spec
    origin = {
        "model": model.name,
        "mode": spec.mode,
        "inputs": [tensor.name for tensor in model.inputs],
        "calibration_examples": len(columns[0]) if columns else 0,
        "quantization_aware": aware and conversion.float_model is None,
        **({"kept_out": list(conversion.kept_out)} if conversion.kept_out else {}),
        **_forms_of_layers(conversion, content),
        **_versions(),
    }
    if conversion.rounding:
        origin["rounding"] = [dataclasses.asdict(layer) for layer in conversion.rounding]
    return dataclasses.replace(conversion, content=content, origin=origin)


def _usable_file(conversion: Conversion) -> tuple[Conversion, bytes]:
    """The file, and the conversion that it came from."""
    first = _first_file(conversion)
    if isinstance(first, ConversionError):
        return _second_file(conversion, first, [])
    operators = _operators(first) if conversion.ranges_of_converter else []
    if _is_faulty(operators):
        return _second_file(conversion, first, operators)
    if _sums(operators, "int8") or (operators and _narrows_ranges(first)):
        return _with_better_ranges(conversion, first)
    return conversion, first


def _second_file(
    conversion: Conversion, first: bytes | ConversionError, operators: Sequence[OperatorInfo]
) -> tuple[Conversion, bytes]:
    """The file with the ranges of tfnas; the first one where there is none and it may be kept."""
    second, left = _with_own_ranges(conversion)
    if second is not None:
        return second, _convert(second)
    if left and not _has_no_kernel_at_all(first):
        cause = first if isinstance(first, ConversionError) else None
        raise ConversionError(message_of_refusal(conversion.spec, left)) from cause
    if isinstance(first, ConversionError):
        raise first
    if _sums(operators, "int16"):
        raise ConversionError(
            f"{conversion.model.name!r} can't have mode {conversion.spec.mode!r}: LiteRT computes "
            "its sum over an axis (SUM) wrongly in 16 bits. keras.ops.mean times the number of "
            "terms computes the same; so does mode 'int8' with XNNPACK"
        )
    return conversion, first


def _has_no_kernel_at_all(first: bytes | ConversionError) -> bool:
    """Whether a layer was named whose operation TFLite does not have for floats either."""
    text = str(first) if isinstance(first, ConversionError) else ""
    return " in layer " in text and "operation tfl." not in text


def _first_file(conversion: Conversion) -> bytes | ConversionError:
    """The file with the converter's own ranges, or why it has none.

    Its calibration fails where a mode of 16 bits meets an input of integers.
    """
    try:
        return _convert(conversion)
    except ConversionError as error:
        if not conversion.ranges_of_converter:
            raise
        return error


def _convert(conversion: Conversion) -> bytes:
    # A model that holds its ranges needs no data, also where a pass has set them by the data.
    columns = () if conversion.aware else conversion.columns
    return run_converter(
        conversion.model, conversion.converter_spec, columns, aware=conversion.aware
    )


def _operators(content: bytes) -> list[OperatorInfo]:
    """The operators of all graphs of a file."""
    try:
        return [op for graph in read_graphs(content) for op in graph.operators]
    except ValueError:  # a corrupt file: the pass that validates it says so
        return []


def _is_faulty(operators: Sequence[OperatorInfo]) -> bool:
    """Whether a file holds floats that it must not, or what all kernels compute wrongly."""
    ends = [tensor for op in operators for tensor in (*op.inputs, *op.outputs)]
    floats = any(tensor.dtype == "float32" for tensor in ends)
    return floats or _sums(operators, "int16") or any(map(too_fine, operators))


def _sums(operators: Sequence[OperatorInfo], dtype: str) -> bool:
    """Whether there is a SUM of a type."""
    return any(op.name == "SUM" and op.inputs[0].dtype == dtype for op in operators)


def _narrows_ranges(content: bytes) -> bool:
    return any(map(has_narrowed_range, read_graphs(content)))


def _with_better_ranges(conversion: Conversion, first: bytes) -> tuple[Conversion, bytes]:
    """The conversion and its file with the ranges of tfnas, and sums in another form.

    They are as they are where there is no such file.
    """
    second, _ = _with_own_ranges(conversion)
    if second is None:
        return conversion, first
    try:
        content = _convert(second)
    except ConversionError:
        return conversion, first
    return (conversion, first) if _sums(_operators(content), "int8") else (second, content)


def _with_own_ranges(conversion: Conversion) -> tuple[Conversion | None, list[Skipped]]:
    """The conversion with a quantization-aware model, and the layers that stay float.

    It is None where other layers stay float than those of the first steps.
    """
    try:
        second = with_ranges(conversion)
    except ValueError:  # no functional model, or one that can't be rebuilt
        return None, []
    left = layers_in_the_way(second.model, conversion.spec, unquantized_layers(second.model))
    return (None if are_refused(left) else second), left


def _forms_of_layers(conversion: Conversion, content: bytes) -> dict[str, Any]:
    """Which layers of an integer file stay float, and the form of the recurrent ones."""
    found: dict[str, Any] = {}
    model, warn = conversion.model, _LOG.debug if conversion.quiet else _LOG.warning
    if conversion.aware and not is_tf_keras(model):
        left = {layer.name: layer.reason for layer in unquantized_layers(model)}
        if left:
            found["unquantized_layers"] = left
        if unasked := [name for name, reason in left.items() if reason != BY_SPECIFICATION]:
            warn("%s stays float in the file of %s", ", ".join(unasked), model.name)
        float_bytes = _bytes_of_float_weights(content)
        if float_bytes:
            found["float_weight_bytes"] = float_bytes
            warn(
                "%s bytes of weights in the file of %s are floats; mode 'dynamic' holds those of "
                "dense layers and convolutions in a quarter of that",
                f"{float_bytes:,}",
                model.name,
            )
    if conversion.converter_spec.mode == "dynamic":
        kernels = _kernels(content)
        floats = [kernel.layer for kernel in kernels if kernel.tensor.dtype == "float32"]
        if floats:
            found["unquantized_layers"] = dict.fromkeys(floats, _SMALL)
        if floats and len(floats) == len(kernels):
            names = ", ".join(dict.fromkeys(floats))
            warn("%s stays float in the file of %s: %s", names, model.name, _SMALL)
    if conversion.has_recurrent_layers:
        found["recurrent_layers"] = form_in_file(content)
    return found


def _bytes_of_float_weights(content: bytes) -> int:
    """Bytes of the float constants of a file that mode 'dynamic' would hold as integers."""
    try:
        graphs = read_graphs(content)
    except ValueError:  # a corrupt file: the pass that validates it says so
        return 0
    ends = {(n, t.index): t for n, g in enumerate(graphs) for op in g.operators for t in op.inputs}
    floats = [t for t in ends.values() if t.dtype == "float32" and t.constant is not None]
    sizes = [math.prod(tensor.shape) for tensor in floats]
    return sum(4 * size for size in sizes if size >= _LEAST)


def _kernels(content: bytes) -> list[FileKernel]:
    try:
        return list(read_kernels(Artifact(content)))
    except ValueError:  # a corrupt file: the pass that validates it says so
        return []


def _versions() -> dict[str, str]:
    import keras
    import tensorflow as tf

    return {"tensorflow": tf.__version__, "keras": keras.__version__}
