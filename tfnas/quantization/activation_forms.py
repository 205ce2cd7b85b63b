"""Activation functions that an integer file computes by several operators.

- :class:`PReluForm`: RELU, SUB, MUL by the slopes, ADD, for 8 and 16 bits. The converter has no
  integer PRELU for slopes that are trained.
- :class:`SixteenBitActivation`: GELU by LOGISTIC, ELU and SELU by EXP. TFLite has no 16-bit kernels
  for them. Inner ranges are constants: outside of them the functions have reached their ends.

GELU is x * Phi(x). With the right a and b, x * sigmoid(x * (a + b * x^2)) is within 2.8e-4 of it;
the approximate GELU is defined so.

References:
    Hendrycks and Gimpel, "Gaussian Error Linear Units (GELUs)", arXiv 1606.08415, 2016.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from tfnas.graph.registered_layers import register_layer
from tfnas.quantization.fake_quant import FakeQuant
from tfnas.quantization.inner_ranges import BITS, InnerRange
from tfnas.quantization.integer_layers import channel_convolution
from tfnas.quantization.quantized_kernel import PACKAGE

# a and b; those of the exact function have the least maximum error of x * Phi(x).
_TANH = (2.0 * math.sqrt(2.0 / math.pi), 2.0 * math.sqrt(2.0 / math.pi) * 0.044715)
_ERF = (1.6, 0.0695)
_SELU_SCALE, _SELU_ALPHA = 1.05070098, 1.67326324
_LOGISTIC = (-32767.0 / 32768.0, 32767.0 / 32768.0)  # as TFLite's kernel prescribes
_END = 16.0  # exp(-16) and 1 - sigmoid(16) are below a 16-bit step


@register_layer(macs=0)
@keras.saving.register_keras_serializable(PACKAGE)
class SixteenBitActivation(keras.layers.Layer):
    """An activation by operators with 16-bit kernels; see the module.

    Args:
        function: "gelu", "gelu_tanh", "elu" or "selu".
        alpha: The value that ELU approaches with its sign changed.
    """

    def __init__(self, function: str, alpha: float = 1.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.function, self.alpha, self.supports_masking = function, float(alpha), True
        for name, end in self._ends().items():
            own = InnerRange(fixed=None if end is None else (-end, end), name=name)
            setattr(self, f"{name}_range", own)

    def _ends(self) -> dict[str, float | None]:
        """The largest number of each inner tensor; None where it is observed."""
        if self.function.startswith("gelu"):
            return {"square": _END, "slope": 4.0, "gate_input": _END, "gate": _LOGISTIC[1]}
        return {"positive": None, "negative": _END, "power": 1.0, "lower": self._factors()[1]}

    def _factors(self) -> tuple[float, float]:
        """The slope above 0, and the limit below it with its sign changed."""
        selu = self.function == "selu"
        return (_SELU_SCALE, _SELU_SCALE * _SELU_ALPHA) if selu else (1.0, self.alpha)

    def build(self, input_shape: Any = None) -> None:
        """Builds the ranges."""
        for name in self._ends():
            getattr(self, f"{name}_range").build(None)
        self.built = True

    def call(self, x: Any, training: bool | None = None) -> Any:
        """Returns the function of each number."""

        def rounded(name: str, value: Any) -> Any:
            return getattr(self, f"{name}_range")(value, training=training)

        value = tf.cast(x, tf.float32)
        ones = tf.ones([int(x.shape[-1])], tf.float32)
        if self.function.startswith("gelu"):
            a, b = _TANH if self.function == "gelu_tanh" else _ERF
            square = rounded("square", value * value)
            slope = rounded("slope", channel_convolution(square, b * ones, a * ones, BITS))
            gate = tf.sigmoid(rounded("gate_input", value * slope))
            return tf.cast(value * rounded("gate", gate), x.dtype)
        slope, limit = self._factors()
        above = value if slope == 1.0 else channel_convolution(value, slope * ones, 0 * ones, BITS)
        above = rounded("positive", tf.nn.relu(above))
        below = rounded("negative", tf.minimum(value, 0.0))
        below = channel_convolution(
            rounded("power", tf.exp(below)), limit * ones, -limit * ones, BITS
        )
        return tf.cast(above + rounded("lower", below), x.dtype)

    def float_form(self, x: Any) -> Any:
        """Returns the function itself of a Keras tensor."""
        if self.function.startswith("gelu"):
            return keras.ops.gelu(x, approximate=self.function == "gelu_tanh")
        return keras.ops.selu(x) if self.function == "selu" else keras.ops.elu(x, self.alpha)

    def compute_output_shape(self, input_shape: Any) -> Any:
        """Returns the input's shape."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {**super().get_config(), "function": self.function, "alpha": self.alpha}


def arithmetic_form(
    function: str, x: Any, base: str, name: Callable[[str], str], part: Callable[[Any], Any]
) -> Any:
    """Returns a function of a 16-bit tensor by layers of arithmetic, which have 16-bit kernels.

    Args:
        function: Name of the function.
        x: A Keras tensor.
        base: Name of the layer that makes the result, and beginning of the others' names.
        name: Returns an unused layer name that resembles the requested one.
        part: Notes a layer as a part of the function, and returns it.

    Returns:
        A Keras tensor; None where the function has no such form.
    """
    layers = keras.layers
    if function in ("abs", "absolute"):
        opposite = part(layers.Rescaling(-1.0, name=name(f"{base}_opposite")))(x)
        return part(layers.Maximum(name=name(base)))([x, opposite])
    if function == "square":
        return squared(x, part(layers.Multiply(name=name(base))))
    if function == "hard_sigmoid":  # relu6(x + 3) / 6
        gate = _relu6_gate(x, base, name, part)
        return part(layers.Rescaling(1 / 6, name=name(base)))(gate)
    return None


def squared(x: Any, multiply: keras.layers.Multiply) -> Any:
    """Returns the product of a tensor with itself.

    The converter moves a reshape of both factors, as that of a Dense layer of many places, behind
    their product, and finds no range there; not where another one, of an axis more, is between.

    Args:
        x: A Keras tensor.
        multiply: The layer of the product.
    """
    if len(x.shape) == 2:
        return multiply([x, x])
    wider = keras.ops.expand_dims(x, 1)
    return keras.ops.squeeze(multiply([wider, wider]), 1)


def hard_silu(x: Any, name: Callable[[str], str], part: Callable[[Any], Any]) -> Any:
    """Returns hard_silu(x) = x * relu6(x + 3) / 6, by layers that have 16-bit kernels.

    Args:
        x: A Keras tensor.
        name: Returns an unused layer name that resembles the requested one.
        part: Notes a layer as a part of the function, and returns it.
    """
    gate = _relu6_gate(x, "hard_silu", name, part)
    product = part(keras.layers.Multiply(name=name("hard_silu_product")))([x, gate])
    return part(keras.layers.Rescaling(1 / 6, name=name("hard_silu")))(product)


def _relu6_gate(x: Any, base: str, name: Callable[[str], str], part: Callable[[Any], Any]) -> Any:
    """relu6(x + 3)."""
    shifted = part(keras.layers.Rescaling(1.0, 3.0, name=name(f"{base}_shift")))(x)
    return part(keras.layers.ReLU(6.0, name=name(f"{base}_gate")))(shifted)


def sixteen_bit_activation(operation: Any, function: str | None, x: Any, name: str) -> Any:
    """Returns the layer of an activation of a 16-bit tensor by operators with 16-bit kernels.

    Args:
        operation: The layer or operation.
        function: Name of its function.
        x: Its input, a Keras tensor.
        name: Name of the new layer.

    Returns:
        The layer; None where the function has no such form.
    """
    if function not in ("gelu", "elu", "selu") or not 2 <= len(x.shape) <= 4 or x.shape[-1] is None:
        return None
    if function == "gelu" and getattr(operation, "approximate", False):
        function = "gelu_tanh"
    alpha = getattr(operation, "alpha", 1.0) if function == "elu" else 1.0
    return SixteenBitActivation(function, alpha, name=name)


@register_layer(macs=0)
@keras.saving.register_keras_serializable(PACKAGE)
class PReluForm(keras.layers.Wrapper):
    """A PReLU as relu(x) + slopes * min(x, 0), each part with a range.

    Args:
        layer: A PReLU layer.
        bits: Bits of the activations.
        momentum: Momentum of the ranges' moving averages, in [0, 1).
    """

    def __init__(self, layer: Any, bits: int = 8, momentum: float = 0.99, **kwargs: Any) -> None:
        super().__init__(layer, **kwargs)
        self.bits, self.momentum, self.supports_masking = bits, momentum, True
        for name in _PARTS:
            setattr(
                self,
                f"{name}_range",
                FakeQuant(bits, momentum=momentum, dtype="float32", name=name),
            )

    def build(self, input_shape: Any = None) -> None:
        """Builds the layer and the ranges."""
        if not self.layer.built:
            self.layer.build(input_shape)
        for name in _PARTS:
            getattr(self, f"{name}_range").build(None)
        self.built = True

    def call(self, x: Any, training: bool | None = None) -> Any:
        """Returns the PReLU of each number."""
        value = tf.cast(x, tf.float32)
        above = self.above_range(tf.nn.relu(value), training=training)
        below = self.below_range(value - above, training=training)
        sloped = self.sloped_range(below * self._slopes(), training=training)
        return tf.cast(above + sloped, x.dtype)

    def _slopes(self) -> Any:
        slopes = tf.cast(self.layer.alpha.value, tf.float32)
        fixed = tf.stop_gradient(slopes)
        low, high = tf.minimum(tf.reduce_min(fixed), 0.0), tf.maximum(tf.reduce_max(fixed), 0.0)
        high = tf.where(high - low > 0.0, high, 1.0)
        if self.bits > 8:
            high = tf.maximum(high, -low)
            low = -high
        return tf.quantization.fake_quant_with_min_max_vars(
            slopes, low, high, num_bits=self.bits, narrow_range=self.bits > 8
        )

    def compute_output_shape(self, input_shape: Any) -> Any:
        """Returns the input's shape."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """Returns the layer's configuration, for saving."""
        return {**super().get_config(), "bits": self.bits, "momentum": self.momentum}


_PARTS = ("above", "below", "sloped")
