"""The precision of new layers: that of the model they go into, not the one set for all of Keras."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

from tfnas.keras_private import all_layers

if TYPE_CHECKING:
    import keras


_OF_FLOATS = ("float16", "bfloat16", "float32", "float64", "mixed_float16", "mixed_bfloat16")


def policy_of(model: keras.Model) -> str:
    """Returns the dtype policy of floats that most layers of a model have.

    Example:
        >>> import keras
        >>> policy_of(keras.Sequential([keras.layers.Dense(2, dtype="mixed_float16")]))
        'mixed_float16'

    Args:
        model: A Keras model. One without layers has "float32".
    """
    import keras

    holders = keras.Model | keras.layers.InputLayer
    names = Counter(
        each.dtype_policy.name
        for each in all_layers(model)
        if not isinstance(each, holders) and each.dtype_policy.name in _OF_FLOATS
    )
    return names.most_common(1)[0][0] if names else "float32"


@contextlib.contextmanager
def new_layers_of(policy: str) -> Iterator[None]:
    """Gives layers that are made inside of it a dtype policy, where they are given none.

    Example:
        >>> import keras
        >>> with new_layers_of("mixed_float16"):
        ...     keras.layers.Dense(2).compute_dtype
        'float16'

    Args:
        policy: Name of the policy.
    """
    import keras

    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)
