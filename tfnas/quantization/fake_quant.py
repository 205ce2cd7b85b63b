"""Fake quantization of activations, as the `.tflite` file will compute them.

:class:`FakeQuant` rounds an activation to its grid, and learns or observes the range.

The gradient passes the rounding unchanged and is zero where a value was clipped
(straight-through estimator, Bengio et al. 2013).

Whether a layer is active is a plain attribute, not a variable, so that the exported graph holds
the rounding and nothing else. After a change of it the model's functions must be traced again
(see :mod:`tfnas.quantization.quantization_schedule`).
"""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from tfnas.graph.registered_layers import register_layer
from tfnas.quantization.activation_histogram import (
    count_numbers,
    least_error_range,
    percentile_range,
)
from tfnas.quantization.quantized_kernel import PACKAGE

# The smallest range of a 16-bit activation, or of a kernel beside one. The file counts biases and
# a ReLU6's maximum in steps of these ranges, with 32 bits: finer steps would overflow.
MIN_RANGE_16 = 2.0**-13
# A range no wider than this was never left by 0: a ReLU that is dead on all data. Its values stay 0
# in any range, while steps as fine as its own would overflow the integers around it.
_NO_RANGE, _RANGE_OF_ZEROS = 2e-6, 1.0
_LARGEST = 3e38  # just below the largest float32 number
_BY_HISTOGRAM = ("percentile", "mse")
_HELD = ("learned", "mse")  # no moving average in training


@register_layer(macs=0)
@keras.saving.register_keras_serializable(PACKAGE)
class FakeQuant(keras.layers.Layer):
    """Fake quantization of an activation: rounds it to 2^bits steps between `low` and `high`.

    With more than 8 bits the grid is symmetric around 0 with 2^bits - 1 steps, because TFLite's
    16-bit kernels require the zero point 0. Both ends are observed; the larger magnitude counts.

    Args:
        bits: 2 to 16.
        ranges: How `low` and `high` are found: "moving_average" of each batch's minimum and
            maximum, "percentile" (a moving average of percentiles), "mse" (the range of least
            squared error in calibration, held in training), or "learned" by gradient descent
            (after LSQ, Esser et al. 2020). Without calibration the last two start from the first
            batch.
        momentum: Momentum of the moving average, in [0, 1).
        percentile: In (50, 100); for "percentile".
        relu: Maximum value of a ReLU that is computed here before the rounding, because the
            converter fuses it (math.inf for a plain ReLU). None: no ReLU.
        fixed: A constant (low, high), as for a softmax.
        after_float: Whether the layer before stays float in the file. The converter turns every
            operator between two fake quantizations into an integer one, except where a value
            was cast to another precision in between. So the value is cast to float16 (finer
            than 8 bits) or float64 (finer than 16) and back.
        active: Whether it rounds. Inactive, it only observes the range.
        frozen: Whether the range no longer changes in training.
        **kwargs: `trained_layers`, what the model was made for, which its first range keeps (see
            :mod:`tfnas.quantization.trained_layers`), `output_name`, the name that the float model
            has for what is rounded here, and arguments of a Keras layer.
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
        self.trained_layers: str | None = kwargs.pop("trained_layers", None)
        self.output_name: str | None = kwargs.pop("output_name", None)
        # Numbers keep their type: rounding is computed in float32 whatever the layers around have.
        super().__init__(autocast=False, **kwargs)
        self.bits, self.ranges, self.momentum, self.percentile = bits, ranges, momentum, percentile
        self.relu = relu
        self.fixed = None if fixed is None else tuple(fixed)
        self.after_float = after_float
        self.active, self.frozen = active, frozen
        self.supports_masking = True  # a rounded step of a sequence is as valid as before
        self.observing = False  # calibration: observe ranges outside training too
        self._counts: Any = None  # of all numbers of a calibration
        self._before: tuple[Any, Any] | None = None

    def build(self, input_shape: Any) -> None:
        """Creates the weights `low` and `high`."""
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

    def call(self, x: Any, training: bool | None = None, ahead: bool = False) -> Any:
        """Rounds the input; in training it observes the range first.

        Args:
            x: Numbers.
            training: Whether the range is observed.
            ahead: Whether the numbers are rounded once more, and observed, in a call behind this
                one. Until the range is known they stay as they are.
        """
        if ahead and (training or self.observing):
            return x
        x = _relu(x, self.relu)
        if (training or self.observing) and self.fixed is None and not self.frozen:
            self._observe(x)
        if not self.active:
            learned = self.ranges == "learned" and self.fixed is None
            # A gradient of 0, since Keras warns of trainable weights without any gradient.
            return x + tf.cast(0.0 * (self.low + self.high), x.dtype) if learned else x
        value = tf.cast(x, tf.float32)
        if self.after_float and not training:
            detour = tf.float64 if self.symmetric else tf.float16
            value = tf.cast(tf.cast(value, detour), tf.float32)
        return tf.cast(self.rounded(value, training), x.dtype)

    def rounded(self, value: Any, training: bool | None = None) -> Any:
        """Returns float32 numbers rounded to the range as it is, which is not observed."""
        if training and self.ranges == "learned" and self.fixed is None and not self.frozen:
            return self._round_learned(value)
        low, high = self.grid_range()
        return tf.quantization.fake_quant_with_min_max_vars(
            value, low, high, num_bits=self.bits, narrow_range=self.symmetric
        )

    @property
    def symmetric(self) -> bool:
        """Whether the grid is symmetric around 0."""
        return self.bits > 8

    def grid_range(self) -> tuple[Any, Any]:
        """Returns the lowest and highest value of the grid, as tensors."""
        low, high = self.low.value, self.high.value
        if not self.symmetric:
            return low, tf.where(high - low <= _NO_RANGE, low + _RANGE_OF_ZEROS, high)
        largest = tf.maximum(tf.maximum(-low, high), MIN_RANGE_16)
        return -largest, largest

    def _round_learned(self, value: Any) -> Any:
        """The same rounding, with a gradient for the range from values inside it too (LSQ)."""
        steps = 2.0**self.bits - (2.0 if self.symmetric else 1.0)
        count = tf.cast(tf.size(value), tf.float32)
        # LSQ's gradient scale: a range must not move faster than a weight.
        factor = tf.math.rsqrt(count * steps / tf.cast(tf.shape(value)[0], tf.float32))
        low, high = (_scale_gradient(end, factor) for end in self.grid_range())
        scale = tf.maximum(high - low, 1e-6) / steps
        zero = tf.stop_gradient(tf.round(-low / scale))
        position = tf.clip_by_value(value / scale + zero, 0.0, steps)
        rounded = position + tf.stop_gradient(tf.round(position) - position)
        return (rounded - zero) * scale

    @property
    def observed(self) -> bool:
        """Whether a range was observed, or is fixed."""
        low, high = self.ends()
        return self.fixed is not None or high > low

    @property
    def is_finite(self) -> bool:
        """Whether the range can be divided into steps: what was observed was finite."""
        low, high = self.ends()
        return max(-low, high) < _LARGEST  # histograms count infinity as the largest number

    def ends(self) -> tuple[float, float]:
        """Returns both ends of the range, also of variables that `tf.distribute` mirrors."""
        low, high = (float(keras.ops.convert_to_numpy(v)) for v in (self.low, self.high))
        return low, high

    def begin_calibration(self) -> None:
        """Makes the layer observe its inputs outside of training too."""
        self.observing = True
        if self.built and self.ranges in _BY_HISTOGRAM:
            self._before = tf.identity(self.low.value), tf.identity(self.high.value)

    def end_calibration(self) -> None:
        """Undoes :meth:`begin_calibration`; the range stays."""
        self.observing, self._counts, self._before = False, None, None

    def _observe(self, x: Any) -> None:
        value = tf.stop_gradient(tf.cast(x, tf.float32))
        calibrates = self._before is not None
        if self.ranges not in _BY_HISTOGRAM or (self.ranges == "mse" and not calibrates):
            self.take_range(*_with_zero(*self._extremes(value)))
            return
        counts = count_numbers(value)
        if self._before is not None:  # the range of all numbers so far
            self._counts = counts = counts if self._counts is None else self._counts + counts
            self.low.assign(self._before[0])
            self.high.assign(self._before[1])
        if self.ranges == "percentile":
            ends = percentile_range(counts, self.percentile)
        else:
            ends = least_error_range(counts, self.bits, self.symmetric)
        self.take_range(*_with_zero(*ends))

    def take_range(self, low: Any, high: Any) -> None:
        """Moves the range towards that of a batch; in calibration it takes in both.

        Args:
            low: The lowest number, at most 0.
            high: The highest number, above `low`.
        """
        first = tf.equal(self.low.value, self.high.value)
        momentum = tf.where(first, 0.0, 1.0 if self.ranges in _HELD else self.momentum)
        if self.observing:  # calibration: the range of all examples, no moving average
            momentum = tf.zeros_like(momentum)
            low = tf.minimum(low, self.low.value)
            high = tf.maximum(high, self.high.value)
        self.high.assign(momentum * self.high.value + (1.0 - momentum) * high)
        if self.relu is None:
            self.low.assign(momentum * self.low.value + (1.0 - momentum) * low)

    def _extremes(self, value: Any) -> tuple[Any, Any]:
        low = tf.constant(0.0) if self.relu is not None else tf.reduce_min(value)
        return _over_replicas(low, tf.reduce_max(value))

    def compute_output_spec(self, x: Any, training: Any = None, ahead: bool = False) -> Any:
        """Returns the input's shape and type."""
        return keras.KerasTensor(x.shape, x.dtype)

    def get_config(self) -> dict[str, Any]:
        """Returns the layer's configuration, for saving."""
        names = ("bits", "ranges", "momentum", "percentile", "relu", "fixed", "after_float")
        settings = {name: getattr(self, name) for name in (*names, "active", "frozen")}
        for name in ("trained_layers", "output_name"):
            if getattr(self, name) is not None:
                settings[name] = getattr(self, name)
        return {**super().get_config(), **settings}


def _relu(x: Any, max_value: float | None) -> Any:
    """A ReLU with a maximum, in the forms that the converter recognizes."""
    if max_value is None:
        return x
    if max_value == 6.0:
        return tf.nn.relu6(x)
    relu = tf.nn.relu(x)
    return relu if max_value == float("inf") else tf.minimum(relu, tf.cast(max_value, x.dtype))


def extremes_instead_of_histograms(ranges: str) -> str:
    """Returns how ranges are found where a batch has few numbers, which are extremes already."""
    return "moving_average" if ranges in _BY_HISTOGRAM else ranges


def _with_zero(low: Any, high: Any) -> tuple[Any, Any]:
    """A range that includes 0 and is never empty."""
    low = tf.minimum(low, 0.0)
    return low, tf.maximum(tf.maximum(high, 0.0), low + 1e-6)


def _over_replicas(low: Any, high: Any) -> tuple[Any, Any]:
    """The range of a batch that `tf.distribute` has split over several devices.

    The mean of the parts' ranges would be narrower, the more so the smaller the parts are.
    """
    replica = tf.distribute.get_replica_context()
    if replica is None or replica.num_replicas_in_sync == 1:
        return low, high
    largest = tf.reduce_max(replica.all_gather(tf.stack([-low, high])[None], axis=0), axis=0)
    return -largest[0], largest[1]


def _scale_gradient(value: Any, factor: Any) -> Any:
    """Returns the value unchanged, with its gradient multiplied by the factor."""
    return tf.stop_gradient(value * (1.0 - factor)) + value * factor
