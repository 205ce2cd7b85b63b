"""A tf_keras layer that applies one TensorFlow function, for models that go to tfmot.

TFOpLambda, tf_keras' own, keeps its arguments in the model's graph in a form that tfmot's
graph transforms misread; here they are settings of the layer.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from tfnas.legacy.environment import tf_keras
from tfnas.legacy.functional_steps import mapped

PLACE = "tensor:"


def apply(symbol: str, arguments: dict[str, Any], name: str) -> Any:
    """Applies a function of TensorFlow to tf_keras tensors, as a layer.

    Args:
        symbol: The function's public name.
        arguments: Its arguments by name, tensors and constants.
        name: The layer's name.

    Returns:
        The outputs.
    """
    tensors: list[Any] = []

    def take(value: Any) -> Any:
        if not hasattr(value, "_keras_history"):
            return np.asarray(value).tolist() if isinstance(value, np.ndarray) else value
        tensors.append(value)
        return f"{PLACE}{len(tensors) - 1}"

    settings = mapped(arguments, take)
    layer = layer_class()(symbol, settings, name=name)
    return layer(tensors[0] if len(tensors) == 1 else tensors)


@functools.cache
def layer_class() -> Any:
    """Returns the class; made late, since its base is tf_keras'."""

    @tf_keras().saving.register_keras_serializable("tfnas")
    class Operator(tf_keras().layers.Layer):  # type: ignore[misc]
        """Applies a function to its input or inputs."""

        def __init__(self, symbol: str, arguments: dict[str, Any], **kwargs: Any):
            super().__init__(**kwargs)
            self.symbol = symbol
            self.arguments = arguments

        def call(self, inputs: Any) -> Any:
            tensors = inputs if isinstance(inputs, list | tuple) else [inputs]

            def fill(value: Any) -> Any:
                is_place = isinstance(value, str) and value.startswith(PLACE)
                return tensors[int(value.removeprefix(PLACE))] if is_place else value

            filled = mapped(self.arguments, fill)
            if "slice_spec" in filled:
                filled["slice_spec"] = slices(filled["slice_spec"])
            return function(self.symbol)(**filled)

        def get_config(self) -> dict[str, Any]:
            arguments = mapped(self.arguments, lambda value: value)
            return {**super().get_config(), "symbol": self.symbol, "arguments": arguments}

    return Operator


def slices(key: Any) -> Any:
    """Returns an index with slices made of the dicts that stand for them in configs.

    Example:
        >>> slices([0, {"start": None, "stop": 2, "step": None}])
        (0, slice(None, 2, None))

    Args:
        key: The index.
    """
    if isinstance(key, list | tuple):
        return tuple(slices(part) for part in key)
    if isinstance(key, dict) and set(key) == {"start", "stop", "step"}:
        return slice(key["start"], key["stop"], key["step"])
    return key


@functools.cache
def function(symbol: str) -> Callable[..., Any]:
    """Returns the function of TensorFlow with a public name.

    Args:
        symbol: The name, without "tf.".
    """
    import tensorflow as tf

    found: Any = functools.reduce(getattr, symbol.split("."), tf)
    return found
