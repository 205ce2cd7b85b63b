"""The errors that conversion to `.tflite` raises beside ValueError, and their messages."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from tfnas.keras_private import all_layers
from tfnas.runtime.helper_process import HelperDied
from tfnas.tflite.flatbuffer import innermost

if TYPE_CHECKING:
    import keras

    from tfnas.quantization.spec import QuantSpec


class ConversionError(RuntimeError):
    """The model can't be converted as requested; the message names the cause and the layer.

    Example:
        >>> import tfnas
        >>> issubclass(tfnas.ConversionError, RuntimeError)
        True
    """


_WAYS_OUT = {
    "ResizeBicubic": "; interpolation 'bilinear' and 'nearest' have one",
    "ScaleAndTranslate": "; interpolation 'bilinear' and 'nearest' have one",
}


class NoCalibration(ValueError):
    """The mode needs calibration data, but `calibration` is None."""


def conversion_message(model: keras.Model, spec: QuantSpec, error: Exception) -> str:
    """Returns one line that says why a conversion failed.

    Args:
        model: The model that was converted.
        spec: The formats that were requested.
        error: What TensorFlow raised.

    Returns:
        The operation that has no TFLite kernel and its layer, where the error names them;
        otherwise the first line of the error.
    """
    text = str(error)
    ops = sorted(
        set(
            re.findall(r"(?:Flex ops|Custom ops|failed to legalize operation): ?'?([\w., ]+)", text)
        )
    )
    ops += sorted(set(re.findall(r"'(tf\.\w+|tfl\.\w+)' op", text)))
    cause = _reason(text) or type(error).__name__
    if ops:
        cause = f"operation {', '.join(op.strip() for op in ops)} has no TFLite kernel"
    hint = next((way for name, way in _WAYS_OUT.items() if any(name in op for op in ops)), "")
    hint = hint or _hint_of_open_sizes(model)
    place = _place(text, model)
    return f"model {model.name!r} can't be converted to {spec.mode}: {cause}{place}{hint}"


def _hint_of_open_sizes(model: keras.Model) -> str:
    """What may help where a model leaves sizes open, which many operations need."""
    for tensor in getattr(model, "inputs", None) or ():
        if None in tensor.shape[1:]:
            return (
                f"; input {tensor.name!r} leaves sizes open, {tuple(tensor.shape)}: input_shape= "
                "gives them numbers"
            )
    return ""


def _reason(text: str) -> str:
    """The first line of an error, or of what Keras prints in bold inside of a layer's error."""
    bold = re.search(r"\x1b\[1m(.+?)\x1b\[0m", text, re.DOTALL)
    lines = (bold[1] if bold else text).strip().splitlines()
    return lines[0][:200] if lines else ""


def death_message(model: keras.Model, spec: QuantSpec, death: HelperDied) -> str:
    """Returns one line that says how the converter ended its process.

    Args:
        model: The model that was converted.
        spec: The formats that were requested.
        death: The end of the helper process; what it printed may name a layer.
    """
    reasons = re.findall(r"^(?:\S*: )?error: (.{1,200})", death.output, re.MULTILINE)
    why = f" after the error {reasons[-1].strip()!r}" if reasons else ""
    where = _place(death.output, model)
    return (
        f"model {model.name!r} can't be converted to {spec.mode}: the converter {death}{why}{where}"
    )


def _place(text: str, model: keras.Model) -> str:
    """The layers that a text of the converter names, as the end of a sentence."""
    # Scopes such as loc("model_1/gelu_1/Erf"); an operation may add inner scopes.
    scopes = re.findall(r'"([\w./;-]+/[\w./;-]+)', text)
    layers = sorted({name for scope in scopes if (name := _innermost_layer(scope, model))})
    return f" in layer {', '.join(layers)}" if layers else ""


def _innermost_layer(scope: str, model: keras.Model) -> str | None:
    """The last part of a scoped name that is a layer of the model."""
    names = {layer.name for layer in all_layers(model, include_self=False)}
    return innermost(scope.split(";")[0].split("/"), names)
