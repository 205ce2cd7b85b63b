"""A model of mixed precision as one of float32, for files of integers."""

from __future__ import annotations

from typing import Any

from tfnas.graph.functional import LayerCopies, rebuild

_HALF = ("float16", "bfloat16")
_POLICIES = (*_HALF, *(f"mixed_{name}" for name in _HALF))


def in_float32(model: Any) -> Any:
    """Returns a model that computes in float32: the model itself, or a copy with its weights.

    Weights of mixed precision are float32 already. A layer without weights that can't be
    made again from its configuration stays as it is.

    Args:
        model: A built functional or Sequential model.

    Raises:
        ValueError: A layer with weights can't be made again from its configuration, or the
            model's class has a call() of its own, which a copy would lack.
    """
    if not in_half_precision(model):
        return model
    owner = next(base for base in type(model).__mro__ if "call" in vars(base))
    if not owner.__module__.startswith("keras."):
        raise ValueError(
            f"model must compute in float32, got {model.name!r} of mixed precision, whose class "
            f"{type(model).__name__} has a call() of its own"
        )
    copies = LayerCopies(_of_float32)
    plain = rebuild(model, copies.call)
    copies.carry_weights()
    return plain


def in_half_precision(model: Any) -> list[str]:
    """Returns the names of the layers that compute in another precision than float32."""
    return [
        layer.name
        for layer in model._flatten_layers(include_self=False)
        if layer.compute_dtype in _HALF and type(layer).__name__ != "InputLayer"
    ]


def _of_float32(config: Any) -> Any:
    """A layer's configuration with another precision, that of the layers inside it too."""
    if isinstance(config, dict):
        if config.get("class_name") in ("DTypePolicy", "DTypePolicyMap"):
            return "float32"
        return {
            key: "float32" if key == "dtype" and value in _POLICIES else _of_float32(value)
            for key, value in config.items()
        }
    if isinstance(config, list | tuple):
        return type(config)(_of_float32(value) for value in config)
    return config
