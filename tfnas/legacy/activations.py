"""Converts activation functions, including those that differ between Keras 2 and Keras 3.

The hard sigmoid is relu6(x + 3) / 6 in Keras 3, and clip(0.2 x + 0.5, 0, 1) in Keras 2. A file
that names it means the one of the library that wrote the file.

Functions that a library lacks are defined here and registered with it under "tfnas", so that
models with them can be saved, cloned and loaded.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

# The same function under the same name in both libraries.
COMMON = (
    "relu",
    "softmax",
    "elu",
    "selu",
    "softplus",
    "softsign",
    "gelu",
    "tanh",
    "sigmoid",
    "exponential",
    "linear",
    "mish",
)
PACKAGE = "tfnas"


def to_tf_keras(function: Any) -> Any:
    """Converts a Keras 3 activation to a name or function for a tf_keras layer.

    Args:
        function: The `activation` of the Keras 3 layer.

    Returns:
        The name or function.

    Raises:
        ValueError: The other library has no counterpart.
    """
    import keras

    name = getattr(function, "__name__", type(function).__name__)
    if function is keras.activations.silu:
        return "swish"  # the name that tfmot knows
    if name in COMMON and function is getattr(keras.activations, name):
        return name
    if function is not None and function is for_keras().get(name):
        return name.removeprefix("keras2_")
    if name in for_tf_keras() and function is getattr(keras.activations, name, None):
        return for_tf_keras()[name]
    raise ValueError(f"activation {name!r} has no counterpart in tf_keras")


def from_tf_keras(function: Any) -> Any:
    """Converts a tf_keras activation to a name or function for a Keras 3 layer.

    Args:
        function: The `activation` of the tf_keras layer.

    Returns:
        The name or function.

    Raises:
        ValueError: The other library has no counterpart.
    """
    from tfnas.legacy.environment import tf_keras

    name = getattr(function, "__name__", type(function).__name__)
    if function is tf_keras().activations.swish:
        return "silu"
    if function is tf_keras().activations.hard_sigmoid:
        return for_keras()["keras2_hard_sigmoid"]
    if name in COMMON and function is getattr(tf_keras().activations, name):
        return name
    if function is not None and function is for_tf_keras().get(name):
        return name
    raise ValueError(f"activation {name!r} has no counterpart in Keras 3")


@functools.cache
def for_tf_keras() -> dict[str, Callable[[Any], Any]]:
    """Returns name in Keras 3 -> function for tf_keras, registered there."""
    import tensorflow as tf

    from tfnas.legacy.environment import tf_keras

    def relu6(x: Any) -> Any:
        return tf.nn.relu6(x)

    # The TFLite converter fuses exactly this form into one HARD_SWISH.
    def hard_silu(x: Any) -> Any:
        return x * (tf.nn.relu6(x + 3.0) * (1.0 / 6.0))

    def hard_sigmoid(x: Any) -> Any:
        return tf.nn.relu6(x + 3.0) * (1.0 / 6.0)

    def leaky_relu(x: Any) -> Any:
        return tf.nn.leaky_relu(x, 0.2)

    def log_softmax(x: Any) -> Any:
        return tf.nn.log_softmax(x)

    def log_sigmoid(x: Any) -> Any:
        return tf.math.log_sigmoid(x)

    def hard_tanh(x: Any) -> Any:
        return tf.clip_by_value(x, -1.0, 1.0)

    functions = (relu6, hard_silu, hard_sigmoid, leaky_relu, log_softmax, log_sigmoid, hard_tanh)
    register = tf_keras().saving.register_keras_serializable(PACKAGE)
    return {function.__name__: register(function) for function in functions}


@functools.cache
def for_keras() -> dict[str, Callable[[Any], Any]]:
    """Returns name -> function for Keras 3, registered there."""
    import keras

    def keras2_hard_sigmoid(x: Any) -> Any:
        return keras.ops.clip(0.2 * x + 0.5, 0.0, 1.0)

    register = keras.saving.register_keras_serializable(PACKAGE)
    return {"keras2_hard_sigmoid": register(keras2_hard_sigmoid)}
