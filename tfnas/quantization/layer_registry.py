"""Registry of custom layers: what a layer class becomes in an integer file."""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Any, TypeVar, overload

import keras


class Role(enum.Enum):
    """What a call becomes in an integer file; see :mod:`tfnas.quantization.layer_roles`."""

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
    """Registers a custom layer class for :func:`tfnas.quantize_aware`.

    A custom layer that is not registered stays float in the file. Subclasses inherit the role of
    their class; the last registration of a class counts. Models that are quantization-aware
    already do not change.

    | role      | the layer                                                               |
    |-----------|-------------------------------------------------------------------------|
    | "open"    | calls Keras layers and `keras.ops` only: it is unfolded into them, and  |
    |           | stays so after :func:`tfnas.strip_quantization`                         |
    | "same"    | moves values without changing them                                      |
    | "compute" | is one operator that TFLite has in integers; its output is quantized    |
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
        >>> tfnas.register_quantizable(Turned, None) is Turned  # removed again
        True

    Args:
        layer_class: A subclass of `keras.layers.Layer`. Leave it out to use the function as a
            decorator.
        role: "open", "same", "compute" or "float". None: removes the class from the registry.

    Returns:
        The class; without `layer_class` a decorator.

    Raises:
        ValueError: `layer_class` is no layer class, or the role is unknown.
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
    """Returns the role that a layer's class, or its nearest base class, is registered with."""
    bases = type(operation).__mro__
    return next((_REGISTERED[base] for base in bases if base in _REGISTERED), None)
