"""Making one layer again in the other Keras, from its config.

Initializers, regularizers and constraints stay behind: the weights are copied, so that the
first have nothing to do, and the others' classes differ. What remains is nearly the same on
both sides. A setting that the other side doesn't know is dropped where it has its default
value, and is an error elsewhere.
"""

from __future__ import annotations

import importlib
import inspect
from typing import Any

import numpy as np

from tfnas.legacy import activations
from tfnas.legacy.environment import tf_keras

LEFT_BEHIND = ("_initializer", "_regularizer", "_constraint")
# Set by Keras, not by the caller; or, as the policy, carried over by hand.
BOOKKEEPING = {"trainable", "dtype", "batch_input_shape", "build_config", "quantization_config"}
# Taken by tf_keras' recurrent layers without being among their parameters.
UNSEEN = ("zero_output_for_mask",)
# Written out by Keras where the caller gave None.
DEFAULTS = {"data_format": "channels_last"}
ACTIVATIONS = ("activation", "recurrent_activation")
WRAPPED = ("layer", "backward_layer")
# Layers of keras.applications that neither library exports.
HOMES = {
    "LayerScale": "applications.convnext",
    "StochasticDepth": "applications.convnext",
    "CustomScaleLayer": "applications.inception_resnet_v2",
}
# Keras 3's name -> tf_keras'.
RENAMED = {"LeakyReLU": {"negative_slope": "alpha"}}


def to_tf_keras(layer: Any, name: str) -> Any:
    """Returns an unbuilt tf_keras layer that does what a Keras 3 layer does.

    Args:
        layer: The Keras 3 layer.
        name: The new layer's name.

    Raises:
        ValueError: There is no counterpart.
    """
    import keras

    kind = type(layer).__name__
    if kind == "Activation" and layer.activation is keras.activations.relu6:
        return tf_keras().layers.ReLU(6.0, name=name)  # tfmot quantizes this one
    target = _counterpart(layer, "keras", "tf_keras")
    config = _config(layer, target, RENAMED.get(kind, {}), to_tf_keras, activations.to_tf_keras)
    return _make(target, {**config, "name": name}, layer)


def from_tf_keras(layer: Any, name: str) -> Any:
    """Returns an unbuilt Keras 3 layer that does what a tf_keras layer does.

    Args:
        layer: The tf_keras layer.
        name: The new layer's name.

    Raises:
        ValueError: There is no counterpart.
    """
    import keras

    kind = type(layer).__name__
    if kind == "ThresholdedReLU" and type(layer) is tf_keras().layers.ThresholdedReLU:
        return keras.layers.ReLU(threshold=float(layer.theta), name=name)
    target = _counterpart(layer, "tf_keras", "keras")
    renamed = {old: new for new, old in RENAMED.get(kind, {}).items()}
    config = _config(layer, target, renamed, from_tf_keras, activations.from_tf_keras)
    return _make(target, {**config, "name": name}, layer)


def _make(target: Any, config: dict[str, Any], layer: Any) -> Any:
    try:
        made = target(**config)
    except (TypeError, ValueError) as error:
        cause = " ".join(str(error).split())[:200]
        raise _refusal(layer, f"{target.__module__}.{target.__name__} refuses it: {cause}") from (
            error
        )
    if not layer.trainable:  # to set True would unfreeze the layers inside a wrapper
        made.trainable = False
    return made


def _counterpart(layer: Any, source: str, target: str) -> Any:
    """The class of the same name on the other side, if the layer's own is a stock one."""
    kind = type(layer).__name__
    home = HOMES.get(kind, "layers")
    own, other = (_stock(library, home, kind) for library in (source, target))
    if own is None or type(layer) is not own:
        raise _refusal(layer, f"it is not the {kind} of {source}.{home}")
    if other is None or kind == "Lambda":
        raise _refusal(layer, f"{target}.{home} has no {kind} to stand for it")
    return other


def _stock(library: str, home: str, kind: str) -> Any:
    middle = "" if home == "layers" else ".src"
    module = importlib.import_module(f"{library}{middle}.{home}")
    return getattr(module, kind, None)


def _config(layer: Any, target: Any, renamed: dict[str, str], make: Any, activate: Any) -> Any:
    """The layer's settings as keywords of the target class."""
    known, defaults = _parameters(target), _parameters(type(layer))
    config: dict[str, Any] = {"dtype": layer.dtype_policy.name}
    for key, value in layer.get_config().items():
        name = renamed.get(key, key)
        if key in (*BOOKKEEPING, *WRAPPED) or key.endswith(LEFT_BEHIND):
            continue
        if name not in known and name not in UNSEEN:
            if not _same(value, DEFAULTS.get(key, defaults.get(key, value))):
                raise _refusal(layer, f"its {key}={value!r} is unknown to {target.__module__}")
            continue
        if key in ACTIVATIONS:
            value = _activation(layer, key, activate)
        config[name] = _plain(key, value)
    return config | _wrapped(layer, make)


def _wrapped(layer: Any, make: Any) -> dict[str, Any]:
    """The layers inside a wrapper, made again; Bidirectional renames its first one itself."""
    found = {"layer": getattr(layer, "forward_layer", getattr(layer, "layer", None))}
    found["backward_layer"] = getattr(layer, "backward_layer", None)
    return {
        key: make(inner, inner.name.removeprefix("forward_"))
        for key, inner in found.items()
        if inner is not None
    }


def _activation(layer: Any, key: str, activate: Any) -> Any:
    try:
        return activate(getattr(layer, key))
    except ValueError as error:
        raise _refusal(layer, str(error)) from error


def _parameters(kind: type) -> dict[str, Any]:
    """Name -> default of each parameter of a class and of the classes it extends."""
    found: dict[str, Any] = {"name": None}
    for base in reversed(kind.__mro__):
        init = base.__dict__.get("__init__")
        if inspect.isfunction(init):
            parameters = inspect.signature(init).parameters.values()
            hands_on = any(p.kind is p.VAR_KEYWORD for p in parameters)
            found = found if hands_on else {}
            found |= {p.name: p.default for p in parameters}
    return found


def _same(value: Any, default: Any) -> bool:
    return value is None or bool(np.all(_plain("", value) == _plain("", default)))


def _plain(key: str, value: Any) -> Any:
    """Without Keras 2's list wrappers; BatchNormalization's axis [3] is 3."""
    if isinstance(value, list):
        value = [_plain("", item) for item in value]
    return value[0] if key == "axis" and isinstance(value, list) and len(value) == 1 else value


def _refusal(layer: Any, cause: str) -> ValueError:
    kind = f"{type(layer).__module__}.{type(layer).__name__}"
    return ValueError(f"layer {layer.name!r} ({kind}) can't be brought over: {cause}")
