"""Converts one layer between Keras 3 and tf_keras, from its config.

Initializers, regularizers and constraints are dropped: the weights are copied, and the classes of
the others differ. The remaining settings are nearly the same in both libraries. A setting that
the target library does not know is dropped if it has its default value, and is an error if not.
"""

from __future__ import annotations

import importlib
import inspect
from typing import Any

import numpy as np

from tfnas.legacy import activations
from tfnas.legacy.environment import tf_keras

DROPPED = ("_initializer", "_regularizer", "_constraint")
# Set by Keras itself, or converted separately (dtype, trainable).
INTERNAL = {"trainable", "dtype", "batch_input_shape", "build_config", "quantization_config"}
# Accepted by tf_keras' recurrent layers through **kwargs.
KEYWORD_ONLY = ("zero_output_for_mask",)
# Keras writes these values where the argument was None.
DEFAULTS = {"data_format": "channels_last"}
ACTIVATIONS = ("activation", "recurrent_activation")
WRAPPED = ("layer", "backward_layer")
# Modules of layers in keras.applications, which neither library exports.
MODULES = {
    "LayerScale": "applications.convnext",
    "StochasticDepth": "applications.convnext",
    "CustomScaleLayer": "applications.inception_resnet_v2",
}
# Setting in Keras 3 -> setting in tf_keras.
RENAMED = {"LeakyReLU": {"negative_slope": "alpha"}}


def to_tf_keras(layer: Any, name: str) -> Any:
    """Converts a Keras 3 layer to an unbuilt tf_keras layer.

    Args:
        layer: The Keras 3 layer.
        name: The new layer's name.

    Returns:
        The new layer.

    Raises:
        ValueError: The other library has no counterpart.
    """
    import keras

    kind = type(layer).__name__
    if kind == "Activation" and layer.activation is keras.activations.relu6:
        return tf_keras().layers.ReLU(6.0, name=name)  # which tfmot can quantize
    target = _counterpart(layer, "keras", "tf_keras")
    config = _config(layer, target, RENAMED.get(kind, {}), to_tf_keras, activations.to_tf_keras)
    return _create(target, {**config, "name": name}, layer)


def from_tf_keras(layer: Any, name: str) -> Any:
    """Converts a tf_keras layer to an unbuilt Keras 3 layer.

    Args:
        layer: The tf_keras layer.
        name: The new layer's name.

    Returns:
        The new layer.

    Raises:
        ValueError: The other library has no counterpart.
    """
    import keras

    kind = type(layer).__name__
    if kind == "ThresholdedReLU" and type(layer) is tf_keras().layers.ThresholdedReLU:
        return keras.layers.ReLU(threshold=float(layer.theta), name=name)
    target = _counterpart(layer, "tf_keras", "keras")
    renamed = {old: new for new, old in RENAMED.get(kind, {}).items()}
    config = _config(layer, target, renamed, from_tf_keras, activations.from_tf_keras)
    return _create(target, {**config, "name": name}, layer)


def _create(target: Any, config: dict[str, Any], layer: Any) -> Any:
    try:
        converted = target(**config)
    except (TypeError, ValueError) as error:
        cause = " ".join(str(error).split())[:200]
        raise _error(layer, f"{target.__module__}.{target.__name__} refuses it: {cause}") from (
            error
        )
    if not layer.trainable:  # setting True would unfreeze layers inside a wrapper
        converted.trainable = False
    return converted


def _counterpart(layer: Any, source: str, target: str) -> Any:
    """The class of the same name in the target library; the layer's class must be a stock one."""
    kind = type(layer).__name__
    home = MODULES.get(kind, "layers")
    source_class, target_class = (_stock(library, home, kind) for library in (source, target))
    if source_class is None or type(layer) is not source_class:
        raise _error(layer, f"it is not the {kind} of {source}.{home}")
    if target_class is None or kind == "Lambda":
        raise _error(layer, f"{target}.{home} has no {kind} to replace it")
    return target_class


def _stock(library: str, home: str, kind: str) -> Any:
    middle = "" if home == "layers" else ".src"
    module = importlib.import_module(f"{library}{middle}.{home}")
    return getattr(module, kind, None)


def _config(
    layer: Any, target: Any, renamed: dict[str, str], convert: Any, convert_activation: Any
) -> Any:
    """The layer's settings as arguments of the target class."""
    known, defaults = _parameters(target), _parameters(type(layer))
    config: dict[str, Any] = {"dtype": layer.dtype_policy.name}
    for key, value in layer.get_config().items():
        name = renamed.get(key, key)
        if key in (*INTERNAL, *WRAPPED) or key.endswith(DROPPED):
            continue
        if name not in known and name not in KEYWORD_ONLY:
            if not _same(value, DEFAULTS.get(key, defaults.get(key, value))):
                raise _error(layer, f"its {key}={value!r} is unknown to {target.__module__}")
            continue
        if key in ACTIVATIONS:
            value = _activation(layer, key, convert_activation)
        config[name] = _plain(key, value)
    return config | _wrapped(layer, convert)


def _wrapped(layer: Any, convert: Any) -> dict[str, Any]:
    """Converts the layers inside a wrapper; Bidirectional adds the prefix of the first itself."""
    inner_layers = {"layer": getattr(layer, "forward_layer", getattr(layer, "layer", None))}
    inner_layers["backward_layer"] = getattr(layer, "backward_layer", None)
    return {
        key: convert(inner, inner.name.removeprefix("forward_"))
        for key, inner in inner_layers.items()
        if inner is not None
    }


def _activation(layer: Any, key: str, convert: Any) -> Any:
    try:
        return convert(getattr(layer, key))
    except ValueError as error:
        raise _error(layer, str(error)) from error


def _parameters(kind: type) -> dict[str, Any]:
    """Name -> default of each parameter of a class and of its base classes."""
    defaults: dict[str, Any] = {"name": None}
    for base in reversed(kind.__mro__):
        init = base.__dict__.get("__init__")
        if inspect.isfunction(init):
            parameters = inspect.signature(init).parameters.values()
            has_kwargs = any(p.kind is p.VAR_KEYWORD for p in parameters)
            defaults = defaults if has_kwargs else {}
            defaults |= {p.name: p.default for p in parameters}
    return defaults


def _same(value: Any, default: Any) -> bool:
    return value is None or bool(np.all(_plain("", value) == _plain("", default)))


def _plain(key: str, value: Any) -> Any:
    """Turns Keras 2's list wrappers into lists, and an axis [3] of BatchNormalization into 3."""
    if isinstance(value, list):
        value = [_plain("", item) for item in value]
    return value[0] if key == "axis" and isinstance(value, list) and len(value) == 1 else value


def _error(layer: Any, cause: str) -> ValueError:
    kind = f"{type(layer).__module__}.{type(layer).__name__}"
    return ValueError(f"layer {layer.name!r} ({kind}) can't be converted: {cause}")
