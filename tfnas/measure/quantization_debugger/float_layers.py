"""Converts a model in the format of an existing file, with some layers in float32."""

from __future__ import annotations

import contextlib
import dataclasses
import glob
import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from tfnas.graph.model_class import plain
from tfnas.keras_private import all_layers
from tfnas.quantization.quantize_aware import quantizable_layers, quantize_aware_partly
from tfnas.quantization.spec import QuantSpec
from tfnas.tflite.artifact import Artifact
from tfnas.tflite.convert import converted
from tfnas.tflite.passes.conversion_state import Conversion

_FORMATS = {4: "int4", 8: "int8", 32: "float32"}


@dataclasses.dataclass(frozen=True)
class FileFormat:
    """How a file is quantized, read from the file.

    Args:
        weights: Format of the weights with fewest bits, such as "int8".
        activations: Format of the activations, such as "int8".
        weight_only: Whether integer weights are dequantized to floats before use.
        layers: Bits of each layer's weights.
    """

    weights: str
    activations: str
    weight_only: bool
    layers: Mapping[str, int]

    @classmethod
    def of(cls, artifact: Artifact, layers: Mapping[str, int]) -> FileFormat:
        """Reads the format of a file.

        Args:
            artifact: The file.
            layers: Bits of each layer's weights in it.
        """
        operators = artifact.graph.operators
        outputs = [tensor for op in operators for tensor in op.outputs if tensor.zero_points]
        activations = next((tensor.dtype for tensor in outputs), "float32")
        least = min(layers.values(), default=32)
        weights = "float16" if least == 16 else _FORMATS.get(least, f"int{least}")
        dequantized = any(
            op.name == "DEQUANTIZE" and op.inputs[0].constant and op.inputs[0].zero_points
            for op in operators
        )
        return cls(weights, activations, activations == "float32" and dequantized, dict(layers))

    def spec(self, unquantized_layers: Collection[str], known: Collection[str]) -> QuantSpec:
        """Returns the specification of this file with some layers in float32.

        Args:
            unquantized_layers: Names of these layers.
            known: Names of the layers that a specification can set; others keep the default.

        Raises:
            ValueError: No specification has these formats.
        """
        # A nested layer is always named: the pattern of an outer layer may match its path.
        default = {"int4": 4, "int8": 8}.get(self.weights)
        named = {
            self._spec_name(name): _FORMATS[bits]
            for name, bits in self.layers.items()
            if bits in _FORMATS
            and name in known
            and (bits != default or "/" in self._spec_name(name))
        }
        named.update((self._spec_name(name), "float32") for name in unquantized_layers)
        inner_first = sorted(named, key=lambda name: -name.count("/"))
        pairs = [(glob.escape(name), named[name]) for name in inner_first]
        more: dict[str, Any] = {"weight_only": True} if self.weight_only else {}
        return QuantSpec(self.weights, self.activations, layers=pairs, **more)

    def _spec_name(self, name: str) -> str:
        """A nested layer's path if the model is rebuilt, for integer activations; else its name."""
        return name if self.activations != "float32" else name.split("/")[-1]


def layers_with_format(model: Any, form: FileFormat) -> set[str]:
    """Returns the names of the layers whose weight format a specification can set.

    Args:
        model: The float model.
        form: The format of its quantized file.

    Raises:
        ValueError: The model is neither functional nor Sequential.
    """
    if form.activations == "float32":
        return set(form.layers)
    return quantizable_layers(model)


def with_float_layers(model: Any, spec: QuantSpec, calibration: Sequence[np.ndarray]) -> Artifact:
    """Converts a float model to a file with the formats of a specification.

    Args:
        model: The float model.
        spec: The specification.
        calibration: Typical inputs, one array per input of the model.

    Raises:
        ValueError: The specification does not fit the model.
        ConversionError: The model can't be converted.
    """
    if spec.activations == "float32":
        return converted(Conversion(model, spec))
    with _silent("tfnas.quantization", "tfnas.tflite"):  # of the layers that are to stay float
        trainable = quantize_aware_partly(plain(model), spec, list(calibration))
        has_int4 = any(getattr(layer, "bits", None) == 4 for layer in all_layers(trainable))
        spec = spec if has_int4 else dataclasses.replace(spec, weights="int8")
        return converted(Conversion(trainable, spec))


@contextlib.contextmanager
def _silent(*names: str) -> Iterator[None]:
    """Logs errors alone of some packages."""
    levels = {log: log.level for log in map(logging.getLogger, names)}
    try:
        for log in levels:
            log.setLevel(logging.ERROR)
        yield
    finally:
        for log, level in levels.items():
            log.setLevel(level)
