"""What a layer becomes in an integer file, and how a layer of one's own says it."""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Any, TypeVar, overload

import keras


class Role(enum.Enum):
    """See the table in :mod:`tfnas.quantization.layer_roles`."""

    KERNEL = enum.auto()
    NORM = enum.auto()
    AFFINE = enum.auto()
    RELU = enum.auto()
    COMPUTE = enum.auto()
    FIXED = enum.auto()
    SAME = enum.auto()
    OPEN = enum.auto()
    FLOAT = enum.auto()


ROLES = {"same": Role.SAME, "compute": Role.COMPUTE, "open": Role.OPEN, "float": Role.FLOAT}
_REGISTERED: dict[type, Role] = {}
_Layer = TypeVar("_Layer", bound=type)


@overload
def register_quantizable(layer_class: _Layer, role: str | None = ...) -> _Layer: ...


@overload
def register_quantizable(
    layer_class: None = ..., role: str | None = ...
) -> Callable[[_Layer], _Layer]: ...


def register_quantizable(layer_class: Any = None, role: str | None = "open") -> Any:
    """Tells :func:`tfnas.quantize_aware` what a layer class of one's own becomes in integers.

    Without it, such a layer stays float in the file. Subclasses are what their class is; what
    a class was told last counts. Models that are quantization-aware already stay as they are.

    | role      | the layer                                                               |
    |-----------|-------------------------------------------------------------------------|
    | "open"    | computes with Keras layers and `keras.ops` alone: each becomes what it  |
    |           | is by itself (flat after :func:`tfnas.strip_quantization`)                |
    | "same"    | moves numbers without changing them                                     |
    | "compute" | is one operator that TFLite has in integers; its output is rounded      |
    | "float"   | stays float                                                             |

    Example:
        >>> import keras, numpy as np, tfnas
        >>> @tfnas.register_quantizable(role="same")
        ... class Turned(keras.layers.Layer):
        ...     def call(self, x):
        ...         return keras.ops.transpose(x, (0, 2, 1))
        >>> model = keras.Sequential([keras.Input((4, 3)), keras.layers.Dense(2), Turned()])
        >>> tfnas.unquantized_layers(tfnas.quantize_aware(model))
        []
        >>> tfnas.register_quantizable(Turned, None) is Turned  # and it is forgotten
        True

    Args:
        layer_class: A subclass of `keras.layers.Layer`; left out where used as a decorator.
        role: "open", "same", "compute" or "float"; None: what was registered is forgotten.

    Returns:
        The class; without one, a decorator.

    Raises:
        ValueError: The class is no layer class, or the role is unknown.
    """
    if role is not None and role not in ROLES:
        raise ValueError(f"role must be one of {', '.join(ROLES)} or None, got {role!r}")
    if layer_class is None:
        return lambda decorated: register_quantizable(decorated, role)
    if not isinstance(layer_class, type) or not issubclass(layer_class, keras.layers.Layer):
        raise ValueError(
            f"layer_class must be a subclass of keras.layers.Layer, got {layer_class!r}: as a "
            "decorator, name the role: @register_quantizable(role=...)"
        )
    if role is None:
        _REGISTERED.pop(layer_class, None)
    else:
        _REGISTERED[layer_class] = ROLES[role]
    return layer_class


def registered_role(operation: Any) -> Role | None:
    """Returns what a layer's class, or the nearest base of it, was registered as."""
    bases = type(operation).__mro__
    return next((_REGISTERED[base] for base in bases if base in _REGISTERED), None)
