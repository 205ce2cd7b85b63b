"""Pass: the converter is not trusted; what it wrote is read back and run.

The passes that write a file once more (:mod:`~tfnas.tflite.passes.quantize_weights`,
:mod:`~tfnas.tflite.passes.encode_sparsely`) check theirs by the same :func:`check_formats`.
"""

from __future__ import annotations

import dataclasses
import re

import numpy as np

from tfnas.legacy.rebuild import is_tf_keras
from tfnas.legacy.tfmot_qat import computes_in_float
from tfnas.quantization.aware_models import unquantized_layers
from tfnas.quantization.spec import QuantSpec
from tfnas.tflite.artifact import Artifact
from tfnas.tflite.conversion_error import ConversionError
from tfnas.tflite.graph_repair import too_fine
from tfnas.tflite.passes.conversion_state import Conversion


def validate(conversion: Conversion) -> Conversion:
    """Checks the structure of the file, its formats, and that the interpreter takes it.

    Args:
        conversion: A file, and the model that it was made of.

    Returns:
        The conversion, with `artifact`.

    Raises:
        ConversionError: The file does not have the requested formats, or does not run.
        ValueError: The file is corrupt.
    """
    spec = conversion.converter_spec
    artifact = Artifact(conversion.content, spec.mode, conversion.origin)
    check_formats(artifact, spec, allow_floats=conversion.aware and _stays_partly_float(conversion))
    return dataclasses.replace(conversion, artifact=artifact)


def check_formats(artifact: Artifact, spec: QuantSpec, allow_floats: bool = False) -> None:
    """Checks that a file has the requested formats, and that the interpreter takes it.

    Args:
        artifact: The file.
        spec: The requested formats.
        allow_floats: Whether an integer file may hold float tensors between its ends.

    Raises:
        ConversionError: It has not, or the interpreter does not.
    """
    if spec.needs_calibration and not allow_floats:
        _check_no_floats(artifact, spec)
    _check_ends(artifact, spec)
    try:
        artifact.interpreter()
    except (RuntimeError, ValueError) as error:
        fine = next((op for op in artifact.graph.operators if too_fine(op)), None)
        place = (
            "" if fine is None else f" (layer {fine.layer!r}: the range of its output is nearly 0)"
        )
        raise ConversionError(
            f"file of mode {spec.mode!r} was written, but the interpreter refuses it: "
            f"{str(error).splitlines()[0]}{place}"
        ) from error
    if spec.activations == "int16":
        _check_run(artifact)


def _check_run(artifact: Artifact) -> None:
    """Runs a file of 16-bit activations once: some kernels refuse them only then."""
    if any(-1 in tensor.shape[1:] for tensor in artifact.inputs):
        return  # the sizes that the file stores are no example's
    interpreter = artifact.interpreter(xnnpack=False)
    for tensor in interpreter.get_input_details():
        interpreter.set_tensor(tensor["index"], np.zeros(tensor["shape"], tensor["dtype"]))
    try:
        interpreter.invoke()
    except RuntimeError as error:
        text = str(error).splitlines()[0]
        number = re.search(r"Node number (\d+)", text)
        operators = artifact.graph.operators
        named = number is not None and int(number[1]) < len(operators)
        layer = f" (layer {operators[int(number[1])].layer!r})" if number and named else ""
        raise ConversionError(
            f"file of mode {artifact.mode!r} was written, but LiteRT can't run it: {text}{layer}"
        ) from error


def _stays_partly_float(conversion: Conversion) -> bool:
    model = conversion.model
    return computes_in_float(model) if is_tf_keras(model) else bool(unquantized_layers(model))


def _check_no_floats(artifact: Artifact, spec: QuantSpec) -> None:
    operators = [op for graph in artifact.graphs for op in graph.operators]
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
            f" and {len(wrong) - 1} more; tfnas.quantize_aware(model, data=...) names what has no "
            "integer form, with the specification that leaves it float"
        )


def _check_ends(artifact: Artifact, spec: QuantSpec) -> None:
    graph = artifact.graph
    ends_of_both = [tensor.name for tensor in graph.inputs if tensor in graph.outputs]
    if spec.needs_calibration and ends_of_both:
        raise ConversionError(
            f"model {artifact.origin.get('model')!r} must compute its outputs in mode "
            f"{spec.mode!r}, got the input {ends_of_both[0]!r} as it is"
        )
    read = {tensor.index for op in graph.operators for tensor in op.inputs}
    read |= {tensor.index for tensor in graph.outputs}
    # The converter has no range for an input that nothing reads: it stays float.
    inputs = [tensor for tensor in graph.inputs if tensor.index in read]
    states = artifact.origin.get("states", ())  # with formats of their own
    inputs = [tensor for tensor in inputs if tensor.name not in states]
    outputs = [tensor for tensor in graph.outputs if tensor.name.removeprefix("new_") not in states]
    ends = {"inputs": inputs, "outputs": outputs}
    for what, tensors in ends.items():
        for tensor in tensors:
            quantized = tensor.dtype in ("int8", "int16", "float32")
            if quantized and tensor.dtype != spec.activations:
                beside = [op for op in graph.operators if tensor in (*op.inputs, *op.outputs)]
                names = ", ".join(dict.fromkeys(f"{op.layer!r} ({op.name})" for op in beside))
                raise ConversionError(
                    f"{what} of the file must be {spec.activations}, got {tensor.dtype} "
                    f"{tensor.name!r} of layer {names}"
                )
