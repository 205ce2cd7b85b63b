"""Layers that compute in floats what the `.tflite` file will compute in integers.

- :class:`FakeQuant` rounds an activation to its grid, and learns or observes the range.
- :class:`QuantizedKernel` wraps a layer and rounds its kernel: symmetric, per output channel
  (per tensor for Dense, which the converter wants). A convolution's kernel is rounded before
  a BatchNormalization is folded into it: a factor a channel changes the scale, not the
  rounding, so with one scale a channel this is exact.
- :class:`ChannelAffine` is a factor and an offset a channel (Rescaling, Normalization, a
  BatchNormalization that follows no convolution) as a 1x1 depthwise convolution, which an
  integer file computes exactly.

The gradient passes rounding as if it were not there, and stops where a value was clipped
(straight-through estimator, Bengio et al. 2013).

Layers hold whether they are active as plain attributes, not as variables, so that an
exported graph holds the rounding alone; whoever changes them has the model trace anew (see
:mod:`tfnas.quantization.callbacks`).
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfnas.quantization.rules import ONE_SCALE

PACKAGE = "tfnas"


@keras.saving.register_keras_serializable(PACKAGE)
class FakeQuant(keras.layers.Layer):
    """Rounds an activation to 2^bits steps between two ends.

    Args:
        bits: 2 to 16.
        ranges: How the ends are found: "moving_average" of each batch's least and largest
            value, "percentile" (the same of percentiles), or "learned" by their gradient,
            starting from the first batch (after LSQ, Esser et al. 2020).
        momentum: Of the moving average.
        percentile: In (50, 100); for "percentile".
        relu: None, or the highest value that a ReLU lets through (math.inf for none): it is
            computed here, before the rounding, where the converter fuses it.
        fixed: (low, high) that never change, as of a softmax.
        after_float: Whether what comes before stays float in the file. The converter makes
            an integer of every operator between two roundings; numbers that went through
            half precision it leaves alone. Half precision is finer than the rounding.
    """

    def __init__(
        self,
        bits: int = 8,
        ranges: str = "moving_average",
        momentum: float = 0.99,
        percentile: float = 99.99,
        relu: float | None = None,
        fixed: tuple[float, float] | None = None,
        after_float: bool = False,
        active: bool = True,
        frozen: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.bits, self.ranges, self.momentum, self.percentile = bits, ranges, momentum, percentile
        self.relu = relu
        self.fixed = None if fixed is None else tuple(fixed)
        self.after_float = after_float
        self.active, self.frozen = active, frozen
        self.observing = False  # looks at ranges also outside training

    def build(self, input_shape: Any) -> None:
        """Makes the ends of the range."""
        low, high = self.fixed or (0.0, 0.0)
        learned = self.ranges == "learned" and self.fixed is None
        common = {"shape": (), "dtype": "float32", "aggregation": "mean", "autocast": False}
        self.low = self.add_weight(
            name="low",
            initializer=keras.initializers.Constant(low),
            trainable=learned and self.relu is None,
            **common,
        )
        self.high = self.add_weight(
            name="high",
            initializer=keras.initializers.Constant(high),
            trainable=learned,
            **common,
        )
        self.built = True

    def call(self, x: Any, training: bool | None = None) -> Any:
        """Rounds, and in training looks at the range first."""
        x = _relu(x, self.relu)
        if (training or self.observing) and self.fixed is None and not self.frozen:
            self._observe(x)
        if not self.active:
            learned = self.ranges == "learned" and self.fixed is None
            # Without a gradient, if only 0, Keras warns of every range.
            return x + tf.cast(0.0 * (self.low + self.high), x.dtype) if learned else x
        value = tf.cast(x, tf.float32)
        if self.after_float and not training:
            value = tf.cast(tf.cast(value, tf.float16), tf.float32)
        if training and self.ranges == "learned" and self.fixed is None and not self.frozen:
            return tf.cast(self._learned(value), x.dtype)
        rounded = tf.quantization.fake_quant_with_min_max_vars(
            value, self.low.value, self.high.value, num_bits=self.bits
        )
        return tf.cast(rounded, x.dtype)

    def _learned(self, value: Any) -> Any:
        """The same rounding with a gradient for the ends, also inside the range (LSQ)."""
        steps = 2.0**self.bits - 1.0
        count = tf.cast(tf.size(value), tf.float32)
        # LSQ's gradient scale: a range must not move faster than a weight.
        ease = tf.math.rsqrt(count * steps / tf.cast(tf.shape(value)[0], tf.float32))
        low, high = (_eased(end, ease) for end in (self.low.value, self.high.value))
        scale = tf.maximum(high - low, 1e-6) / steps
        zero = tf.stop_gradient(tf.round(-low / scale))
        place = tf.clip_by_value(value / scale + zero, 0.0, steps)
        rounded = place + tf.stop_gradient(tf.round(place) - place)
        return (rounded - zero) * scale

    @property
    def observed(self) -> bool:
        """Whether the range is known."""
        low, high = (float(keras.ops.convert_to_numpy(v)) for v in (self.low, self.high))
        return self.fixed is not None or high > low

    def _observe(self, x: Any) -> None:
        value = tf.stop_gradient(tf.cast(x, tf.float32))
        first = tf.equal(self.low.value, self.high.value)
        kept = tf.where(first, 0.0, 1.0 if self.ranges == "learned" else self.momentum)
        low, high = self._ends(value)
        if self.observing:  # all examples count alike
            kept = tf.zeros_like(kept)
            low = tf.minimum(low, self.low.value)
            high = tf.maximum(high, self.high.value)
        self.high.assign(kept * self.high.value + (1.0 - kept) * high)
        if self.relu is None:
            self.low.assign(kept * self.low.value + (1.0 - kept) * low)

    def _ends(self, value: Any) -> tuple[Any, Any]:
        """The batch's ends; 0 is always inside, and the ends never meet."""
        if self.ranges == "percentile":
            line = tf.sort(tf.reshape(value, [-1]))
            last = tf.cast(tf.size(line) - 1, tf.float32)
            place = tf.cast(tf.round(last * (self.percentile / 100.0)), tf.int32)
            low, high = line[tf.size(line) - 1 - place], line[place]
        else:
            low = tf.constant(0.0) if self.relu is not None else tf.reduce_min(value)
            high = tf.reduce_max(value)
        low = tf.minimum(low, 0.0)
        return low, tf.maximum(tf.maximum(high, 0.0), low + 1e-6)

    def compute_output_shape(self, input_shape: Any) -> Any:
        """The input's."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """Returns what makes the layer again."""
        names = ("bits", "ranges", "momentum", "percentile", "relu", "fixed", "after_float")
        settings = {name: getattr(self, name) for name in (*names, "active", "frozen")}
        return {**super().get_config(), **settings}


@keras.saving.register_keras_serializable(PACKAGE)
class QuantizedKernel(keras.layers.Wrapper):
    """Calls a layer with its kernel rounded to 2^bits - 1 steps around 0.

    Args:
        layer: A Dense or convolution layer.
        bits: 2 to 8.
        active: Whether it rounds.
    """

    def __init__(self, layer: Any, bits: int = 8, active: bool = True, **kwargs: Any) -> None:
        super().__init__(layer, **kwargs)
        self.bits, self.active = bits, active

    def build(self, input_shape: Any = None) -> None:
        """Builds the layer."""
        if not self.layer.built:
            self.layer.build(input_shape)
        self.built = True

    def call(self, x: Any) -> Any:
        """Calls the layer with the rounded kernel."""
        if not self.active:
            return self.layer(x)
        if isinstance(self.layer, keras.layers.Conv1D | keras.layers.DepthwiseConv1D):
            return self._call_1d(x)
        transposed = isinstance(self.layer, keras.layers.Conv2DTranspose)
        if isinstance(self.layer, keras.layers.Dense) and len(x.shape) > 2:
            return self._call_flat(x)
        if max(getattr(self.layer, "dilation_rate", (1,))) > 1 and not transposed:
            return self._call_dilated(x)
        kernel = self.layer.kernel
        rounded = self.rounded(kernel.value)

        def values(variables: Any) -> list[Any]:
            return [rounded if v is kernel else v for v in variables]

        outputs, _ = self.layer.stateless_call(
            values(self.layer.trainable_variables), values(self.layer.non_trainable_variables), x
        )
        return outputs

    def _call_flat(self, x: Any) -> Any:
        """A dense layer of more than 2 dimensions: the converter fuses the bias of 2 only."""
        layer = self.layer
        kernel = tf.cast(self.rounded(layer.kernel.value), x.dtype)
        found = tf.matmul(tf.reshape(x, [-1, x.shape[-1]]), kernel)
        if layer.bias is not None:
            found = tf.nn.bias_add(found, tf.cast(layer.bias.value, x.dtype))
        sizes = [-1 if size is None else size for size in x.shape[1:-1]]
        lead = [-1] if -1 not in sizes else [tf.shape(x)[0]]
        return tf.reshape(found, [*lead, *sizes, kernel.shape[-1]])

    def _call_dilated(self, x: Any) -> Any:
        """A dilated convolution as one operation: Keras' own puts others behind it."""
        layer = self.layer
        kernel = tf.cast(self.rounded(layer.kernel.value), x.dtype)
        options = {"padding": layer.padding.upper(), "dilations": list(layer.dilation_rate)}
        if isinstance(layer, keras.layers.DepthwiseConv2D):
            found = tf.nn.depthwise_conv2d(x, kernel, [1, *layer.strides, 1], **options)
        else:
            found = tf.nn.conv2d(x, kernel, layer.strides, **options)
        if layer.bias is None:
            return found
        return tf.nn.bias_add(found, tf.cast(layer.bias.value, x.dtype))

    def _call_1d(self, x: Any) -> Any:
        """A 1-D convolution as a 2-D one of height 1, which is what the file holds.

        Rounded in one dimension, the converter would lose the kernel's axis of channels.
        """
        layer = self.layer
        size, stride, dilation = (
            int(value[0]) for value in (layer.kernel_size, layer.strides, layer.dilation_rate)
        )
        if layer.padding == "causal":
            x = tf.pad(x, [[0, 0], [dilation * (size - 1), 0], [0, 0]])
        padding = "SAME" if layer.padding == "same" else "VALID"
        kernel = tf.cast(self.rounded(tf.expand_dims(layer.kernel.value, 0)), x.dtype)
        image, strides = tf.expand_dims(x, 1), [1, stride, stride, 1]
        if isinstance(layer, keras.layers.DepthwiseConv1D):
            found = tf.nn.depthwise_conv2d(
                image, kernel, strides, padding, dilations=[dilation, dilation]
            )
        else:
            found = tf.nn.conv2d(image, kernel, strides, padding, dilations=[1, dilation])
        found = tf.squeeze(found, 1)
        return found if layer.bias is None else found + tf.cast(layer.bias.value, x.dtype)

    def rounded(self, kernel: Any) -> Any:
        """Returns the kernel on its grid."""
        kernel = tf.convert_to_tensor(kernel)
        value = tf.cast(kernel, tf.float32)
        options = {"num_bits": self.bits, "narrow_range": True}
        if type(self.layer).__name__ in ONE_SCALE:
            most = _some(tf.reduce_max(tf.abs(tf.stop_gradient(value))))
            found = tf.quantization.fake_quant_with_min_max_vars(value, -most, most, **options)
            return tf.cast(found, kernel.dtype)
        # A depthwise kernel's channels are its last two axes.
        depthwise = isinstance(
            self.layer, keras.layers.DepthwiseConv1D | keras.layers.DepthwiseConv2D
        )
        flat = tf.reshape(value, [*value.shape[:-2], -1]) if depthwise else value
        most = _some(tf.reduce_max(tf.abs(tf.stop_gradient(flat)), range(len(flat.shape) - 1)))
        found = tf.quantization.fake_quant_with_min_max_vars_per_channel(
            flat, -most, most, **options
        )
        return tf.cast(tf.reshape(found, value.shape), kernel.dtype)

    def compute_output_shape(self, input_shape: Any) -> Any:
        """The layer's."""
        return self.layer.compute_output_shape(input_shape)

    def get_config(self) -> dict[str, Any]:
        """Returns what makes the layer again."""
        return {**super().get_config(), "bits": self.bits, "active": self.active}


@keras.saving.register_keras_serializable(PACKAGE)
class ChannelAffine(keras.layers.Wrapper):
    """x * factor + offset a channel, as a 1x1 depthwise convolution where nothing trains.

    Args:
        layer: Rescaling, Normalization or BatchNormalization, over the last axis of an input
            of 2 to 4 dimensions.
    """

    def build(self, input_shape: Any = None) -> None:
        """Builds the layer."""
        if not self.layer.built:
            self.layer.build(input_shape)
        self.channels = int(input_shape[-1])
        self.built = True

    def call(self, x: Any, training: bool | None = None) -> Any:
        """The layer itself in training, its convolution otherwise."""
        if training and isinstance(self.layer, keras.layers.BatchNormalization):
            return self.layer(x, training=True)
        x = tf.cast(x, self.compute_dtype)  # of images in whole numbers too
        factor, offset = self._terms()
        kernel = tf.reshape(factor, [1, 1, self.channels, 1])
        # One value a channel: it is the grid's end, so rounding changes nothing, but tells
        # the converter the scale.
        most = _some(tf.abs(factor))
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


def _relu(x: Any, highest: float | None) -> Any:
    """The ReLU up to a value, in the forms that the converter knows."""
    if highest is None:
        return x
    if highest == 6.0:
        return tf.nn.relu6(x)
    rising = tf.nn.relu(x)
    return rising if highest == float("inf") else tf.minimum(rising, tf.cast(highest, x.dtype))


def _eased(value: Any, ease: Any) -> Any:
    """A value as it is, with its gradient made smaller."""
    return tf.stop_gradient(value * (1.0 - ease)) + value * ease


def _some(most: Any) -> Any:
    """A channel of zeros has no scale of its own: any will do."""
    return tf.where(most > 0.0, most, tf.ones_like(most))
