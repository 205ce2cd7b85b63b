"""Sums over axes in normal form.

LiteRT's SUM of 16 bits is far off where its output has another scale than its input (255 of 255
steps in a model of ours), and so is that of 8 bits without XNNPACK; TFLite Micro's is right. So a
sum becomes a mean, which is rounded to the range of means, and a Rescaling by the number of terms.
"""

from __future__ import annotations

import math
from typing import Any

import keras

from tfnas.graph.functional import Call, LayerCopies

_MOST_AXES = 4  # of a Rescaling in an integer file


def summed(call: Call, tensors: list[Any], copies: LayerCopies) -> Any:
    """Returns the output of a `keras.ops.sum` by a mean.

    Args:
        call: Any call.
        tensors: The new tensors of its inputs.
        copies: Copies of layers.

    Returns:
        The output; None for other calls, and for sums over the batch, over open sizes or no axis.
    """
    if call.kind != "Sum" or "float" not in call.inputs[0].dtype or call.operation.axis is None:
        return None
    shape = tensors[0].shape
    axes = sorted({axis % len(shape) for axis in keras.tree.flatten(call.operation.axis)})
    sizes = [shape[axis] for axis in axes]
    if not axes or 0 in axes or None in sizes or not 2 <= len(shape) <= _MOST_AXES:
        return None
    means = keras.ops.mean(tensors[0], axis=axes, keepdims=True)
    count = float(math.prod(sizes))
    sums = keras.layers.Rescaling(count, name=copies.unique(call.operation.name))(means)
    return sums if call.operation.keepdims else keras.ops.squeeze(sums, axis=axes)
