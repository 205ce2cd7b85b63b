"""Quantization-aware training by tfmot itself, for Keras 3 models.

tfmot refuses nested models, shared layers and all layers that are not in its registry. Nested
models are flattened here. A layer that is not in the registry is treated as tfmot treats `Add`:
its output is quantized. Without weights and constants (Multiply, hard swish, a slice) it then
becomes an integer operation; with them it computes in float between two conversions, and is
reported.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from tfnas.graph.functional import Skipped, walk
from tfnas.keras_private import all_layers
from tfnas.legacy.environment import tf_keras, tfmot
from tfnas.legacy.rebuild import flattened
from tfnas.legacy.tf_keras_private import first_node, output_quantize_config

if TYPE_CHECKING:
    import keras

# tfmot's transforms replace these by layers in its registry.
TRANSFORMED = ("SeparableConv1D", "SeparableConv2D")
# BatchNormalization is quantized together with one of these before it.
FOLDED = ("Conv2D", "DepthwiseConv2D", "Dense", *TRANSFORMED)
ACTIVATIONS = ("linear", "relu", "swish", "softmax", "sigmoid", "tanh", "gelu")
# These only select or move values: TFLite requires the output to have the scale of the input, so
# they must not get a range of their own.
SAME_SCALE = (
    "MaxPooling1D",
    "RepeatVector",
    "UpSampling1D",
    "Resizing",
    "Identity",
    "Masking",
    "Maximum",
    "Minimum",
    "ZeroPadding3D",
    "MaxPooling3D",
    "UpSampling3D",
    "__operators__.getitem",
    "reshape",
    "transpose",
    "squeeze",
    "expand_dims",
    "math.maximum",
    "math.minimum",
)
# Unknown to tfmot, but a single integer operation in TFLite.
INTEGER = ("hard_silu", "leaky_relu", "log_softmax")
OUTPUT_ONLY = "tfmot quantizes its output only"


def quantize_aware_tfmot(model: keras.Model) -> tuple[Any, tuple[Skipped, ...]]:
    """Converts a Keras 3 model to a tf_keras model with tfmot's fake quantization.

    Train it with its `compile` and `fit`, which are those of tf_keras.

    Example:
        >>> import keras, tfnas
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, name="d")])
        >>> wrapped, skipped = tfnas.legacy.quantize_aware_tfmot(model)
        >>> wrapped.layers[-1].name, skipped
        ('quant_d', ())

    Args:
        model: A built functional or Sequential Keras 3 model.

    Returns:
        The tf_keras model, and the layers that compute in float, with the reason.

    Raises:
        ValueError: A layer has no counterpart in tf_keras or is used twice, or tfmot
            refuses the model.
        ImportError: tf_keras or tensorflow-model-optimization is not installed.
    """
    tfmot()
    _check_not_shared(model)
    float_model = flattened(model, _split)
    names = {layer.name for layer in float_model.layers}
    _advance_names(names, "depthwise_conv2d", lambda: tf_keras().layers.DepthwiseConv2D(1))
    _advance_names(names, "conv2d", lambda: tf_keras().layers.Conv2D(1, 1))
    reasons = {layer.name: _reason(layer) for layer in float_model.layers}
    quantized = _quantize(model.name, float_model, reasons)
    kinds = {layer.name: type(layer).__name__ for layer in float_model.layers}
    return quantized, tuple(Skipped(n, kinds[n], reason) for n, reason in reasons.items() if reason)


def is_quantized(model: Any) -> bool:
    """Returns whether a tf_keras model holds fake quantization of tfmot.

    Args:
        model: A tf_keras model.
    """
    return any(_wrapped_layer(layer) is not None for layer in all_layers(model))


def computes_in_float(model: Any) -> bool:
    """Returns whether the TFLite file of a model quantized by tfmot will hold float operations.

    Args:
        model: A model of :func:`quantize_aware_tfmot`.
    """
    config = output_quantize_config()
    inner = [
        layer.layer
        for layer in model.layers
        if _wrapped_layer(layer) is not None and isinstance(layer.quantize_config, config)
    ]
    # A BatchNormalization that tfmot folds has this config too.
    return any(_needs_float(layer) for layer in inner if not _is_folded(model, layer))


def _is_folded(model: Any, layer: Any) -> bool:
    if type(layer).__name__ != "BatchNormalization":
        return False
    wrapper = next(each for each in model.layers if _wrapped_layer(each) is layer)
    before = _wrapped_layer(first_node(wrapper).inbound_layers)
    return type(before).__name__ in FOLDED


def _wrapped_layer(layer: Any) -> Any:
    """The layer inside a wrapper of tfmot; None for any other layer."""
    is_wrapper = type(layer).__name__ in ("QuantizeWrapper", "QuantizeWrapperV2")
    return layer.layer if is_wrapper else None


def _check_not_shared(model: keras.Model) -> None:
    seen: set[int] = set()
    for call in walk(model).calls:
        if id(call.operation) in seen:
            raise ValueError(
                f"model {model.name!r} can't be quantized by tfmot: layer {call.name!r} is used "
                "twice"
            )
        seen.add(id(call.operation))


def _split(layer: Any) -> Any:
    """Moves an activation that tfmot does not know from a layer to a new layer; returns it."""
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


def _advance_names(names: set[str], stem: str, create: Any) -> None:
    """Advances tf_keras' automatic names for a class of layers beyond the names of the model.

    tfmot replaces a separable convolution by two layers with automatic names, and confuses them
    with layers of the model that have the same names: a BatchNormalization gets lost.
    """
    pattern = re.compile(rf"{stem}_?(\d*)")
    matches = [match for name in names if (match := pattern.fullmatch(name))]
    last = max((int(match[1] or 0) for match in matches), default=-1)
    while (match := pattern.fullmatch(create().name)) and int(match[1] or 0) < last:
        pass


def _quantize(name: str, float_model: Any, reasons: dict[str, str | None]) -> Any:
    """Has tfmot quantize the model; adds to `reasons` the layers that it refuses.

    Of these only the output is quantized, in another attempt.
    """
    quantization = tfmot().quantization.keras
    config = output_quantize_config()

    def annotate(layer: Any) -> Any:
        if not _has_float_output(layer) or _keeps_scale(layer):
            return layer
        is_native = reasons[layer.name] is None and _is_native(layer)
        return quantization.quantize_annotate_layer(layer, None if is_native else config())

    while True:
        annotated = tf_keras().models.clone_model(float_model, clone_function=annotate)
        annotated.set_weights(float_model.get_weights())
        try:
            with quantization.quantize_scope({config.__name__: config}):
                return quantization.quantize_apply(annotated)
        except (ValueError, RuntimeError) as error:
            cause = " ".join(str(error).split())[:300]
            refused = re.match(r"Layer ([^:]+):<class .* is not supported", cause)
            if refused is None or reasons.get(refused[1], "") is not None:
                raise ValueError(f"model {name!r} is refused by tfmot: {cause}") from error
            reasons[refused[1]] = OUTPUT_ONLY


def _has_float_output(layer: Any) -> bool:
    """Whether a wrapper can quantize the layer's output: one tensor of floats."""
    output = first_node(layer).outputs
    is_input = type(layer).__name__ == "InputLayer"
    return not is_input and hasattr(output, "dtype") and output.dtype.is_floating


def _keeps_scale(layer: Any) -> bool:
    return type(layer).__name__ in SAME_SCALE or getattr(layer, "symbol", None) in SAME_SCALE


def _reason(layer: Any) -> str | None:
    """Why a layer computes in float; None where it does not."""
    if _is_native(layer) or _keeps_scale(layer) or type(layer).__name__ == "InputLayer":
        return None
    if not _has_float_output(layer):
        return "tfmot quantizes only layers with one output of floats"
    return OUTPUT_ONLY if _needs_float(layer) else None


def _needs_float(layer: Any) -> bool:
    """Whether a layer of which only the output is quantized computes in float."""
    activation = getattr(getattr(layer, "activation", None), "__name__", INTEGER[0])
    is_scaling = type(layer).__name__ == "Rescaling"
    return bool(layer.weights) or is_scaling or activation not in INTEGER


def _is_native(layer: Any) -> bool:
    """Whether tfmot supports a layer with its activation at its position."""
    kind = type(layer).__name__
    if kind == "BatchNormalization":
        return type(first_node(layer).inbound_layers).__name__ in FOLDED
    scheme = tfmot().quantization.keras.default_8bit.Default8BitQuantizeScheme()
    activation = getattr(getattr(layer, "activation", None), "__name__", "linear")
    is_known = kind in TRANSFORMED or scheme.get_quantize_registry().supports(layer)
    return is_known and activation in ACTIVATIONS
