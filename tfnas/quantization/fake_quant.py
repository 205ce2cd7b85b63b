"""The rounding of activations, as the `.tflite` file will compute them.

:class:`FakeQuant` rounds an activation to its grid, and learns or observes the range.

The gradient passes rounding as if it were not there, and stops where a value was clipped
(straight-through estimator, Bengio et al. 2013).

Layers hold whether they are active as plain attributes, not as variables, so that an
exported graph holds the rounding alone; whoever changes them has the model trace anew (see
:mod:`tfnas.quantization.quantization_schedule`).
"""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from tfnas.quantization.quantized_kernel import PACKAGE

# With 16 bits no grid of an activation or a kernel is narrower: a ReLU6's highest value and a
# bias are counted in its steps, in 32 bits.
LEAST = 2.0**-13


@keras.saving.register_keras_serializable(PACKAGE)
class FakeQuant(keras.layers.Layer):
    """Rounds an activation to 2^bits steps between two ends.

    With more than 8 bits the steps lie evenly around 0, 2^bits - 1 of them: TFLite's 16-bit
    kernels know no other zero point. Both ends are still watched; the farther one counts.

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
            another precision it leaves alone. Half precision is finer than 8 bits, and
            double than 16.
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
            other = tf.float64 if self.symmetric else tf.float16
            value = tf.cast(tf.cast(value, other), tf.float32)
        if training and self.ranges == "learned" and self.fixed is None and not self.frozen:
            return tf.cast(self._learned(value), x.dtype)
        low, high = self.span()
        rounded = tf.quantization.fake_quant_with_min_max_vars(
            value, low, high, num_bits=self.bits, narrow_range=self.symmetric
        )
        return tf.cast(rounded, x.dtype)

    @property
    def symmetric(self) -> bool:
        """Whether 0 lies in the middle of the steps."""
        return self.bits > 8

    def span(self) -> tuple[Any, Any]:
        """Returns the ends of the steps, as tensors."""
        low, high = self.low.value, self.high.value
        if not self.symmetric:
            return low, high
        most = tf.maximum(tf.maximum(-low, high), LEAST)
        return -most, most

    def _learned(self, value: Any) -> Any:
        """The same rounding with a gradient for the ends, also inside the range (LSQ)."""
        steps = 2.0**self.bits - (2.0 if self.symmetric else 1.0)
        count = tf.cast(tf.size(value), tf.float32)
        # LSQ's gradient scale: a range must not move faster than a weight.
        ease = tf.math.rsqrt(count * steps / tf.cast(tf.shape(value)[0], tf.float32))
        low, high = (_eased(end, ease) for end in self.span())
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
