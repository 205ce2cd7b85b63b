"""Importing the Keras 2 libraries without turning `tf.keras` into Keras 2."""

from __future__ import annotations

import contextlib
import importlib
import os
from collections.abc import Iterator
from typing import Any

from tfnas.optional import require

VARIABLE = "TF_USE_LEGACY_KERAS"


def tf_keras() -> Any:
    """Returns the module `tf_keras`; `tf.keras` stays what it is.

    Example:
        >>> import tfnas
        >>> layers = tfnas.legacy.tf_keras().layers

    Raises:
        ImportError: It is not installed.
    """
    return _load("tf_keras")


def tfmot() -> Any:
    """Returns tensorflow_model_optimization; `tf.keras` and the environment stay as they are.

    Importing it by hand sets TF_USE_LEGACY_KERAS=1, and `tf.keras`, which TensorFlow resolves
    when it is first touched, is then Keras 2 for the rest of the process.

    Example:
        >>> import tfnas
        >>> quantize_model = tfnas.legacy.tfmot().quantization.keras.quantize_model

    Raises:
        ImportError: It is not installed.
    """
    _load("tf_keras")
    return _load("tensorflow_model_optimization")


def _load(module: str) -> Any:
    require(module, "models of Keras 2")
    with _unchanged():
        return importlib.import_module(module)


@contextlib.contextmanager
def _unchanged() -> Iterator[None]:
    """Resolves `tf.keras` by the variable as it is now, and puts the variable back after."""
    import tensorflow as tf

    _ = tf.keras.__name__, tf.keras.layers  # the first use decides for good
    before = os.environ.get(VARIABLE)
    try:
        yield
    finally:
        os.environ.pop(VARIABLE, None)
        if before is not None:
            os.environ[VARIABLE] = before
