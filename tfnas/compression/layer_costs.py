"""What each kernel of a file costs and holds, and what its rounding does."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from tfnas.compression.model_analysis import file_errors, named, noise_of
from tfnas.measure.profile import profile
from tfnas.measure.quantization_debugger.file_comparison import BITS
from tfnas.measure.quantization_debugger.layer_names import LayerNames
from tfnas.quantization.quantize_aware import fake_quants, strip_quantization
from tfnas.tflite.artifact import Artifact
from tfnas.tflite.file_weights import read_kernels


@dataclasses.dataclass(frozen=True)
class FileLayer:
    """A kernel of a file.

    Args:
        layer: The Keras layer.
        operator: The operator in the file.
        shape: The kernel's shape in the file.
        bits: Bits of a weight; None for a type without a known number.
        weights: Number of weights.
        zeros: Share of zeros among them.
        values: Number of different values.
        macs: Multiply-accumulates of the layer for one example; None where it is not known.
        noise: Noise that rounding adds in the layer, as a share of what it gives; None where
            it is not known.
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


def file_layers(twin: Any, file: Artifact, x: np.ndarray) -> tuple[FileLayer, ...]:
    """Returns a record a kernel of a file, in its order.

    Example:
        >>> import keras, tfnas
        >>> model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2D(4, 3, name="c")])
        >>> [row] = file_layers(model, tfnas.to_tflite(model), np.zeros((4, 8, 8, 3)))
        >>> row.layer, row.macs, row.bits, row.weights
        ('c', 3888, 32, 108)

    Args:
        twin: The Keras model behind it, quantization-aware or not.
        file: The file.
        x: Images to measure the noise with.
    """
    plain = strip_quantization(twin) if fake_quants(twin) else twin
    cost = profile(plain)
    names = LayerNames(plain)
    macs: dict[str, int] = {}
    for layer in cost.layers:
        name = layer.name.rsplit("/", 1)[-1]
        macs[name] = macs.get(name, 0) + (layer.macs or 0)
    errors, _ = file_errors(twin, file, x, cost.macs)  # a float file has none
    noise = {} if errors is None else noise_of(errors)

    def known(name: str) -> str:
        """The model's own name for it: fewer bits come by way of a model that adds to names."""
        if name.rsplit("/", 1)[-1] in macs:
            return name
        return (*names.mentioned(f"{name}_1/kernel"), name)[0]

    rows = []
    for kernel in read_kernels(file):
        name = known(kernel.layer)
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
