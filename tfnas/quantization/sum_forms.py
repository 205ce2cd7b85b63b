"""Sums of tensors of two shapes between 16-bit activations, as differences.

The converter's ADD of 16 bits takes operands of one shape, its SUB broadcasts.
"""

from __future__ import annotations

import math
from typing import Any

import keras

from tfnas.graph.functional import Call, LayerCopies, Walk
from tfnas.quantization.call_forms import meets_constants


def sums_of_shapes(flow: Walk) -> set[int]:
    """Returns the ids of the sums of two tensors of known, unequal shapes, none of them a constant.

    Args:
        flow: The calls of a model.
    """
    return {id(call) for call in flow.calls if _has_two_shapes(call)} - meets_constants(flow)


def _has_two_shapes(call: Call) -> bool:
    """Whether a call is such a sum, of tensors of 2 to 4 dimensions: these have a negative."""
    shapes = {tuple(value.shape[1:]) for value in call.inputs}
    if call.kind != "Add" or len(call.inputs) != 2 or len(shapes) != 2:
        return False
    ranks = {len(shape) for shape in shapes}
    known = all(None not in shape for shape in shapes)
    return known and len(ranks) == 1 and 1 <= min(ranks) <= 3


def as_difference(
    call: Call, tensors: list[Any], copies: LayerCopies
) -> tuple[Any, list[keras.layers.Layer]]:
    """Returns the sum of two tensors as the larger one minus the negative of the smaller one.

    Args:
        call: One of the :func:`sums_of_shapes`.
        tensors: The inputs of the new model's call.
        copies: Names of the new model.

    Returns:
        The sum, and the layers that compute it.
    """
    large, small = sorted(tensors, key=lambda tensor: -math.prod(tensor.shape[1:]))
    return difference_of(large, small, call.name.split("/")[-1], copies)


def difference_of(
    large: Any, small: Any, name: str, copies: LayerCopies
) -> tuple[Any, list[keras.layers.Layer]]:
    """Returns the sum of two tensors as the first one minus the negative of the second one.

    Args:
        large: A tensor.
        small: A tensor, perhaps of another shape.
        name: Name of the layer that makes the sum.
        copies: Names of the new model.

    Returns:
        The sum, and the layers that compute it.
    """
    negative = keras.layers.Rescaling(-1.0, name=copies.unique(f"{name}_negative"))
    difference = keras.layers.Subtract(name=copies.unique(name))
    return difference([large, negative(small)]), [negative, difference]
