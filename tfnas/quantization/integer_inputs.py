"""Inputs of ids, which an integer file takes as they are, and inputs of integers that are numbers.

Keras gives an input float32 where no type is set, and Embedding and CategoryEncoding make integers
of its numbers. An integer file would round them to its scale first, and an id of 600 would become
another one: such an input is int32 there.

The pixels of a uint8 input that a Rescaling or Normalization reads, or that are cast to floats, are
numbers. The converter would keep a float operator for their change of type: such an input is
float32 before the conversion, and has the file's integers as any other number. Steps of 1 hold the
256 values of uint8 exactly.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from typing import Any

import keras

from tfnas.graph.functional import Call, LayerCopies, Value, Walk, rebuild, walk
from tfnas.graph.idle_layers import IDLE
from tfnas.keras_private import functional_inside
from tfnas.quantization.call_forms import looks_rows_up

_LOG = logging.getLogger(__name__)
_MOVES = {
    *IDLE,
    "Cast",
    "ExpandDims",
    "Flatten",
    "GetItem",
    "Permute",
    "Reshape",
    "Squeeze",
    "Transpose",
}
_READ_NUMBERS = ("Rescaling", "Normalization", "TrueDivide")  # of any type: they make floats of it


def with_integer_inputs(model: keras.Model) -> keras.Model:
    """Returns a model whose inputs of ids are int32, and those of numbers float32.

    Example:
        >>> import keras
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Embedding(600, 8)])
        >>> with_integer_inputs(model).inputs[0].dtype
        'int32'

    Args:
        model: A built functional or Sequential model.

    Returns:
        A model with the same weights; the model itself where no input of floats holds ids and none
        of integers numbers.

    Raises:
        ValueError: An input holds ids and other numbers.
    """
    flow = walk(model)
    tensors = list(zip(functional_inside(model).inputs, flow.inputs, strict=True))
    ids = [
        tensor.name
        for tensor, value in tensors
        if "float" in tensor.dtype and _holds_ids(flow, value, tensor.name)
    ]
    numbers = [
        tensor.name
        for tensor, value in tensors
        if "int" in tensor.dtype and _holds_numbers(flow, value)
    ]
    if not (ids or numbers):
        return model
    if ids:
        _LOG.warning(
            "model %r: %s is int32 in the file, as it holds ids", model.name, ", ".join(ids)
        )
    if numbers:
        _LOG.warning(
            "model %r: %s has the type of an input of floats in the file, as it holds numbers",
            *(model.name, ", ".join(numbers)),
        )
    copies = LayerCopies()
    dtypes = dict.fromkeys(ids, "int32") | dict.fromkeys(numbers, "float32")

    def apply(call: Call, inputs: list[Any]) -> Sequence[Any]:
        """Calls a layer's copy, but no cast of what is a float already."""
        casts_float = _casts_to_floats(call) and inputs[0].dtype == "float32"
        return inputs[:1] if casts_float else copies.call(call, inputs)

    changed = rebuild(model, apply, class_of=None, flow=flow, input_dtypes=dtypes)
    copies.carry_weights()
    return changed


def _holds_numbers(flow: Walk, value: Value) -> bool:
    ends = _ends(flow, value, _MOVES - {"Cast"})
    read = bool(ends) and all(c.kind in _READ_NUMBERS or _casts_to_floats(c) for c in ends)
    return read and not any(_looks_up(call) for call in _ends(flow, value))


def _casts_to_floats(call: Call) -> bool:
    return call.kind == "Cast" and "float" in call.operation.dtype


def _holds_ids(flow: Walk, value: Value, name: str) -> bool:
    ends = _ends(flow, value)
    looked_up = [call for call in ends if _looks_up(call)]
    others = [call for call in ends if call.kind != "NotEqual" and not _looks_up(call)]
    if looked_up and others:
        raise ValueError(
            f"input {name!r} must hold ids alone in an integer file, which rounds other numbers, "
            f"got ids of {looked_up[0].name!r} and numbers of {others[0].name!r}: give each an "
            "input of its own"
        )
    return bool(looked_up)


def _ends(flow: Walk, value: Value, moves: Collection[str] = frozenset(_MOVES)) -> list[Call]:
    """The calls that take the numbers of an input, perhaps moved."""
    ends: list[Call] = []
    moved: set[Any] = {value}
    for call in flow.calls:
        if not moved & set(call.inputs):
            continue
        if call.kind in moves:
            moved |= set(call.outputs)
        else:
            ends.append(call)
    return ends


def _looks_up(call: Call) -> bool:
    one_hot = getattr(call.operation, "output_mode", None) == "one_hot"
    is_table = call.kind == "Embedding" or looks_rows_up(call)
    return is_table or (call.kind == "CategoryEncoding" and one_hot)
