"""Pass: the file in TFLite's sparse encoding, compared with the dense one."""

from __future__ import annotations

import dataclasses

from tfnas.quantization.spec import QuantSpec
from tfnas.tflite.artifact import Artifact
from tfnas.tflite.conversion_error import ConversionError
from tfnas.tflite.file_sparsity import sparse_fault
from tfnas.tflite.passes.conversion_state import Conversion
from tfnas.tflite.passes.validate_file import check_formats
from tfnas.tflite.tensorflow_converter import run_converter

INT8_HINT = " (XNNPACK takes int8 dense layers only unpruned or in 1x16 blocks)"


def encode_sparsely(conversion: Conversion) -> Conversion:
    """Converts again with TFLite's sparse encoding, and compares the file with the dense one.

    Args:
        conversion: A model and its validated dense file.

    Returns:
        The conversion, with the sparse file as `artifact`.

    Raises:
        ConversionError: The model can't be converted so, or the sparse file is not smaller or
            computes something else.
    """
    if not conversion.sparse:
        return conversion
    model, spec, dense = conversion.model, conversion.spec, conversion.file
    content = run_converter(model, spec, conversion.columns, sparse=True)
    sizes = {"dense_size": dense.size, "dense_gzip_size": dense.gzip_size}
    origin = {**dense.origin, "sparse": True, **sizes}
    try:
        artifact = Artifact(content, spec.mode, origin)
        fault = _fault(artifact, dense, spec)
    except ValueError as error:  # blocks that are no divisors of a kernel's dimension
        fault = f"the converter wrote a file that is not valid: {error}"
    if fault:
        raise ConversionError(f"sparse must be False for model {model.name!r}: {fault}")
    return dataclasses.replace(conversion, artifact=artifact)


def _fault(artifact: Artifact, dense: Artifact, spec: QuantSpec) -> str | None:
    try:
        check_formats(artifact, spec)
        return sparse_fault(artifact, dense)
    except RuntimeError as error:  # a ConversionError, or one of the interpreter
        return f"{error}{INT8_HINT if spec.mode == 'int8' else ''}"
