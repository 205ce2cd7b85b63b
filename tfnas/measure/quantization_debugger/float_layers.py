"""The file of a model again, quantized as another file is, with some layers left float."""

from __future__ import annotations

import dataclasses
import glob
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from tfnas.graph.functional import walk
from tfnas.quantization.layer_roles import Role, role
from tfnas.quantization.normal_form import normal_form
from tfnas.quantization.quantize_aware import quantize_aware
from tfnas.quantization.spec import QuantSpec
from tfnas.tflite.artifact import Artifact
from tfnas.tflite.convert import to_tflite

_FORMATS = {4: "int4", 8: "int8", 32: "float32"}


@dataclasses.dataclass(frozen=True)
class FileFormat:
    """How a file is quantized, read from the file.

    Args:
        weights: Format of the weights: the integers or else the floats with fewest bits.
        activations: Format of the activations.
        weight_only: Whether integer weights are unpacked to floats before use.
        layers: Bits of each layer's weights.
    """

    weights: str
    activations: str
    weight_only: bool
    layers: Mapping[str, int]

    @classmethod
    def of(cls, artifact: Artifact, layers: Mapping[str, int]) -> FileFormat:
        """Reads it.

        Args:
            artifact: The file.
            layers: Bits of each layer's weights in it.
        """
        operators = artifact.graph.operators
        outputs = [tensor for op in operators for tensor in op.outputs if tensor.zero_points]
        activations = next((tensor.dtype for tensor in outputs), "float32")
        least = min(layers.values(), default=32)
        weights = "float16" if least == 16 else _FORMATS.get(least, f"int{least}")
        unpacked = any(
            op.name == "DEQUANTIZE" and op.inputs[0].constant and op.inputs[0].zero_points
            for op in operators
        )
        return cls(weights, activations, activations == "float32" and unpacked, dict(layers))

    def spec(self, unquantized_layers: Collection[str], known: Collection[str]) -> QuantSpec:
        """Returns the specification of this file with some layers float.

        Args:
            unquantized_layers: These layers.
            known: The layers that a specification can name; others are as they are.

        Raises:
            ValueError: No specification has these formats.
        """
        default = {"int4": 4, "int8": 8}.get(self.weights)
        named = {
            self._called(name): _FORMATS[bits]
            for name, bits in self.layers.items()
            if bits in _FORMATS and name in known and (bits != default or self._is_path(name))
        }
        named.update((self._called(name), "float32") for name in unquantized_layers)
        inner_first = sorted(named, key=lambda name: -name.count("/"))
        pairs = [(glob.escape(name), named[name]) for name in inner_first]
        more: dict[str, Any] = {"weight_only": True} if self.weight_only else {}
        return QuantSpec(self.weights, self.activations, layers=pairs, **more)

    def _is_path(self, name: str) -> bool:
        """Whether a nested layer has to be named: the name of an outer one may match it too."""
        return "/" in self._called(name)

    def _called(self, name: str) -> str:
        """Nested layers go by their path where the model is rebuilt, else by their name."""
        return name if self.activations != "float32" else name.split("/")[-1]


def layers_with_format(model: Any, form: FileFormat) -> set[str]:
    """Returns the layers whose weights' format can be asked for.

    Args:
        model: The float model.
        form: The format of its quantized file.

    Raises:
        ValueError: The model is not built from layers with known connections.
    """
    if form.activations == "float32":
        return set(form.layers)
    plain, origins = normal_form(model)
    own = {call.name for call in walk(plain).calls if role(call) is Role.KERNEL}
    return own | {path for path, _ in origins.values()}


def with_float_layers(model: Any, spec: QuantSpec, calibration: Sequence[np.ndarray]) -> Artifact:
    """Returns a model's file in the formats of a specification.

    Args:
        model: The float model.
        spec: The specification.
        calibration: Typical inputs, in the model's order.

    Raises:
        ValueError: The specification does not fit the model.
        ConversionError: There is no such file.
    """
    if spec.activations == "float32":
        return to_tflite(model, spec)
    trainable = quantize_aware(model, spec, data=list(calibration))
    fours = any(getattr(layer, "bits", None) == 4 for layer in trainable._flatten_layers())
    return to_tflite(trainable, spec if fours else dataclasses.replace(spec, weights="int8"))
