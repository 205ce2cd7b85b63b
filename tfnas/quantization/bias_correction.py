"""Bias correction: compensates the shift of activations that quantized kernels cause.

Quantizing a kernel shifts the mean of every output channel, and over the layers these shifts
add up to most of the accuracy that post-training quantization loses. BatchNormalization can
compensate them: its moving mean and variance are changed by as much as the statistics of its
inputs differ between the float model and the quantized one, layer after layer. Since both
models see the same examples, few are enough; measuring the statistics from scratch would
take thousands.

References:
    Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction",
    ICCV 2019, section 4.2 (which corrects biases only).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import keras

from tfnas.graph.batchnorm import channel_statistics, input_batches, layers_of, move_statistics
from tfnas.graph.traversal import visit
from tfnas.quantization.fake_quant import FakeQuant

if TYPE_CHECKING:
    from tfnas.data.data_types import ExampleData

_BATCH = 32


def correct_bias(model: keras.Model, original: keras.Model, data: ExampleData) -> int:
    """Corrects BatchNormalization for the shift of its inputs that quantization causes.

    Example:
        >>> import keras, numpy as np, tfnas
        >>> layers = [keras.layers.Conv2D(4, 3), keras.layers.BatchNormalization()]
        >>> model = keras.Sequential([keras.Input((8, 8, 3)), *layers])
        >>> x = np.random.default_rng(0).normal(size=(64, 8, 8, 3))
        >>> quantized = tfnas.quantize_aware(model, "int8x4", data=x)
        >>> tfnas.correct_bias(quantized, model, x)
        1

    Args:
        model: A model returned by :func:`tfnas.quantize_aware` and not trained since. It is
            changed in place.
        original: The float model that it was built from.
        data: Inputs without labels; some hundred examples are enough.

    Returns:
        Number of corrected layers: BatchNormalization layers of the same name in both models.

    Raises:
        ValueError: `model` is not quantization-aware, or the data does not fit it.
    """
    if not layers_of(model, FakeQuant):
        raise ValueError(f"model must be quantization-aware, got {model.name!r}")
    batches = input_batches(data, _BATCH)
    norms = {n.name: n for n in layers_of(original, keras.layers.BatchNormalization)}
    quantized = [n for n in layers_of(model, keras.layers.BatchNormalization) if n.name in norms]
    floats = [norms[layer.name] for layer in quantized]
    before = {
        visited.layer.name: channel_statistics(visited.layer, visited.inputs)
        for visited in visit(original, batches, floats)
    }
    corrected = 0
    for visited in visit(model, batches, quantized):
        name = visited.layer.name
        if name in before:
            after = channel_statistics(visited.layer, visited.inputs)
            move_statistics(visited.layer, after, norms[name], before[name])
            corrected += 1
    return corrected
