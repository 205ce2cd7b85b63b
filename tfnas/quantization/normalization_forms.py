"""Normalizations of each example as integers.

LayerNormalization, RMSNormalization, GroupNormalization and UnitNormalization divide the numbers of
a row (the last axis of an example, or a group of its channels) by a norm of the row itself:

    centered = x - mean(x)                         FULLY_CONNECTED
    power    = sum(centered^2) + n * epsilon       BATCH_MATMUL of the row with itself, a bias
    unit     = centered * power^(-1/2)             RSQRT in two ranges, MINIMUM, MUL
    y        = unit * sqrt(n) * gamma + beta       DEPTHWISE_CONV_2D

All of it is computed with 16 bits, also between 8-bit activations, with a range for each step. The
product of a row with itself adds up exact squares in 64 bits and is rounded once, where squares of
their own would round small numbers to 0. Every operator has a 16-bit kernel in LiteRT and in TFLite
Micro. What 8 bits would lose is in decision 62, why a mean is a matrix product in decision 91.

References:
    Ba et al., "Layer Normalization", arXiv 1607.06450, 2016.
    Kim et al., "I-BERT: Integer-only BERT Quantization", ICML 2021.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfnas.graph.registered_layers import register_layer
from tfnas.quantization.inner_ranges import BITS, InnerRange, with_other_bits
from tfnas.quantization.integer_layers import channel_convolution
from tfnas.quantization.normalization_rules import normalized_axes
from tfnas.quantization.quantized_kernel import PACKAGE

_STEPS = ("rows", "mean", "centered", "squares", "power", "factor", "unit", "scaled")
# A factor this much smaller than its offset changes no step of the output, but would make the
# offset's bias, which is counted in steps of factor times input, overflow 32 bits.
_SMALLEST_FACTOR = 2.0**-12
_LEAST_POWER = 1e-12
# TFLite's 16-bit RSQRT is a table of 513 values with straight lines between them: from 1/64 of its
# range on it is within 0.6%, and below too large. So there are two ranges, the second a 64th of the
# first. Where it ends the power is cut off, and its root too large again: the lesser one of both
# is right, for rows whose norms differ by up to 64; the quietest of others lose precision.
_LEVELS, _SHARE = 2, 1.0 / 64.0
# A row minus its mean is one product with a matrix of n - 1 and -1 in steps of 1/n: 8 bits hold it
# up to this n. Wider rows have a product for the mean, and a difference.
WIDEST = 128


@register_layer(macs=0)
@keras.saving.register_keras_serializable(PACKAGE)
class NormalizationForm(keras.layers.Wrapper):
    """A normalization as its integer file computes it; see the module.

    Args:
        layer: A normalization without a reason against it, see
            :mod:`tfnas.quantization.normalization_rules`.
        bits: Bits of the activations.
        momentum: Momentum of the ranges' moving averages, in [0, 1).
        input_bits: Bits of the input; None: those of the activations.
    """

    def __init__(
        self,
        layer: Any,
        bits: int = 8,
        momentum: float = 0.99,
        input_bits: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(layer, **kwargs)
        self.bits, self.momentum, self.supports_masking = bits, momentum, True
        self.input_bits = input_bits or bits
        self._has_ranges = False

    def _steps(self, width: int) -> list[str]:
        """The steps that get a range here: the file's tensors around them have theirs."""
        kind = type(self.layer).__name__
        without = set() if self._is_centered else {"mean", "centered"}
        if width <= WIDEST:
            without.add("mean")
        if kind == "UnitNormalization":
            without |= {"power", "scaled"}
        if self.input_bits > 8:
            without.add("rows")
        if self.bits > 8:
            without.add("unit" if kind == "UnitNormalization" else "scaled")
        return [step for step in _STEPS if step not in without]

    @property
    def _is_centered(self) -> bool:
        return isinstance(
            self.layer, keras.layers.LayerNormalization | keras.layers.GroupNormalization
        )

    def build(self, input_shape: Any = None) -> None:
        """Builds the layer and the ranges."""
        if not self.layer.built:
            self.layer.build(input_shape)
        if not self._has_ranges:
            for step in self._steps(self._width(tuple(input_shape))):
                own = InnerRange(momentum=self.momentum, name=step)
                own.build(None)
                setattr(self, f"{step}_range", own)
            self._has_ranges = True
        self.built = True

    def call(self, x: Any, training: bool | None = None) -> Any:
        """Normalizes each example, with every step rounded."""

        def rounded(step: str, value: Any) -> Any:
            own = getattr(self, f"{step}_range", None)
            return value if own is None else own(value, training=training)

        shape, dtype = tuple(x.shape), x.dtype
        rows = self._rows(tf.cast(x, tf.float32))
        if self.input_bits <= 8:
            rows = rounded("rows", with_other_bits(rows, training))
        if self._is_centered:
            rows = rounded("centered", _centered(rows, rounded))
        unit = rounded("unit", rows * self._factor(rows, training))
        batch = tf.shape(x)[0] if None in shape[1:] else -1
        found = self._scaled(unit, batch, shape, rounded)
        return tf.cast(with_other_bits(found, training) if self.bits <= 8 else found, dtype)

    def _factor(self, rows: Any, training: Any) -> Any:
        """The inverse norm of each row: the lesser one of two ranges."""
        columns = tf.reshape(rows, [-1, *rows.shape[1:2], rows.shape[-1], 1])
        least = int(rows.shape[-1]) * float(getattr(self.layer, "epsilon", 0.0))
        own = self.factor_range
        is_file = not (training or own.observing) and own.active
        found = []
        for level in range(_LEVELS):
            share, last = _SHARE**level, self.squares_range
            if level:  # another operator: the converter would take two equal ones for one
                power = last.part(tf.matmul(rows, columns), share)
            else:
                power = last(tf.matmul(rows, rows, transpose_b=True), training=training)
            if least:
                one, last = tf.ones([1], tf.float32), self.power_range
                power = channel_convolution(power, one, one * least, BITS)
                power = last.part(power, share) if level else last(power, training=training)
            if not is_file:  # 1 / 0 would spoil a gradient or a range; a file multiplies it by 0
                smallest = last.grid_range()[1] * share * 2.0**-15
                power = tf.maximum(power, smallest if own.active else _LEAST_POWER)
            found.append(tf.math.rsqrt(power))
        if not is_file:
            return own(functools.reduce(tf.minimum, found), training=training)
        rounded = [own.part(factor, 1.0) for factor in found]
        return functools.reduce(lambda a, b: own.part(tf.minimum(a, b), 1.0), rounded)

    def _rows(self, x: Any) -> Any:
        """(batch, rows, 1, numbers of a row); both in one where the number of rows is open."""
        shape = tuple(x.shape)
        groups, count = self._groups(shape), self._width(shape)
        if groups is None:
            rows = shape[1 : len(shape) - len(normalized_axes(self.layer, len(shape)))]
            return tf.reshape(x, [-1, 1 if None in rows else math.prod(rows), 1, count])
        places, width = math.prod(shape[1:-1]), shape[-1] // groups
        if groups > 1 and places > 1:
            x = tf.transpose(tf.reshape(x, [-1, places, groups, width]), [0, 2, 1, 3])
        return tf.reshape(x, [-1, groups, 1, count])

    def _width(self, shape: tuple[Any, ...]) -> int:
        """The numbers of a row."""
        groups = self._groups(shape)
        if groups is not None:
            return int(math.prod(shape[1:]) // groups)
        return int(math.prod(shape[len(shape) - len(normalized_axes(self.layer, len(shape))) :]))

    def _groups(self, shape: tuple[Any, ...]) -> int | None:
        """The number of groups of channels; None where rows are of the last axes."""
        if not isinstance(self.layer, keras.layers.GroupNormalization):
            return None
        return int(shape[-1] if self.layer.groups == -1 else self.layer.groups)

    def _scaled(self, unit: Any, batch: Any, shape: tuple[Any, ...], rounded: Any) -> Any:
        """gamma and beta, in the shape of the layer's output."""
        count = int(unit.shape[-1])
        groups = self._groups(shape)
        if groups is not None:
            places, width = math.prod(shape[1:-1]), shape[-1] // groups
            if groups > 1 and places > 1:
                unit = tf.reshape(unit, [-1, groups, places, width])
                unit = tf.transpose(unit, [0, 2, 1, 3])
            unit = tf.reshape(unit, [-1, places, 1, shape[-1]])
        if not isinstance(self.layer, keras.layers.UnitNormalization):
            factor, offset = self._factor_and_offset(int(unit.shape[-1]), count)
            unit = rounded("scaled", channel_convolution(unit, factor, offset, BITS))
        return tf.reshape(unit, [batch, *(-1 if size is None else size for size in shape[1:])])

    def _factor_and_offset(self, channels: int, count: int) -> tuple[Any, Any]:
        layer = self.layer
        gamma, beta = (getattr(layer, name, None) for name in ("gamma", "beta"))
        if isinstance(layer, keras.layers.RMSNormalization):
            gamma = layer.scale
        ones = tf.ones([channels], tf.float32)
        factor, offset = ones * math.sqrt(count), 0.0 * ones
        if gamma is not None:
            factor *= tf.reshape(tf.cast(gamma.value, tf.float32), [-1])
        if beta is not None:
            offset += tf.reshape(tf.cast(beta.value, tf.float32), [-1])
        counts = tf.abs(factor) >= _SMALLEST_FACTOR * tf.abs(offset)
        return tf.where(counts, factor, tf.zeros_like(factor)), offset

    def compute_output_shape(self, input_shape: Any) -> Any:
        """Returns the input's shape."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """Returns the layer's configuration, for saving."""
        names = "bits", "momentum", "input_bits"
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}


def _centered(rows: Any, rounded: Callable[[str, Any], Any]) -> Any:
    """Rows, (batch, rows, 1, numbers), minus their means, as FULLY_CONNECTED without a bias."""
    width = int(rows.shape[-1])
    if width > WIDEST:
        return rows - rounded("mean", tf.matmul(rows, _in_steps(np.ones((width, 1)), width)))
    return tf.matmul(rows, _in_steps(width * np.eye(width) - 1.0, width))


def _in_steps(integers: np.ndarray, width: int) -> Any:
    """A kernel of these integers in steps of 1 / width, as the converter recognizes it."""
    kernel, end = tf.constant(integers / width, tf.float32), 127.0 / width
    return tf.quantization.fake_quant_with_min_max_vars(kernel, -end, end, 8, narrow_range=True)
