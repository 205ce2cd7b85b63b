"""Quantization-aware training by tfmot itself, for Keras 3 models.

tfmot refuses nested models, shared layers and every layer that it has no entry for. Nested
models are dissolved here. A layer without an entry gets what tfmot gives `Add`: its output
is quantized. That makes an integer operation of one without weights and constants (Multiply,
hard swish, a slice); any other computes in float between two conversions, and is reported.
"""

from __future__ import annotations

import re
from typing import Any

from tfnas.graph.functional import Skipped, walk
from tfnas.legacy.environment import tf_keras, tfmot
from tfnas.legacy.rebuild import flattened

# tfmot's transforms rewrite these into layers that its registry knows.
TRANSFORMED = ("SeparableConv1D", "SeparableConv2D")
# BatchNormalization is quantized together with one of these in front of it.
FOLDED = ("Conv2D", "DepthwiseConv2D", "Dense", *TRANSFORMED)
ACTIVATIONS = ("linear", "relu", "swish", "softmax", "sigmoid", "tanh", "gelu")
# What moves values about: TFLite wants the scale of the input at the output, so that a range
# of their own would be refused.
MOVES = (
    *("MaxPooling1D", "RepeatVector", "UpSampling1D", "Resizing", "Identity", "Masking"),
    *("Maximum", "Minimum", "ZeroPadding3D", "MaxPooling3D", "UpSampling3D"),
    *("__operators__.getitem", "reshape", "transpose", "squeeze", "expand_dims"),
    *("math.maximum", "math.minimum"),
)
# Unknown to tfmot, but one integer operation in the file.
INTEGER = ("hard_silu", "leaky_relu", "log_softmax")
OUTPUT_ONLY = "tfmot quantizes its output only"


def quantize_aware_tfmot(model: Any) -> tuple[Any, tuple[Skipped, ...]]:
    """Makes a tf_keras model with tfmot's fake quantization of a Keras 3 model.

    It trains with tf_keras' `compile` and `fit`.

    Example:
        >>> import keras, tfnas
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, name="d")])
        >>> wrapped, skipped = tfnas.legacy.quantize_aware_tfmot(model)
        >>> wrapped.layers[-1].name, skipped
        ('quant_d', ())

    Args:
        model: A built functional or Sequential Keras 3 model.

    Returns:
        The tf_keras model, and the layers that compute in float.

    Raises:
        ValueError: A layer has no counterpart in tf_keras or is used twice, or tfmot
            refuses the model.
        ImportError: tf_keras or tensorflow-model-optimization is not installed.
    """
    tfmot()
    _refuse_shared(model)
    plain = flattened(model, _split)
    names = {layer.name for layer in plain.layers}
    _use_up(names, "depthwise_conv2d", lambda: tf_keras().layers.DepthwiseConv2D(1))
    _use_up(names, "conv2d", lambda: tf_keras().layers.Conv2D(1, 1))
    reasons = {layer.name: _reason(layer) for layer in plain.layers}
    made = _apply(model.name, plain, reasons)
    kinds = {layer.name: type(layer).__name__ for layer in plain.layers}
    return made, tuple(Skipped(n, kinds[n], reason) for n, reason in reasons.items() if reason)


def is_quantized(model: Any) -> bool:
    """Whether tfmot's fake quantization is in a tf_keras model.

    Args:
        model: A tf_keras model.
    """
    return any(_wrapped_layer(layer) is not None for layer in model._flatten_layers())


def computes_in_float(model: Any) -> bool:
    """Whether a file of a model that tfmot quantized will hold float operations.

    Args:
        model: A model of :func:`quantize_aware_tfmot`.
    """
    config = _output_config()
    inner = [
        layer.layer
        for layer in model.layers
        if _wrapped_layer(layer) is not None and isinstance(layer.quantize_config, config)
    ]
    # tfmot gives this config to a BatchNormalization that it folds, too.
    return any(_needs_float(layer) for layer in inner if not _is_folded(model, layer))


def _is_folded(model: Any, layer: Any) -> bool:
    if type(layer).__name__ != "BatchNormalization":
        return False
    wrapper = next(each for each in model.layers if _wrapped_layer(each) is layer)
    before = _wrapped_layer(wrapper._inbound_nodes[0].inbound_layers)
    return type(before).__name__ in FOLDED


def _wrapped_layer(layer: Any) -> Any:
    """The layer inside one of tfmot's wrappers, None for any other layer."""
    is_wrapper = type(layer).__name__ in ("QuantizeWrapper", "QuantizeWrapperV2")
    return layer.layer if is_wrapper else None


def _refuse_shared(model: Any) -> None:
    seen: set[int] = set()
    for call in walk(model).calls:
        if id(call.operation) in seen:
            raise ValueError(
                f"model {model.name!r} can't go to tfmot: layer {call.name!r} is used twice"
            )
        seen.add(id(call.operation))


def _split(layer: Any) -> Any:
    """Takes an activation that tfmot doesn't know off a layer, and returns it as a layer."""
    function = getattr(layer, "activation", None)
    kind = getattr(function, "__name__", "linear")
    layers = tf_keras().layers
    if kind in ACTIVATIONS or isinstance(layer, layers.Activation):
        return None
    layer.activation = tf_keras().activations.linear
    name = f"{layer.name}_{kind}"
    if kind == "relu6":
        return layers.ReLU(6.0, name=name)
    return layers.Activation(function, name=name)


def _use_up(names: set[str], stem: str, make: Any) -> None:
    """Moves tf_keras' counter for a kind of layer past the names of the model.

    tfmot makes two layers of a separable convolution, names them by these counters, and
    mixes them up with the model's own of the same name: its BatchNormalization is lost.
    """
    pattern = re.compile(rf"{stem}_?(\d*)")
    found = [match for name in names if (match := pattern.fullmatch(name))]
    last = max((int(match[1] or 0) for match in found), default=-1)
    while (match := pattern.fullmatch(make().name)) and int(match[1] or 0) < last:
        pass


def _apply(name: str, plain: Any, reasons: dict[str, str | None]) -> Any:
    """Wraps the layers; those that tfmot refuses get a reason, and their output is wrapped."""
    quantization = tfmot().quantization.keras
    config = _output_config()

    def annotate(layer: Any) -> Any:
        if not _has_float_output(layer) or _moves(layer):
            return layer
        is_native = reasons[layer.name] is None and _is_native(layer)
        return quantization.quantize_annotate_layer(layer, None if is_native else config())

    while True:
        marked = tf_keras().models.clone_model(plain, clone_function=annotate)
        marked.set_weights(plain.get_weights())
        try:
            with quantization.quantize_scope({config.__name__: config}):
                return quantization.quantize_apply(marked)
        except (ValueError, RuntimeError) as error:
            cause = " ".join(str(error).split())[:300]
            refused = re.match(r"Layer ([^:]+):<class .* is not supported", cause)
            if refused is None or reasons.get(refused[1], "") is not None:
                raise ValueError(f"model {name!r} is refused by tfmot: {cause}") from error
            reasons[refused[1]] = OUTPUT_ONLY


def _has_float_output(layer: Any) -> bool:
    """Whether a wrapper can quantize what the layer gives: one tensor of floats."""
    output = layer._inbound_nodes[0].outputs
    is_input = type(layer).__name__ == "InputLayer"
    return not is_input and hasattr(output, "dtype") and output.dtype.is_floating


def _moves(layer: Any) -> bool:
    return type(layer).__name__ in MOVES or getattr(layer, "symbol", None) in MOVES


def _reason(layer: Any) -> str | None:
    """Why a layer computes in float, None where it doesn't."""
    if _is_native(layer) or _moves(layer) or type(layer).__name__ == "InputLayer":
        return None
    if not _has_float_output(layer):
        return "tfmot quantizes only layers with one output of floats"
    return OUTPUT_ONLY if _needs_float(layer) else None


def _needs_float(layer: Any) -> bool:
    """Whether a layer that only has its output quantized is no integer operation."""
    activation = getattr(getattr(layer, "activation", None), "__name__", INTEGER[0])
    is_scaling = type(layer).__name__ == "Rescaling"
    return bool(layer.weights) or is_scaling or activation not in INTEGER


def _is_native(layer: Any) -> bool:
    """Whether tfmot has an entry for a layer, its place and its activation."""
    kind = type(layer).__name__
    if kind == "BatchNormalization":
        return type(layer._inbound_nodes[0].inbound_layers).__name__ in FOLDED
    scheme = tfmot().quantization.keras.default_8bit.Default8BitQuantizeScheme()
    activation = getattr(getattr(layer, "activation", None), "__name__", "linear")
    is_known = kind in TRANSFORMED or scheme.get_quantize_registry().supports(layer)
    return is_known and activation in ACTIVATIONS


def _output_config() -> Any:
    tfmot()
    from tensorflow_model_optimization.python.core.quantization.keras.default_8bit import (
        default_8bit_quantize_configs,  # tfmot exports the scheme, not its configs
    )

    return default_8bit_quantize_configs.Default8BitOutputQuantizeConfig
