"""Forms of `keras.layers.Dot` that integer operators compute."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

from tfnas.graph.functional import Call, LayerCopies
from tfnas.quantization.call_forms import summed_axes


def opened_dot(call: Call, tensors: Sequence[Any], copies: LayerCopies) -> list[Any] | None:
    """Returns the output of a Dot of two vectors, or one of unit vectors, by other layers.

    The product of two vectors is that of two matrices, of a row and a column; `normalize=True` is
    a UnitNormalization of both tensors before the product, over their last axis.

    Args:
        call: Any call.
        tensors: The new tensors of its inputs.
        copies: Names of the new model.

    Returns:
        The output; None for other calls.
    """
    if call.kind != "Dot" or len(tensors) != 2:
        return None
    layer, ranks = call.operation, [len(tensor.shape) for tensor in tensors]
    axes = summed_axes(layer, ranks)
    vectors = ranks == [2, 2]
    if 0 in axes or not (layer.normalize or vectors):
        return None
    name, parts = call.name.split("/")[-1], []
    for tensor, axis in zip(tensors, axes, strict=True):
        order = [*(place for place in range(len(tensor.shape)) if place != axis), axis]
        part = tensor if order == sorted(order) else keras.ops.transpose(tensor, order)
        if layer.normalize:
            part = keras.layers.UnitNormalization(name=copies.unique(f"{name}_unit"))(part)
        parts.append(keras.ops.expand_dims(part, 1) if vectors else part)
    last = tuple(len(part.shape) - 1 for part in parts)
    output = keras.layers.Dot(axes=last, name=copies.unique(name))(parts)
    return [keras.ops.squeeze(output, 1) if vectors else output]
