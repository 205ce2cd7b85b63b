"""Imports the Keras 2 libraries without turning `tf.keras` into Keras 2."""

from __future__ import annotations

import contextlib
import importlib
import os
from collections.abc import Iterator
from typing import Any

from tfnas.optional import require

VARIABLE = "TF_USE_LEGACY_KERAS"


def tf_keras() -> Any:
    """Returns the module `tf_keras`; does not change `tf.keras`.

    Example:
        >>> import tfnas
        >>> tfnas.legacy.tf_keras().__version__.split(".")[0]
        '2'

    Returns:
        The module.

    Raises:
        ImportError: tf_keras is not installed.
    """
    return _load("tf_keras")


def tfmot() -> Any:
    """Returns tensorflow_model_optimization; does not change `tf.keras` or the environment.

    A plain import sets TF_USE_LEGACY_KERAS=1. TensorFlow resolves `tf.keras` at its first use,
    which would then be Keras 2 for the rest of the process.

    Example:
        >>> import tfnas
        >>> tfnas.legacy.tfmot().quantization.keras.quantize_model.__name__
        'quantize_model'

    Returns:
        The module.

    Raises:
        ImportError: tensorflow-model-optimization or tf_keras is not installed.

    References:
        https://www.tensorflow.org/model_optimization
    """
    _load("tf_keras")
    return _load("tensorflow_model_optimization")


def _load(module: str) -> Any:
    require(module, "models of Keras 2")
    with _environment_restored():
        return importlib.import_module(module)


@contextlib.contextmanager
def _environment_restored() -> Iterator[None]:
    """Resolves `tf.keras` first, and restores the environment variable afterwards."""
    import tensorflow as tf

    _ = tf.keras.__name__, tf.keras.layers  # the first use is final
    before = os.environ.get(VARIABLE)
    try:
        yield
    finally:
        os.environ.pop(VARIABLE, None)
        if before is not None:
            os.environ[VARIABLE] = before
