"""The activation that a classifier's outputs come from."""

from __future__ import annotations

from typing import TYPE_CHECKING

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
    flow = walk(model)
    if len(flow.outputs) != 1:
        raise ValueError(f"model must have one output, got {len(flow.outputs)}")
    value = flow.outputs[0]
    for call in reversed(flow.calls):
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
