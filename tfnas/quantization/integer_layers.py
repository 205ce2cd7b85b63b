"""Layers that are computed by other operators in an integer file than in a float file.

- :class:`ChannelAffine`: a factor and an offset for each channel (Rescaling, Normalization,
  LayerScale, a BatchNormalization that is not folded into a convolution) becomes a 1x1 depthwise
  convolution, which an integer file computes exactly; an offset alone becomes a sum with a
  constant.
- :class:`SixteenBitForm` and :func:`hard_silu` replace layers that have no 16-bit operator: the
  converter of TensorFlow 2.21 has no 16-bit CONCATENATION and TILE, TFLite no 16-bit HARD_SWISH.
- :class:`OneHotCategories` finds categories by comparing integers: Keras' own way makes floats of
  them first, which no integer file can hold.
- :class:`FloatConcatenate` keeps a concatenation float where one of its inputs is, and
  :class:`FloatInput` the numbers that a layer with kernels takes, where it stays float.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfnas.graph.functional import Call
from tfnas.graph.registered_layers import register_layer
from tfnas.quantization.quantized_kernel import PACKAGE, zeros_to_ones

HARD_SILU = {"hard_silu", "hard_swish", "HardSilu"}
_REPEATS = ("UpSampling1D", "UpSampling2D", "RepeatVector")


@register_layer(macs=0)
@keras.saving.register_keras_serializable(PACKAGE)
class ChannelAffine(keras.layers.Wrapper):
    """x * factor + offset for each channel; at inference in the form of an integer file.

    Args:
        layer: Rescaling, Normalization, BatchNormalization or LayerScale, over the last axis of an
            input of 2 to 4 dimensions.
        bits: Bits of the activations.
    """

    def __init__(self, layer: Any, bits: int = 8, **kwargs: Any) -> None:
        super().__init__(layer, **kwargs)
        self.bits, self.supports_masking = bits, layer.supports_masking

    def build(self, input_shape: Any = None) -> None:
        """Builds the layer."""
        if not self.layer.built:
            self.layer.build(input_shape)
        self.channels = int(input_shape[-1])
        self.built = True

    def call(self, x: Any, training: bool | None = None) -> Any:
        """The layer itself in training, its integer form otherwise."""
        layer = self.layer
        if training and isinstance(layer, keras.layers.BatchNormalization):
            return layer(x, training=True)
        x = tf.cast(x, self.compute_dtype)  # images may be integers
        one_offset = isinstance(layer, keras.layers.Rescaling) and np.ndim(layer.offset) == 0
        if one_offset and self.bits <= 8 and layer.offset and np.all(np.equal(layer.scale, 1.0)):
            return x + tf.cast(_constant(float(layer.offset)), x.dtype)
        return channel_convolution(x, *self._factor_and_offset(), self.bits)

    def _factor_and_offset(self) -> tuple[Any, Any]:
        """Returns two tensors of shape (channels,)."""
        layer, ones = self.layer, np.ones(self.channels, np.float32)
        if isinstance(layer, keras.layers.Rescaling):
            scale, offset = (
                ones * np.asarray(value, np.float32) for value in (layer.scale, layer.offset)
            )
            return tf.constant(scale), tf.constant(offset)
        if isinstance(layer, keras.layers.Normalization):
            mean = np.reshape(keras.ops.convert_to_numpy(layer.mean), -1) * ones
            factor = 1.0 / np.maximum(
                np.sqrt(np.reshape(keras.ops.convert_to_numpy(layer.variance), -1)) * ones,
                keras.backend.epsilon(),
            )
            return tf.constant(factor, tf.float32), tf.constant(-mean * factor, tf.float32)
        if not isinstance(layer, keras.layers.BatchNormalization):  # a LayerScale
            return layer.gamma.value, tf.zeros([self.channels])
        factor = tf.math.rsqrt(layer.moving_variance.value + layer.epsilon)
        if layer.scale:
            factor = factor * layer.gamma.value
        offset = -layer.moving_mean.value * factor
        return factor, offset + layer.beta.value if layer.center else offset

    def compute_output_shape(self, input_shape: Any) -> Any:
        """Returns the input's shape."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """Returns the layer's configuration, for saving."""
        return {**super().get_config(), "bits": self.bits}


def channel_convolution(x: Any, factor: Any, offset: Any, bits: int) -> Any:
    """x * factor + offset for each channel, as a 1x1 depthwise convolution.

    Args:
        x: A tensor of 2 to 4 dimensions.
        factor: A tensor of shape (channels,).
        offset: The same.
        bits: Bits of `x`.
    """
    channels = int(x.shape[-1])
    # A channel's only value is an end of its range, so rounding changes nothing; the
    # converter needs it to know the scale. With 16 bits the value is 1 step of 127: the
    # bias is counted in steps of input times kernel, and must not overflow 32 bits.
    largest = zeros_to_ones(tf.abs(factor)) * (127.0 if bits > 8 else 1.0)
    kernel = tf.quantization.fake_quant_with_min_max_vars_per_channel(
        tf.reshape(factor, [1, 1, channels]), -largest, largest, narrow_range=True
    )
    kernel = tf.cast(tf.reshape(kernel, [1, 1, channels, 1]), x.dtype)
    missing = range(4 - len(x.shape))  # axes that (batch, height, width, channels) has more
    for _ in missing:
        x = tf.expand_dims(x, 1)
    result = tf.nn.depthwise_conv2d(x, kernel, strides=[1, 1, 1, 1], padding="VALID")
    result = tf.nn.bias_add(result, tf.cast(offset, x.dtype))
    for _ in missing:
        result = tf.squeeze(result, 1)
    return result


@register_layer(macs=0)
@keras.saving.register_keras_serializable(PACKAGE)
class SixteenBitForm(keras.layers.Wrapper):
    """A layer computed by operators that have 16-bit kernels.

    A concatenation of two inputs becomes the sum of both, each padded with zeros; a repetition
    becomes a nearest-neighbor RESIZE.

    Args:
        layer: A Concatenate (called with two inputs), UpSampling or RepeatVector layer.
    """

    def build(self, input_shape: Any = None) -> None:
        """Marks the layer as built; it has no weights."""
        self.layer.built = self.built = True

    def call(self, x: Any) -> Any:
        """Returns the wrapped layer's output."""
        layer = self.layer
        if isinstance(layer, keras.layers.Concatenate):
            kind = keras.backend.result_type(*(part.dtype.name for part in x))
            return _padded_sum([tf.cast(part, kind) for part in x], layer.axis)
        if isinstance(layer, keras.layers.RepeatVector):
            return tf.squeeze(_repeat(x[:, tf.newaxis, tf.newaxis, :], layer.n, 1), 2)
        if isinstance(layer, keras.layers.UpSampling1D):
            return tf.squeeze(_repeat(x[:, :, tf.newaxis, :], layer.size, 1), 2)
        return _repeat(x, *layer.size)

    def compute_output_shape(self, input_shape: Any) -> Any:
        """Returns the wrapped layer's output shape."""
        return self.layer.compute_output_shape(input_shape)


@register_layer(macs=0)
@keras.saving.register_keras_serializable(PACKAGE)
class OneHotCategories(keras.layers.Wrapper):
    """One-hot rows of integers by a comparison and a choice of 1 or 0, which are exact.

    Args:
        layer: A CategoryEncoding with `output_mode="one_hot"`, called with integers.
    """

    def build(self, input_shape: Any = None) -> None:
        """Marks the layer as built; it has no weights."""
        self.layer.built = self.built = True

    def call(self, x: Any) -> Any:
        """Returns the wrapped layer's output."""
        kind = self.compute_dtype
        x = x if len(x.shape) > 1 and x.shape[-1] == 1 else x[..., tf.newaxis]
        found = tf.equal(x, tf.range(self.layer.num_tokens, dtype=x.dtype))
        return tf.where(found, tf.constant(1.0, kind), tf.constant(0.0, kind))

    def compute_output_shape(self, input_shape: Any) -> Any:
        """Returns the wrapped layer's output shape."""
        return self.layer.compute_output_shape(input_shape)


def finds_categories(call: Call) -> bool:
    """Whether a call is a one-hot CategoryEncoding of integers: see :class:`OneHotCategories`."""
    one_hot = call.kind == "CategoryEncoding" and call.operation.output_mode == "one_hot"
    return one_hot and "int" in call.inputs[0].dtype


@register_layer(macs=0)
@keras.saving.register_keras_serializable(PACKAGE)
class FloatConcatenate(keras.layers.Wrapper):
    """A concatenation that stays float in the file, because one of its inputs does.

    An integer concatenation has one scale for all inputs, which a float operator's output can't
    have. The converter leaves values alone that were cast to float16 and back.

    Args:
        layer: A Concatenate layer.
    """

    def build(self, input_shape: Any = None) -> None:
        """Marks the layer as built; it has no weights."""
        self.layer.built = self.built = True

    def call(self, x: Any, training: Any = None) -> Any:
        """Concatenates; at inference after a cast to float16 and back."""
        if not training:
            x = [_detour(part) if part.dtype.is_floating else part for part in x]
        return self.layer(x)

    def compute_output_shape(self, input_shape: Any) -> Any:
        """Returns the wrapped layer's output shape."""
        return self.layer.compute_output_shape(input_shape)


@register_layer(macs=0)
@keras.saving.register_keras_serializable(PACKAGE)
class FloatInput(keras.layers.Layer):
    """Numbers of an integer tensor, as floats for a layer that stays float in the file.

    The converter else gives the integers themselves to float products, which no kernel takes. It
    leaves values alone that were cast to float16 (or float64, finer than 16 bits) and back.

    Args:
        bits: Bits of the activations.
    """

    def __init__(self, bits: int = 8, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.bits, self.supports_masking = bits, True

    def call(self, x: Any, training: Any = None) -> Any:
        """Returns the same numbers; at inference after a cast and back."""
        if training:
            return x
        return _detour(x, tf.float16 if self.bits <= 8 else tf.float64)

    def compute_output_shape(self, input_shape: Any) -> Any:
        """Returns the input's shape."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {**super().get_config(), "bits": self.bits}


def _detour(x: tf.Tensor, dtype: tf.DType = tf.float16) -> tf.Tensor:
    """The same numbers after a cast to another precision and back."""
    return tf.cast(tf.cast(x, dtype), x.dtype)


def needs_16_bit_form(call: Call) -> bool:
    """Whether a call with 16-bit activations needs a :class:`SixteenBitForm`."""
    if call.kind in _REPEATS:
        nearest = getattr(call.operation, "interpolation", "nearest") == "nearest"
        return nearest and getattr(call.operation, "data_format", None) != "channels_first"
    return call.kind == "Concatenate" and len(call.inputs) == 2


def _constant(offset: float) -> Any:
    """A constant other than 0 for an integer sum: an end of its own range, so exact."""
    span = min(offset, 0.0), max(offset, 0.0)
    return tf.quantization.fake_quant_with_min_max_vars(tf.constant([offset]), *span)


def _padded_sum(tensors: Any, axis: int) -> Any:
    first, second = tensors
    axis %= len(first.shape)
    sizes = [_sizes(tensor)[axis] for tensor in tensors]
    after: list[Any] = [[0, 0] for _ in first.shape]
    before: list[Any] = [[0, 0] for _ in first.shape]
    after[axis], before[axis] = [0, sizes[1]], [sizes[0], 0]
    return tf.pad(first, after) + tf.pad(second, before)


def _repeat(image: Any, rows: int, columns: int) -> Any:
    _, height, width, _ = _sizes(image)
    return tf.image.resize(image, (height * rows, width * columns), method="nearest")


def _sizes(tensor: Any) -> list[Any]:
    """Sizes of a tensor's dimensions: numbers where they are known, else scalar tensors."""
    return [tf.shape(tensor)[i] if n is None else n for i, n in enumerate(tensor.shape)]
