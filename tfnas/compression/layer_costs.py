"""Costs, values and quantization noise of each kernel of a file."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np

from tfnas.compression.model_analysis import file_errors, named, noise_of
from tfnas.measure.profile import profile
from tfnas.measure.quantization_debugger.file_comparison import BITS
from tfnas.measure.quantization_debugger.layer_names import LayerNames
from tfnas.quantization.aware_models import fake_quants
from tfnas.quantization.quantize_aware import strip_quantization
from tfnas.tflite.artifact import Artifact
from tfnas.tflite.file_weights import read_kernels

if TYPE_CHECKING:
    import keras


@dataclasses.dataclass(frozen=True)
class FileLayer:
    """A kernel of a file.

    Args:
        layer: Name of the Keras layer.
        operator: The operator in the file.
        shape: The kernel's shape in the file.
        bits: Bits of a weight; None for a type without a known number.
        weights: Number of weights.
        zeros: Fraction of zeros among them.
        values: Number of distinct values.
        macs: Multiply-accumulates of the layer for one example; None: not known.
        noise: Noise that quantization adds in the layer, as a fraction of its output; None: not
            known.
    """

    layer: str
    operator: str
    shape: tuple[int, ...]
    bits: int | None
    weights: int
    zeros: float
    values: int
    macs: int | None = None
    noise: float | None = None


def file_layers(model: keras.Model, file: Artifact, x: np.ndarray) -> tuple[FileLayer, ...]:
    """Returns a record for each kernel of a file, in the order of its operators.

    Example:
        >>> import keras, tfnas
        >>> model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2D(4, 3, name="c")])
        >>> [row] = file_layers(model, tfnas.to_tflite(model), np.zeros((4, 8, 8, 3)))
        >>> row.layer, row.macs, row.bits, row.weights
        ('c', 3888, 32, 108)

    Args:
        model: The Keras model behind the file, quantization-aware or not.
        file: The file.
        x: Images to measure the noise with, (examples, height, width, channels).
    """
    float_model = strip_quantization(model) if fake_quants(model) else model
    cost = profile(float_model)
    names = LayerNames(float_model)
    macs: dict[str, int] = {}
    for layer in cost.layers:
        name = layer.name.rsplit("/", 1)[-1]
        macs[name] = macs.get(name, 0) + (layer.macs or 0)
    errors, _ = file_errors(model, file, x, cost.macs)  # a float file has none
    noise = {} if errors is None else noise_of(errors)

    def layer_name(name: str) -> str:
        """Returns the model's name for a layer: fewer bits are converted from renamed copies."""
        if name.rsplit("/", 1)[-1] in macs:
            return name
        return (*names.mentioned(f"{name}_1/kernel"), name)[0]

    rows = []
    for kernel in read_kernels(file):
        name = layer_name(kernel.layer)
        rows.append(
            FileLayer(
                name,
                kernel.operator,
                tuple(kernel.tensor.shape),
                BITS.get(kernel.tensor.dtype),
                int(kernel.values.size),
                float(np.mean(kernel.values == 0)),
                len(np.unique(kernel.values)),
                macs.get(name.rsplit("/", 1)[-1]),
                named(noise, name),
            )
        )
    return tuple(rows)
