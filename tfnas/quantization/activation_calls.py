"""Activation functions of the user's own, as the operations that they call.

`keras.layers.Dense(activation=f)` takes any function. One that calls `keras.ops` is recorded as an
operation or several, each with a role of its own: `lambda x: keras.activations.gelu(x, True)` is a
GELU, `lambda x: x * keras.ops.sigmoid(1.702 * x)` a product.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import keras

from tfnas.graph.functional import Call, Value, walk
from tfnas.graph.registered_layers import is_of_keras

Apply = Callable[[Call, list[Any]], list[Any]]


def opened_activation(layer: Any, name: str, tensor: Any, apply: Apply) -> Any:
    """Applies a function to the operations of an activation layer, one after the other.

    Args:
        layer: A layer or operation.
        name: The path that the operations get before their names.
        tensor: Its input.
        apply: Takes a call and its tensors, and returns those of its outputs.

    Returns:
        The output; None for any other layer, for a function of Keras, which has a role by its name,
        and for one that can't be recorded.
    """
    if type(layer) is not keras.layers.Activation or is_of_keras(layer.activation):
        return None
    inputs = keras.Input(batch_shape=tensor.shape, dtype=tensor.dtype)
    try:
        inner = keras.Model(inputs, layer.activation(inputs))
    except Exception:  # anything that the user's code may raise for a tensor without numbers
        return None
    if len(inner.outputs) != 1 or inner.weights:
        return None
    return opened_calls(inner, name, tensor, apply)[0]


def opened_calls(inner: keras.Model, name: str, tensor: Any, apply: Apply) -> list[Any]:
    """Applies a function to the calls inside of a model of one input, one after the other.

    Args:
        inner: A built functional or Sequential model.
        name: The path that the calls get before their names.
        tensor: Its input.
        apply: Takes a call and its tensors, and returns those of its outputs.

    Returns:
        The outputs.
    """
    flow = walk(inner)
    values: dict[Value, Any] = dict(zip(flow.inputs, [tensor], strict=True))
    for each in flow.calls:
        named = dataclasses.replace(each, name=f"{name}/{each.name}")
        results = apply(named, [values[value] for value in each.inputs])
        values.update(zip(each.outputs, results, strict=True))
    return [values[value] for value in flow.outputs]
