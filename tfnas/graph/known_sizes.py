"""Sizes of tensors: products of known ones, and sizes inside of a model that leaves them open."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
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
    found = recorded
    if _is_open(recorded) and before != [shape[1:] for shape in shapes]:
        found = _told_by(node.operation.compute_output_spec, node, shapes) or recorded
    if _is_open(found) and not _is_open(shapes):
        # The layer was built for any size, as an EinsumDense in attention: its computation tells.
        of_call = functools.partial(keras.Operation.compute_output_spec, node.operation)
        found = _told_by(of_call, node, shapes) or found
    return found


def _is_open(shapes: Sequence[Shape]) -> bool:
    return any(None in shape[1:] for shape in shapes)


def _told_by(spec: Callable[..., Any], node: Any, shapes: Sequence[Shape]) -> list[Shape] | None:
    """Shapes of a call's outputs by a function of its arguments; None where it can't tell."""
    import keras

    pairs = zip(node.input_tensors, shapes, strict=True)
    tensors = {id(old): keras.KerasTensor(shape, old.dtype) for old, shape in pairs}
    args, kwargs = fill_arguments(node, tensors)
    try:
        found = spec(*args, **kwargs)
    except Exception:  # anything that a layer's own code may raise: the sizes stay open
        return None
    return [tuple(tensor.shape) for tensor in keras.tree.flatten(found)]
