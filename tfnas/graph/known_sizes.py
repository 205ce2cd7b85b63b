"""Sizes of tensors: products of known ones, and sizes inside of a model that leaves them open."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from tfnas.keras_private import fill_arguments

Shape = tuple[int | None, ...]


def product(sizes: Sequence[int | None]) -> int | None:
    """Returns the product of sizes; None where one is unknown.

    Args:
        sizes: Numbers of places, None for an unknown one.
    """
    known = [int(size) for size in sizes if size is not None]
    return math.prod(known) if len(known) == len(sizes) else None


def times(*numbers: int | None) -> int | None:
    """Returns the product of counts; None where one is unknown."""
    return product(numbers)


def total(numbers: Sequence[int | None]) -> int | None:
    """Returns the sum of counts; None where one is unknown.

    Args:
        numbers: The counts.
    """
    known = [number for number in numbers if number is not None]
    return sum(known) if len(known) == len(numbers) else None


def output_shapes(node: Any, shapes: Sequence[Shape]) -> list[Shape]:
    """Returns the shapes of a call's outputs, for inputs of more sizes than when it was recorded.

    A nested model may leave sizes open that the model around it fixes.

    Args:
        node: Keras' node of the call.
        shapes: Shapes of its inputs, the batch first.
    """
    import keras

    recorded = [tuple(tensor.shape) for tensor in node.outputs]
    before = [tuple(tensor.shape)[1:] for tensor in node.input_tensors]
    if before == [shape[1:] for shape in shapes] or all(None not in s[1:] for s in recorded):
        return recorded
    pairs = zip(node.input_tensors, shapes, strict=True)
    tensors = {id(old): keras.KerasTensor(shape, old.dtype) for old, shape in pairs}
    args, kwargs = fill_arguments(node, tensors)
    try:
        spec = node.operation.compute_output_spec(*args, **kwargs)
    except Exception:  # anything that a layer's own code may raise: the sizes stay open
        return recorded
    return [tuple(tensor.shape) for tensor in keras.tree.flatten(spec)]
