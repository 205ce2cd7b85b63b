"""Known reasons why an operator computes something else than its Keras layer.

Each reason is a computation: the layer is computed in the other way, and the reason is given only
where the file's numbers are those.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from tfnas.measure.quantization_debugger.error_report import LayerError, Unaligned
from tfnas.measure.quantization_debugger.operator_alignment import MOVES
from tfnas.measure.verification.layer_values import LayerValue

if TYPE_CHECKING:
    from tfnas.measure.verification.file_values import FileTensors

FLOAT16_LARGEST = 65504.0
_POOLS = ("MaxPooling1D", "MaxPooling2D", "AveragePooling1D", "AveragePooling2D")
_CONVOLUTIONS = ("Conv1D", "Conv2D", "DepthwiseConv1D", "DepthwiseConv2D")
_OWN = 0.1  # of a limit: what a layer adds of its own where differences before it have grown
_GROWN = "it computes the same from the file's own numbers, in which small differences have grown"
# (what the file does, the numbers that the layer gives then)
Other = tuple[str, np.ndarray]


def reason_of(
    layer: LayerValue, following: Sequence[LayerValue], values: FileTensors, limit: float
) -> str:
    """Returns why a layer's output is not in a file; empty where no known reason fits.

    Args:
        layer: The layer with what it takes and gives in Keras.
        following: The layers after it that the converter may have fused into it.
        values: The tensors of the file.
        limit: Largest difference of a number that counts as equal, as a fraction of the largest.
    """
    weights = getattr(layer.operation, "weights", ())
    largest = max((float(np.abs(np.asarray(w)).max(initial=0.0)) for w in weights), default=0.0)
    if values.has_float16 and largest > FLOAT16_LARGEST:
        return f"its weights reach {largest:.4g}, and float16 holds {FLOAT16_LARGEST:,.0f} at most"
    for ways in (_other_axis, _other_gelu, _other_resize, _other_padding):
        for text, numbers in ways(layer):
            if numbers.shape == layer.output.shape and any(
                values.error_of(form) <= limit for form in _fused(numbers, following)
            ):
                return text
    return _GROWN if _computes_the_same(layer, following, values, limit) else ""


def _computes_the_same(
    layer: LayerValue, following: Sequence[LayerValue], values: FileTensors, limit: float
) -> bool:
    """Whether Keras gives the file's numbers from what the file itself gives the layer."""
    if len(layer.inputs) != 1 or not layer.before:
        return False
    numbers = layer.of(values.nearest_form(layer.inputs[0]))
    return any(values.error_of(form) <= limit * _OWN for form in _fused(numbers, following))


def _fused(numbers: np.ndarray, following: Sequence[LayerValue]) -> Iterator[np.ndarray]:
    """A layer's output, then what the layers after it make of it."""
    yield numbers
    for layer in following:
        numbers = layer.of(numbers)
        yield numbers


def reason_of_noise(error: LayerError, unaligned: Sequence[Unaligned] = ()) -> str:
    """Returns why an operator of integers adds noise.

    Args:
        error: The operator's error.
        unaligned: Operators that can't be compared, whose noise shows behind them.
    """
    outside = (
        f"{100 * error.saturation:.2g}% of its values lie outside of the range that its integers "
        "cover"
    )
    saturates = error.saturation > 0.001
    if error.operator in MOVES and error.noise > error.added:
        ours = [each for each in unaligned if (each.layer, each.file) == (error.layer, "quantized")]
        names = ", ".join(dict.fromkeys(o.operator for o in ours if o.operator not in MOVES))
        parts = ["it only moves numbers, which operators before it have computed and rounded"]
        parts += [f"the float file has no counterpart of this layer's {names}"] if names else []
        return "; ".join([*parts, *([outside] if saturates else [])])
    if saturates:
        return outside
    if error.weight_noise is not None and error.weight_noise > error.grid_noise:
        return f"its weights are rounded to {error.weight_bits} bits"
    return f"its output is rounded to {error.dtype}"


def _other_axis(layer: LayerValue) -> Iterator[Other]:
    if "softmax" not in {_activation(layer), layer.kind.lower()} or not layer.inputs:
        return
    before = _linear(layer)
    for axis in range(1, before.ndim):
        numbers = keras.ops.softmax(before, axis)
        yield f"the softmax is over axis {axis} in the file", np.asarray(numbers)


def _other_gelu(layer: LayerValue) -> Iterator[Other]:
    if "gelu" not in {_activation(layer), layer.kind.lower()} or not layer.inputs:
        return
    before = _linear(layer)
    for approximate, name in ((True, "by tanh"), (False, "exactly")):
        numbers = keras.activations.gelu(before, approximate)
        yield f"GELU is computed {name} in the file", np.asarray(numbers)


def _other_resize(layer: LayerValue) -> Iterator[Other]:
    """Places of pixels: half a pixel off, or corners on corners, as older converters write."""
    import tensorflow as tf

    if layer.kind not in ("UpSampling2D", "Resizing", "Resize") or layer.output.ndim != 4:
        return
    methods = {
        "bilinear": tf.raw_ops.ResizeBilinear,
        "nearest": tf.raw_ops.ResizeNearestNeighbor,
    }
    for method, resize in methods.items():
        for corners, half in ((False, False), (True, False), (False, True)):
            numbers = resize(
                images=layer.inputs[0],
                size=layer.output.shape[1:3],
                align_corners=corners,
                half_pixel_centers=half,
            )
            text = f"align_corners={corners}, half_pixel_centers={half} in the file"
            yield f"the image is resized by {method} with {text}", np.asarray(numbers)


def _other_padding(layer: LayerValue) -> Iterator[Other]:
    """Equal padding on both sides, as PyTorch's; "same" pads less before than after."""
    operation = layer.operation
    if layer.kind not in (*_CONVOLUTIONS, *_POOLS) or operation.padding != "same":
        return
    config = {**operation.get_config(), "padding": "valid", "name": "without_padding"}
    copy = type(operation).from_config(config)
    size = operation.kernel_size if layer.kind in _CONVOLUTIONS else operation.pool_size
    fill = -np.inf if layer.kind.startswith("Max") else 0.0
    around = [(0, 0), *((n // 2, n // 2) for n in size), (0, 0)]
    padded = np.pad(layer.inputs[0].astype("float32"), around, constant_values=fill)
    copy.build(padded.shape)
    copy.set_weights(operation.get_weights())
    yield "the padding is equal on both sides in the file", np.asarray(copy(padded))


def _activation(layer: LayerValue) -> str:
    activation: Callable[..., Any] | None = getattr(layer.operation, "activation", None)
    return str(getattr(activation, "__name__", ""))


def _linear(layer: LayerValue) -> np.ndarray:
    """What a layer's activation is applied to."""
    operation = layer.operation
    kernel = getattr(operation, "kernel", None)
    if kernel is None or not hasattr(operation, "activation"):
        return layer.inputs[0]
    activation = operation.activation
    try:
        operation.activation = keras.activations.linear
        return np.asarray(operation(layer.inputs[0]))
    finally:
        operation.activation = activation
