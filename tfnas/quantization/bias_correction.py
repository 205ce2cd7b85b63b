"""Undoing the shift that rounding brings: what each channel's mean and spread have moved by.

Rounding a kernel moves the mean of every output channel, and from layer to layer these shifts
add up to most of what post-training quantization loses. A BatchNormalization can take them
up: its mean and variance move as those of its inputs do between the float model and the
rounded one, layer after layer, on the same examples. The difference of two measurements on
the same examples needs few of them, where a new measurement would need thousands.

References:
    Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction",
    ICCV 2019, section 4.2 (there biases alone are corrected).
"""

from __future__ import annotations

from typing import Any

import keras

from tfnas.graph.batchnorm import channel_statistics, input_batches, layers_of, move_statistics
from tfnas.graph.traversal import visit
from tfnas.quantization.fake_quant import FakeQuant

_BATCH = 32


def correct_bias(model: Any, original: Any, data: Any) -> int:
    """Moves a quantization-aware model's BatchNormalization by what rounding has moved.

    Example:
        >>> import keras, numpy as np, tfnas
        >>> layers = [keras.layers.Conv2D(4, 3), keras.layers.BatchNormalization()]
        >>> model = keras.Sequential([keras.Input((8, 8, 3)), *layers])
        >>> x = np.random.default_rng(0).normal(size=(64, 8, 8, 3))
        >>> rounded = tfnas.quantize_aware(model, "int8x4", data=x)
        >>> tfnas.correct_bias(rounded, model, x)
        1

    Args:
        model: A model of :func:`tfnas.quantize_aware` that was not trained since; changed in
            place.
        original: The float model that it was made from.
        data: Unlabeled inputs; some hundreds are enough.

    Returns:
        How many layers were corrected: those that bear the same name in both models.

    Raises:
        ValueError: The first model is not quantization-aware, or the data does not fit.
    """
    if not layers_of(model, FakeQuant):
        raise ValueError(f"model must be quantization-aware, got {model.name!r}")
    batches = input_batches(data, _BATCH)
    norms = {n.name: n for n in layers_of(original, keras.layers.BatchNormalization)}
    ours = [n for n in layers_of(model, keras.layers.BatchNormalization) if n.name in norms]
    theirs = [norms[layer.name] for layer in ours]
    before = {
        place.layer.name: channel_statistics(place.layer, place.inputs)
        for place in visit(original, batches, theirs)
    }
    corrected = 0
    for place in visit(model, batches, ours):
        name = place.layer.name
        if name in before:
            after = channel_statistics(place.layer, place.inputs)
            move_statistics(place.layer, after, norms[name], before[name])
            corrected += 1
    return corrected
