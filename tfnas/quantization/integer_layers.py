"""Layers in the form that an integer file computes them in.

- :class:`ChannelAffine` is a factor and an offset a channel (Rescaling, Normalization, a
  BatchNormalization that follows no convolution) as a 1x1 depthwise convolution, which an
  integer file computes exactly; an offset alone as a sum with a constant.
- :class:`SixteenBitForm` and :func:`hard_silu` stand in where there is no 16-bit operator: the
  converter of TensorFlow 2.21 knows no 16-bit CONCATENATION and TILE, TFLite no 16-bit
  HARD_SWISH.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfnas.graph.functional import Call
from tfnas.quantization.quantized_kernel import PACKAGE, some

HARD_SILU = {"hard_silu", "hard_swish", "HardSilu"}
_REPEATS = ("UpSampling1D", "UpSampling2D", "RepeatVector")


@keras.saving.register_keras_serializable(PACKAGE)
class ChannelAffine(keras.layers.Wrapper):
    """x * factor + offset a channel, as an integer file computes it where nothing trains.

    Args:
        layer: Rescaling, Normalization or BatchNormalization, over the last axis of an input
            of 2 to 4 dimensions.
        bits: Of the activations.
    """

    def __init__(self, layer: Any, bits: int = 8, **kwargs: Any) -> None:
        super().__init__(layer, **kwargs)
        self.bits = bits

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
        x = tf.cast(x, self.compute_dtype)  # of images in whole numbers too
        plain = isinstance(layer, keras.layers.Rescaling) and np.ndim(layer.offset) == 0
        if plain and self.bits <= 8 and layer.offset and np.all(np.equal(layer.scale, 1.0)):
            return x + tf.cast(_constant(float(layer.offset)), x.dtype)
        return self._convolved(x)

    def _convolved(self, x: Any) -> Any:
        factor, offset = self._terms()
        kernel = tf.reshape(factor, [1, 1, self.channels, 1])
        # One value a channel: it is the grid's end, so rounding changes nothing, but tells
        # the converter the scale. With 16 bits it is 1 step of 127: the bias is counted in
        # steps of input times kernel, and may be far larger than what it is added to.
        most = some(tf.abs(factor)) * (127.0 if self.bits > 8 else 1.0)
        kernel = tf.quantization.fake_quant_with_min_max_vars_per_channel(
            tf.reshape(kernel, [1, 1, self.channels]), -most, most, narrow_range=True
        )
        kernel = tf.cast(tf.reshape(kernel, [1, 1, self.channels, 1]), x.dtype)
        sides = range(1, 1 + 4 - len(x.shape))  # the axes that an image has more
        for _ in sides:
            x = tf.expand_dims(x, 1)
        found = tf.nn.depthwise_conv2d(x, kernel, strides=[1, 1, 1, 1], padding="VALID")
        found = tf.nn.bias_add(found, tf.cast(offset, x.dtype))
        for _ in sides:
            found = tf.squeeze(found, 1)
        return found

    def _terms(self) -> tuple[Any, Any]:
        layer, ones = self.layer, np.ones(self.channels, np.float32)
        if isinstance(layer, keras.layers.Rescaling):
            terms = (ones * np.asarray(value, np.float32) for value in (layer.scale, layer.offset))
            scale, offset = terms
            return tf.constant(scale), tf.constant(offset)
        if isinstance(layer, keras.layers.Normalization):
            mean = np.reshape(keras.ops.convert_to_numpy(layer.mean), -1) * ones
            factor = 1.0 / np.maximum(
                np.sqrt(np.reshape(keras.ops.convert_to_numpy(layer.variance), -1)) * ones,
                keras.backend.epsilon(),
            )
            return tf.constant(factor, tf.float32), tf.constant(-mean * factor, tf.float32)
        factor = tf.math.rsqrt(layer.moving_variance.value + layer.epsilon)
        if layer.scale:
            factor = factor * layer.gamma.value
        offset = -layer.moving_mean.value * factor
        return factor, offset + layer.beta.value if layer.center else offset

    def compute_output_shape(self, input_shape: Any) -> Any:
        """The input's."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """Returns what makes the layer again."""
        return {**super().get_config(), "bits": self.bits}


@keras.saving.register_keras_serializable(PACKAGE)
class SixteenBitForm(keras.layers.Wrapper):
    """What a layer computes, by operators that there are in 16 bits.

    A concatenation of two is the sum of both, each padded with zeros; a repetition is a
    nearest-neighbor RESIZE.

    Args:
        layer: A Concatenate (called with two inputs), UpSampling or RepeatVector layer.
    """

    def build(self, input_shape: Any = None) -> None:
        """These layers have no weights."""
        self.layer.built = self.built = True

    def call(self, x: Any) -> Any:
        """The layer's numbers."""
        layer = self.layer
        if isinstance(layer, keras.layers.Concatenate):
            return _padded_sum(x, layer.axis)
        if isinstance(layer, keras.layers.RepeatVector):
            return tf.squeeze(_repeated(x[:, tf.newaxis, tf.newaxis, :], layer.n, 1), 2)
        if isinstance(layer, keras.layers.UpSampling1D):
            return tf.squeeze(_repeated(x[:, :, tf.newaxis, :], layer.size, 1), 2)
        return _repeated(x, *layer.size)

    def compute_output_shape(self, input_shape: Any) -> Any:
        """The layer's."""
        return self.layer.compute_output_shape(input_shape)


@keras.saving.register_keras_serializable(PACKAGE)
class FloatConcatenate(keras.layers.Wrapper):
    """A concatenation that stays float in the file, as it joins numbers of a float layer.

    An integer one has one scale for all; what the converter leaves float can't have it. Numbers
    that went through half precision it does not make integers of.

    Args:
        layer: A Concatenate layer.
    """

    def build(self, input_shape: Any = None) -> None:
        """The layer has no weights."""
        self.layer.built = self.built = True

    def call(self, x: Any, training: Any = None) -> Any:
        """The layer's numbers."""
        if not training:
            x = [tf.cast(tf.cast(part, tf.float16), part.dtype) for part in x]
        return self.layer(x)

    def compute_output_shape(self, input_shape: Any) -> Any:
        """The layer's."""
        return self.layer.compute_output_shape(input_shape)


def needs_form(call: Call) -> bool:
    """Whether a call in 16 bits needs a :class:`SixteenBitForm`."""
    if call.kind in _REPEATS:
        plain = getattr(call.operation, "interpolation", "nearest") == "nearest"
        return plain and getattr(call.operation, "data_format", None) != "channels_first"
    return call.kind == "Concatenate" and len(call.inputs) == 2


def hard_silu(x: Any, name: Callable[[str], str]) -> Any:
    """Returns x * relu6(x + 3) / 6, in layers that each have a 16-bit kernel.

    Args:
        x: A Keras tensor.
        name: Makes a name that is free, from one that is wished.
    """
    gate = keras.layers.Rescaling(1.0, 3.0, name=name("hard_silu_shift"))(x)
    gate = keras.layers.ReLU(6.0, name=name("hard_silu_gate"))(gate)
    product = keras.layers.Multiply(name=name("hard_silu_product"))([x, gate])
    return keras.layers.Rescaling(1 / 6, name=name("hard_silu"))(product)


def _constant(offset: float) -> Any:
    """A number other than 0 as an end of its own grid, for an integer sum."""
    ends = min(offset, 0.0), max(offset, 0.0)
    return tf.quantization.fake_quant_with_min_max_vars(tf.constant([offset]), *ends)


def _padded_sum(tensors: Any, axis: int) -> Any:
    first, second = tensors
    axis %= len(first.shape)
    sizes = [_sizes(tensor)[axis] for tensor in tensors]
    behind: list[Any] = [[0, 0] for _ in first.shape]
    before: list[Any] = [[0, 0] for _ in first.shape]
    behind[axis], before[axis] = [0, sizes[1]], [sizes[0], 0]
    return tf.pad(first, behind) + tf.pad(second, before)


def _repeated(image: Any, rows: int, columns: int) -> Any:
    _, height, width, _ = _sizes(image)
    return tf.image.resize(image, (height * rows, width * columns), method="nearest")


def _sizes(tensor: Any) -> list[Any]:
    """Sizes of a tensor, as numbers where they are known."""
    return [tf.shape(tensor)[i] if n is None else n for i, n in enumerate(tensor.shape)]
