"""Conversion of mixed-precision models to float32, which integer files are made from."""

from __future__ import annotations

from typing import Any

import keras

from tfnas.graph.functional import LayerCopies, rebuild
from tfnas.keras_private import all_layers

_HALF = ("float16", "bfloat16")
_POLICIES = (*_HALF, *(f"mixed_{name}" for name in _HALF))


def to_float32(model: keras.Model) -> keras.Model:
    """Returns a model that computes in float32: the model itself, or a copy with its weights.

    Under a mixed-precision policy the weights are float32 already. A layer without weights that
    can't be rebuilt from its configuration stays as it is.

    Args:
        model: A built functional or Sequential model.

    Returns:
        The model, if all its layers compute in float32; else a copy.

    Raises:
        ValueError: A layer with weights can't be rebuilt from its configuration, or the
            model's class overrides call(), which the copy would lack.
    """
    if not half_precision_layers(model):
        return model
    owner = next(base for base in type(model).__mro__ if "call" in vars(base))
    if not owner.__module__.startswith("keras."):
        raise ValueError(
            f"model must compute in float32, got {model.name!r} of mixed precision, whose class "
            f"{type(model).__name__} has a call() of its own"
        )
    copies = LayerCopies(_with_float32_policies)
    float_model = rebuild(model, copies.call, class_of=None)
    copies.carry_weights()
    return float_model


def half_precision_layers(model: keras.Model) -> list[str]:
    """Returns the names of the layers that compute in float16 or bfloat16."""
    return [
        layer.name
        for layer in all_layers(model, include_self=False)
        if layer.compute_dtype in _HALF and type(layer).__name__ != "InputLayer"
    ]


def _with_float32_policies(config: Any) -> Any:
    """Returns a layer's configuration with all dtype policies replaced by float32."""
    if isinstance(config, dict):
        if config.get("class_name") in ("DTypePolicy", "DTypePolicyMap"):
            return "float32"
        return {
            key: "float32"
            if key == "dtype" and value in _POLICIES
            else _with_float32_policies(value)
            for key, value in config.items()
        }
    if isinstance(config, list | tuple):
        return type(config)(_with_float32_policies(value) for value in config)
    return config
