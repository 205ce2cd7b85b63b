"""Conversion of models of other precisions to float32, which files are made from."""

from __future__ import annotations

import logging
from typing import Any

import keras

from tfnas.graph.functional import LayerCopies, rebuild
from tfnas.keras_private import all_layers

_LOG = logging.getLogger(__name__)
_OTHER = ("float16", "bfloat16", "float64")
_POLICIES = (*_OTHER, "mixed_float16", "mixed_bfloat16")


def to_float32(model: keras.Model) -> keras.Model:
    """Returns a model that computes in float32: the model itself, or a copy with its weights.

    Under a mixed-precision policy weights are float32 already; those of float64 are rounded, and
    its inputs are float32 too. A layer without weights that can't be rebuilt from its configuration
    stays as it is.

    Args:
        model: A built functional or Sequential model.

    Returns:
        The model, if all its layers compute in float32; else a copy.

    Raises:
        ValueError: A layer with weights can't be rebuilt from its configuration, or the
            model's class overrides call(), which the copy would lack.
    """
    others = other_precision_layers(model)
    if not others:
        return model
    owner = next(base for base in type(model).__mro__ if "call" in vars(base))
    if not owner.__module__.startswith("keras."):
        raise ValueError(
            f"model must compute in float32, got {model.name!r} of another precision, whose class "
            f"{type(model).__name__} has a call() of its own"
        )
    _LOG.warning(
        "model %r: %d layers that compute in %s are cast to float32",
        *(model.name, len(others), " and ".join(other_precisions(model))),
    )
    copies = LayerCopies(_with_float32_policies)
    dtypes = {tensor.name: "float32" for tensor in model.inputs if "float" in tensor.dtype}
    float_model = rebuild(model, copies.call, class_of=None, input_dtypes=dtypes)
    copies.carry_weights()
    return float_model


def other_precision_layers(model: keras.Model) -> list[str]:
    """Returns the names of the layers that compute in float16, bfloat16 or float64."""
    return [layer.name for layer in all_layers(model) if _computes_otherwise(layer)]


def other_precisions(model: keras.Model) -> tuple[str, ...]:
    """Returns the precisions other than float32 that layers compute in, such as ("float16",)."""
    layers = filter(_computes_otherwise, all_layers(model))
    return tuple(sorted({layer.compute_dtype for layer in layers}))


def _computes_otherwise(layer: keras.layers.Layer) -> bool:
    is_container = isinstance(layer, keras.Model | keras.layers.InputLayer)
    return layer.compute_dtype in _OTHER and not is_container


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
