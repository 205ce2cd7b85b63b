"""Where activations are read in a model: a layer's output, or the probabilities of its attention.

Keras' attention layers return their probabilities, (batch, heads, queries, keys), beside the output
where they are called with `return_attention_scores=True`. The output is the same.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Sequence
from typing import Any

from keras import ops

from tfnas.graph.functional import Call
from tfnas.graph.registered_layers import is_of_keras
from tfnas.keras_private import mask_of

WITH_HEADS = ("MultiHeadAttention", "GroupedQueryAttention")
ATTENTION = (*WITH_HEADS, "Attention", "AdditiveAttention")
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
    if call.kind not in ATTENTION or not is_of_keras(type(call.operation)):
        return False
    return all(len(value.shape) == 3 for value in call.inputs if "float" in value.dtype)


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


def output_and_maps(call: Call, tensors: Sequence[Any], training: bool | None) -> tuple[Any, Any]:
    """Computes a call, and the probabilities of its attention.

    Args:
        call: A call that :func:`attends`.
        tensors: A tensor for each of its inputs.
        training: As in `keras.Model.call`.

    Returns:
        The output, and probabilities (batch, heads, queries, keys): 0 for queries that a mask
        leaves out.
    """
    named = _arguments(call, tensors)
    named["return_attention_scores"] = True
    if training is not None:
        named["training"] = training
    output, maps = call.operation(**named)
    query, _ = _query_and_value(call, named)
    masks = named.get("mask") or [None]
    mask = named.get("query_mask", masks[0])
    mask = mask_of(query) if mask is None else mask
    if len(maps.shape) == 3:
        maps = ops.expand_dims(maps, 1)
    if mask is not None:
        maps = maps * ops.cast(mask, maps.dtype)[:, None, :, None]
    return output, maps


def _query_and_value(call: Call, named: dict[str, Any]) -> tuple[Any, Any]:
    if call.kind in WITH_HEADS:
        return named["query"], named["value"]
    query, value = named["inputs"][:2]
    return query, value


def _arguments(call: Call, tensors: Sequence[Any]) -> dict[str, Any]:
    args, kwargs = call.arguments(list(tensors))
    signature = inspect.signature(call.operation.call)
    return dict(signature.bind_partial(*args, **kwargs).arguments)
