"""The activation that a classifier's outputs come from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tfnas.graph.functional import walk

if TYPE_CHECKING:
    import keras


def gives_probabilities(model: keras.Model) -> bool:
    """Whether a classifier ends in a softmax or sigmoid rather than in logits.

    Example:
        >>> import keras
        >>> gives_probabilities(keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)]))
        False

    Args:
        model: A built functional or Sequential model with one output.

    Returns:
        Whether its outputs are probabilities.

    Raises:
        ValueError: The model is subclassed, or has several outputs.
    """
    return bool(last_activation(model))


def last_activation(model: keras.Model) -> str:
    """Returns "softmax" or "sigmoid" where a classifier ends in one, else "".

    Example:
        >>> import keras
        >>> dense = keras.layers.Dense(2, activation="softmax")
        >>> last_activation(keras.Sequential([keras.Input((4,)), dense]))
        'softmax'

    Args:
        model: A built functional or Sequential model with one output.

    Raises:
        ValueError: The model is subclassed, or has several outputs.
    """
    found = output_activations(model)
    if len(found) != 1:
        raise ValueError(f"model must have one output, got {len(found)}")
    return found[0]


def output_activations(model: keras.Model) -> list[str]:
    """Returns "softmax", "sigmoid" or "" for each output of a model.

    Example:
        >>> import keras
        >>> inputs = keras.Input((4,))
        >>> heads = [keras.layers.Dense(2, activation=name)(inputs) for name in ("sigmoid", None)]
        >>> output_activations(keras.Model(inputs, heads))
        ['sigmoid', '']

    Args:
        model: A built functional or Sequential model.

    Raises:
        ValueError: The model is subclassed.
    """
    flow = walk(model)
    return [_activation(flow.calls, value) for value in flow.outputs]


def _activation(calls: Sequence[Any], value: Any) -> str:
    for call in reversed(calls):
        if value not in call.outputs:
            continue
        kind = type(call.operation).__name__.lower()
        activation = getattr(getattr(call.operation, "activation", None), "__name__", "")
        if found := {kind, activation} & {"softmax", "sigmoid"}:
            return found.pop()
        if kind not in ("reshape", "flatten", "dropout", "identity", "activation", "fakequant"):
            return ""  # a FakeQuant only rounds
        if kind == "activation" and activation != "linear":
            return ""
        value = call.inputs[0]
    return ""
