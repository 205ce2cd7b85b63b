"""Where activations are read in a model: a layer's output, or the probabilities of its attention.

Keras' attention layers return their probabilities, (batch, heads, queries, keys), beside the output
where they are called with `return_attention_scores=True`. They then compute the output in another
way, which differs for queries without a key, and after dropout some return what it left. So the
probabilities come from a call of their own, and the model computes what it does without it.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from tfnas.graph.functional import Call
from tfnas.graph.registered_layers import is_of_keras
from tfnas.keras_private import mask_of, set_mask

WITH_HEADS = ("MultiHeadAttention", "GroupedQueryAttention")
ATTENTION = (*WITH_HEADS, "Attention", "AdditiveAttention")
_CLASSES = (
    keras.layers.MultiHeadAttention,
    keras.layers.GroupQueryAttention,
    keras.layers.Attention,
)
Shape = tuple[int | None, ...]


@dataclasses.dataclass(frozen=True)
class ActivationTap:
    """A place in a model where activations are read.

    Args:
        layer: Name or path of the layer.
        maps: Whether its attention's probabilities are read, not its output.
    """

    layer: str
    maps: bool = False


def attends(call: Call) -> bool:
    """Whether a call is of a layer of Keras with attention over one axis."""
    return is_attention(call) and unread_because(call) is None


def is_attention(call: Call) -> bool:
    """Whether a call is of an attention layer of Keras, or of a class that is derived from one."""
    return isinstance(call.operation, _CLASSES)


def unread_because(call: Call) -> str | None:
    """Returns why the probabilities of a call can't be read; None where they can.

    Args:
        call: A call that :func:`is_attention`.
    """
    if call.kind not in ATTENTION or not is_of_keras(type(call.operation)):
        return f"is of a class of its own, {type(call.operation).__name__}"
    read = _query_and_value(call, _arguments(call, call.inputs))
    if any(len(value.shape) != 3 for value in read):
        return "attends over more than one axis"
    return None


def shape_of_maps(call: Call) -> Shape:
    """Returns the shape of a call's probabilities, (batch, heads, queries, keys).

    Args:
        call: A call that :func:`attends`; of Attention and AdditiveAttention there is one head.
    """
    named = _arguments(call, call.inputs)
    query, value = _query_and_value(call, named)
    heads = 1
    if call.kind in WITH_HEADS:
        names = ("num_heads", "num_query_heads")
        found = [getattr(call.operation, name, None) for name in names]
        heads = next(int(each) for each in found if each)
    return (query.shape[0], heads, query.shape[1], value.shape[1])


def maps_of(call: Call, tensors: Sequence[Any]) -> Any:
    """Returns the probabilities of a call's attention, as in inference: no dropout leaves any out.

    In a graph the rest of the layer is not computed again, since nothing reads it.

    Args:
        call: A call that :func:`attends`.
        tensors: A tensor for each of its inputs.

    Returns:
        Probabilities (batch, heads, queries, keys): 0 for queries that a mask leaves out.
    """
    named = _arguments(call, tensors)
    query, _ = _query_and_value(call, named)
    kept = [(tensor, mask_of(tensor)) for tensor in tensors]
    masks = named.get("mask") or [None]
    mask = named.get("query_mask", masks[0])
    mask = mask_of(query) if mask is None else mask
    with keras.StatelessScope():  # losses of its activations count once, for the model's own call
        _, maps = call.operation(**{**named, "return_attention_scores": True, "training": False})
    for tensor, own in kept:  # MultiHeadAttention takes the masks off its inputs
        if own is not None:
            set_mask(tensor, own)
    if len(maps.shape) == 3:
        maps = ops.expand_dims(maps, 1)
    if mask is not None:
        maps = maps * ops.cast(mask, maps.dtype)[:, None, :, None]
    return maps


def _query_and_value(call: Call, named: dict[str, Any]) -> tuple[Any, Any]:
    if call.kind in WITH_HEADS:
        return named["query"], named["value"]
    query, value = named["inputs"][:2]
    return query, value


def _arguments(call: Call, tensors: Sequence[Any]) -> dict[str, Any]:
    args, kwargs = call.arguments(list(tensors))
    signature = inspect.signature(call.operation.call)
    return dict(signature.bind_partial(*args, **kwargs).arguments)
