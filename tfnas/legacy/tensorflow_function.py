"""A tf_keras layer that applies one TensorFlow function, for models that are passed to tfmot.

TFOpLambda of tf_keras stores its arguments in the model's graph, where tfmot's graph transforms
misread them. This layer stores them in its config.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from tfnas.legacy.environment import tf_keras
from tfnas.legacy.functional_steps import map_structure
from tfnas.legacy.tf_keras_private import is_symbolic

PLACEHOLDER = "tensor:"


def apply(symbol: str, arguments: dict[str, Any], name: str) -> Any:
    """Applies a function of TensorFlow to tf_keras tensors, as a layer.

    Args:
        symbol: Public name of the function, without "tf.".
        arguments: Its arguments by name: tensors and constants.
        name: Name of the new layer.

    Returns:
        The outputs.
    """
    tensors: list[Any] = []

    def to_config(value: Any) -> Any:
        if not is_symbolic(value):
            return np.asarray(value).tolist() if isinstance(value, np.ndarray) else value
        tensors.append(value)
        return f"{PLACEHOLDER}{len(tensors) - 1}"

    settings = map_structure(arguments, to_config)
    layer = layer_class()(symbol, settings, name=name)
    return layer(tensors[0] if len(tensors) == 1 else tensors)


@functools.cache
def layer_class() -> Any:
    """Returns the layer class; created on demand, since its base class is in tf_keras."""

    @tf_keras().saving.register_keras_serializable("tfnas")
    class Operator(tf_keras().layers.Layer):  # type: ignore[misc]
        """Applies a TensorFlow function to one or several inputs."""

        def __init__(self, symbol: str, arguments: dict[str, Any], **kwargs: Any):
            super().__init__(**kwargs)
            self.symbol = symbol
            self.arguments = arguments

        def call(self, inputs: Any) -> Any:
            tensors = inputs if isinstance(inputs, list | tuple) else [inputs]

            def from_config(value: Any) -> Any:
                is_tensor = isinstance(value, str) and value.startswith(PLACEHOLDER)
                return tensors[int(value.removeprefix(PLACEHOLDER))] if is_tensor else value

            arguments = map_structure(self.arguments, from_config)
            if "slice_spec" in arguments:
                arguments["slice_spec"] = slices(arguments["slice_spec"])
            return function(self.symbol)(**arguments)

        def get_config(self) -> dict[str, Any]:
            arguments = map_structure(self.arguments, lambda value: value)
            return {**super().get_config(), "symbol": self.symbol, "arguments": arguments}

    return Operator


def slices(index: Any) -> Any:
    """Turns the dicts in an index, which configs hold in place of slices, into slices.

    Example:
        >>> slices([0, {"start": None, "stop": 2, "step": None}])
        (0, slice(None, 2, None))

    Args:
        index: An index of `x[index]`, as read from a config.

    Returns:
        The index that can be applied.
    """
    if isinstance(index, list | tuple):
        return tuple(slices(part) for part in index)
    if isinstance(index, dict) and set(index) == {"start", "stop", "step"}:
        return slice(index["start"], index["stop"], index["step"])
    return index


@functools.cache
def function(symbol: str) -> Callable[..., Any]:
    """Returns the TensorFlow function with a public name.

    Args:
        symbol: The name, without "tf.".
    """
    import tensorflow as tf

    found: Any = functools.reduce(getattr, symbol.split("."), tf)
    return found
