"""Says where an integer file is larger than the file of mode "dynamic", or than the float one.

Layers that stay float and the operators of integer forms can make it so. An estimate from the
weights tells the files that are clearly small; the others are compared with real conversions.
"""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Callable
from typing import Any

from tfnas.graph.functional import walk
from tfnas.keras_private import followed_graph
from tfnas.legacy.rebuild import is_tf_keras
from tfnas.quantization.fake_quant import FakeQuant
from tfnas.quantization.spec import QuantSpec
from tfnas.tflite.artifact import Artifact
from tfnas.tflite.conversion_error import ConversionError

_SMALL_FILE = 16_384  # bytes; below, operators' names decide, and a conversion costs too much
_QUANTIZED_FROM = 1024  # weights of a kernel; mode "dynamic" leaves smaller ones float
# What a dynamic file takes at most beside its weights: for a channel's scale, an operator, itself.
_BYTES_OF_CHANNEL, _BYTES_OF_CALL, _BYTES_OF_FILE = 16, 600, 4096
_LOG = logging.getLogger(__name__)


def with_comparison(
    file: Artifact, model: Any, spec: QuantSpec, convert: Callable[[str], Artifact]
) -> Artifact:
    """Returns a file, with the sizes of smaller ones in its `origin`, which are logged too.

    Args:
        file: A file of integer activations.
        model: Its model.
        spec: The requested formats.
        convert: Converts the model in another mode.

    Returns:
        The file; where it is larger than the one of mode "dynamic" or "float32",
        `origin["larger_than"]` holds the bytes of these, by their modes.
    """
    if not spec.needs_calibration or file.size < _SMALL_FILE or is_tf_keras(model):
        return file
    if followed_graph(model) is None or file.size <= _most_bytes_of_dynamic(model):
        return file
    larger_than = {}
    for mode in ("dynamic", "float32"):
        try:
            size = convert(mode).size
        except ConversionError:
            continue  # there is no such file to compare with
        if size >= file.size:
            break
        larger_than[mode] = size
    if not larger_than:
        return file
    others = " and ".join(f"{size:,} of mode {mode!r}" for mode, size in larger_than.items())
    text = "the file of %s in mode %r has %s bytes, more than the %s; minified() of it has %s"
    _LOG.warning(text, model.name, spec.mode, f"{file.size:,}", others, f"{file.minified().size:,}")
    return dataclasses.replace(file, origin={**file.origin, "larger_than": larger_than})


def _most_bytes_of_dynamic(model: Any) -> int:
    """An estimate of the size of a model's file in mode "dynamic" that is rather too large."""
    shapes = [tuple(map(int, weight.shape)) for weight in model.weights]
    sizes = [math.prod(shape) for shape in shapes]
    weights = sum(size if size >= _QUANTIZED_FROM else 4 * size for size in sizes)
    channels = sum(shape[-1] for shape in shapes if len(shape) > 1)
    calls = [call for call in walk(model).calls if not isinstance(call.operation, FakeQuant)]
    beside = _BYTES_OF_CHANNEL * channels + _BYTES_OF_CALL * len(calls) + _BYTES_OF_FILE
    return weights + beside
