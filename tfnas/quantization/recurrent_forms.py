"""Recurrent layers with fake quantization in each time step.

:class:`QuantizedRecurrent` computes an LSTM, GRU or SimpleRNN as the loop of its integer file does
(:mod:`tfnas.quantization.recurrent_cells` is the step), for training and for calibration. While a
model is traced for conversion it leaves a placeholder, a custom operator of its name, in whose
place :mod:`tfnas.tflite.passes.integer_loops` writes the loop: TensorFlow's converter has no
16-bit step in a model of 8 bits, and keeps the states of a loop float.

The numbers inside of a step have 16 bits by default, also where the activations around the layer
have 8: a state of 8 bits takes up the rounding of each step.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import keras
import tensorflow as tf

from tfnas.graph.batchnorm import layers_of
from tfnas.graph.macs import layer_macs
from tfnas.graph.registered_layers import register_layer
from tfnas.keras_private import loop_over_steps
from tfnas.quantization.fake_quant import (
    MIN_RANGE_16,
    FakeQuant,
    extremes_instead_of_histograms,
)
from tfnas.quantization.quantized_kernel import PACKAGE, QuantizedKernel
from tfnas.quantization.recurrent_cells import RecurrentStep

PLACEHOLDER = "tfnas_loop/"
_TRACED = threading.local()


@contextlib.contextmanager
def placeholders_for_steps() -> Iterator[None]:
    """Traces placeholders in place of loops, in this thread, while it is open."""
    before = getattr(_TRACED, "placeholders", False)
    _TRACED.placeholders = True
    try:
        yield
    finally:
        _TRACED.placeholders = before


def step_layers(model: Any) -> list[QuantizedRecurrent]:
    """Returns the recurrent layers with fake quantization of a model; none of a tf_keras one."""
    return layers_of(model, QuantizedRecurrent) if isinstance(model, keras.Model) else []


def has_placeholders(model: Any) -> bool:
    """Returns whether some layer of a model is a placeholder while it is traced for conversion."""
    kinds = (QuantizedRecurrent, LeavesPlaceholder)
    return isinstance(model, keras.Model) and bool(layers_of(model, kinds))


class LeavesPlaceholder:
    """Marks a class of layers that always leave a :func:`placeholder`."""


def placeholder(
    name: str,
    x: tf.Tensor,
    units: int,
    steps: int | bool,
    others: Sequence[tf.Tensor] = (),
    states: int = 0,
) -> Any:
    """Returns an output that the converter writes as a custom operator.

    Args:
        name: Name of the operator, after `PLACEHOLDER`.
        x: Its input, (batch, steps, features).
        units: Last size of the outputs.
        steps: Steps of the output; True: those of the input; False: it has no axis of steps.
        others: Its further inputs.
        states: Number of further outputs, (batch, units).

    Returns:
        The output; a list of all outputs where there are several.
    """
    implements = f'name: "{PLACEHOLDER}{name}" attr {{ key: "tfl_fusable_op" value {{ b: true }} }}'

    def body(x: tf.Tensor, *others: tf.Tensor) -> Any:
        # What it computes is never run; it depends on the inputs, and has the shape.
        sizes = [tf.shape(x)[1] if steps is True else steps] if steps else []
        total = tf.add_n([tf.reduce_sum(tf.cast(each, tf.float32)) for each in (x, *others)])
        output = tf.zeros([tf.shape(x)[0], *sizes, units]) + total
        state = tf.zeros([tf.shape(x)[0], units])
        return [output, *(state + total + float(1 + place) for place in range(states))]

    found = tf.function(body, autograph=False, experimental_implements=implements)(x, *others)
    middle = [x.shape[1] if steps is True else steps] if steps else []
    shapes = [[x.shape[0], *middle, units], *[[x.shape[0], units]] * states]
    outputs = [tf.ensure_shape(*pair) for pair in zip(found, shapes, strict=True)]
    return outputs if states else outputs[0]


@keras.saving.register_keras_serializable(PACKAGE)
class QuantizedRecurrent(QuantizedKernel):
    """Calls an LSTM, GRU or SimpleRNN with each step rounded as its file rounds it.

    Args:
        layer: The layer.
        state_bits: Bits of the numbers inside of a step, 8 or 16.
        ranges: As of :class:`FakeQuant`, of the ranges inside; "percentile" and "mse" are the
            extremes of a step's units, which are few.
        momentum: As of :class:`FakeQuant`.
        starts: Whether some call gives the states before the first step, which may be any numbers.
        **options: As of :class:`QuantizedKernel`.
    """

    def __init__(
        self,
        layer: Any,
        state_bits: int = 16,
        ranges: str = "moving_average",
        momentum: float = 0.99,
        starts: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(layer, **options)
        self.state_bits, self.ranges, self.momentum = state_bits, ranges, momentum
        self.starts = starts
        self.step: RecurrentStep[Any] = RecurrentStep(layer)
        found = self._new_ranges()
        self.range_names, self.fake_quants = list(found), list(found.values())

    def _new_ranges(self) -> dict[str, FakeQuant]:
        """The layers that round to the ranges of the step, by the names of these."""
        bits, kept = self.state_bits, extremes_instead_of_histograms(self.ranges)
        return {
            name: FakeQuant(
                bits, kept, self.momentum, fixed=fixed, dtype="float32", name=f"{name}_range"
            )
            for name, fixed in self.step.ranges(bits, self.starts).items()
        }

    @property
    def scale_per_kernel(self) -> bool:
        """Each kernel has one scale, which all kernels of FULLY_CONNECTED take."""
        return True

    def build(self, input_shape: Any = None) -> None:
        """Builds the layer and its ranges."""
        super().build(input_shape)
        for layer in self.fake_quants:
            if not layer.built:
                layer.build(())

    def range_of(self, name: str) -> FakeQuant:
        """Returns the layer that rounds to a range of the step.

        Args:
            name: A name of :meth:`RecurrentStep.ranges`.
        """
        return self.fake_quants[self.range_names.index(name)]

    def call(
        self,
        x: Any,
        use: int = 0,
        training: bool | None = None,
        mask: Any = None,
        initial_state: Sequence[Any] | None = None,
    ) -> Any:
        """Computes all steps.

        Args:
            x: The inputs, (batch, steps, features).
            use: Index of the call, where a model calls the layer several times; a loop has kernels
                of its own in the file.
            training: Whether ranges are observed, and inputs dropped.
            mask: Where an example's step counts, (batch, steps).
            initial_state: The states before the first step, (batch, units); None: zeros.

        Returns:
            The output, and a list with the states after it where the layer returns them.
        """
        layer, given = self.layer, list(initial_state or ())
        if getattr(_TRACED, "placeholders", False):
            others = given if mask is None else [*given, mask]
            returned = len(self.step.states) if layer.return_state else 0
            return placeholder(self.name, x, layer.units, layer.return_sequences, others, returned)
        math = _RoundedMath(self, training)
        masks = self._dropped(x, training)
        lows, highs = math.extremes_of_states(x, given)
        states = [tf.zeros([tf.shape(x)[0], layer.units], x.dtype)] * len(self.step.states)
        if given:
            states = [math.rounded(*pair) for pair in zip(given, self.step.states, strict=True)]

        def one_step(given: Any, before: Any) -> tuple[Any, list[Any]]:
            *before, lows, highs = before
            math.extremes = {}
            # The step's own inputs: rounded, so that each kernel has inputs on its grid.
            given, first = given * masks[0], before[0] * masks[1]
            new = self.step(math, given, [first, *before[1:]])
            return new[0], [*new, *math.widened(lows, highs)]

        last, outputs, ends = loop_over_steps(
            one_step,
            x,
            [*states, lows, highs],
            mask=mask,
            go_backwards=layer.go_backwards,
            return_all_outputs=layer.return_sequences,
        )
        *states, lows, highs = ends
        math.observe(lows, highs)
        output = outputs if layer.return_sequences else last
        return [output, *states] if layer.return_state else output

    def _dropped(self, x: Any, training: bool | None) -> tuple[Any, Any]:
        """Factors of the inputs and of the state, the same in all steps, as in Keras' cells."""
        layer, factors = self.layer, []
        for rate, size in (
            (layer.dropout, int(x.shape[-1])),
            (layer.recurrent_dropout, layer.units),
        ):
            ones = tf.ones([tf.shape(x)[0], size], x.dtype)
            seed = layer.cell.seed_generator
            dropped = training and rate > 0
            factors.append(keras.random.dropout(ones, rate, seed=seed) if dropped else 1.0)
        return factors[0], factors[1]

    def compute_output_spec(
        self,
        x: Any,
        training: Any = None,
        use: int = 0,
        mask: Any = None,
        initial_state: Any = None,
    ) -> Any:
        """Returns the layer's own output."""
        return self.layer.compute_output_spec(x)

    def get_config(self) -> dict[str, Any]:
        """Returns the layer's configuration, for saving."""
        names = "state_bits", "ranges", "momentum", "starts"
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}


class _RoundedMath:
    """Computes a step in TensorFlow, each output rounded to its range.

    Args:
        owner: The layer.
        training: Whether it is trained.
    """

    def __init__(self, owner: QuantizedRecurrent, training: bool | None) -> None:
        self.owner, self.training = owner, training
        self.calibrates = any(layer.observing for layer in owner.fake_quants)
        # (lowest, highest) of each example, by the name of the range.
        self.extremes: dict[str, tuple[Any, Any]] = {}
        layer = owner.layer
        kernels = {name: getattr(layer.cell, name).value for name in ("kernel", "recurrent_kernel")}
        rounds = owner.rounded if owner.active else tf.convert_to_tensor
        self.weights = {name: rounds(kernel) for name, kernel in kernels.items()}
        bias = layer.cell.bias
        self.bias: Any = None if bias is None else tf.reshape(bias.value, [-1, bias.shape[-1]])

    def product(self, x: Any, kernel: str, bias: int | None, name: str, columns: Any = None) -> Any:
        weights = self.weights[kernel]
        if columns is not None:
            weights = weights[:, columns[0] : columns[1]]
        found = tf.matmul(x, tf.cast(weights, x.dtype))
        if bias is not None:
            found = self._with_bias(found, tf.cast(self.bias[bias], x.dtype), name)
        return self._rounded(found, name)

    def _with_bias(self, product: Any, bias: Any, name: str) -> Any:
        """The sum of both; with 16 bits each is rounded before, as the file adds them.

        The range of the product is that of the sum, wider by the largest bias.
        """
        layer = self.owner.range_of(name)
        if not layer.symmetric or not self._rounds(layer):
            return product + bias
        largest = tf.maximum(tf.reduce_max(tf.abs(tf.cast(bias, tf.float32))), MIN_RANGE_16)
        known = layer.high.value > layer.low.value

        def rounded(value: Any, end: Any) -> Any:
            single = tf.cast(value, tf.float32)
            found = tf.quantization.fake_quant_with_min_max_vars(
                single, -end, end, num_bits=layer.bits, narrow_range=True
            )
            return tf.cast(tf.where(known, found, single), value.dtype)

        return rounded(product, layer.grid_range()[1] + largest) + rounded(bias, largest)

    def _rounds(self, layer: FakeQuant) -> bool:
        return bool(layer.active and self.owner.active and not self.calibrates)

    def add(self, first: Any, second: Any, name: str) -> Any:
        return self._rounded(first + second, name)

    def subtract(self, first: Any, second: Any, name: str) -> Any:
        return self._rounded(first - second, name)

    def multiply(self, first: Any, second: Any, name: str) -> Any:
        return self._rounded(first * second, name)

    def split(self, x: Any, parts: int) -> list[Any]:
        return list(tf.split(x, parts, axis=-1))

    def activate(self, x: Any, function: str, name: str) -> Any:
        if function == "linear":
            return x
        return self._rounded(keras.activations.get(function)(x), name)

    def extremes_of_states(self, x: Any, states: Sequence[Any]) -> tuple[Any, Any]:
        """The extremes before the first step, (batch, ranges): of given states, else zeros.

        Args:
            x: The inputs of the layer.
            states: The states; none where they are zeros.
        """
        zeros = tf.zeros([tf.shape(x)[0], 1])
        held = {
            name: tf.stop_gradient(tf.cast(state, tf.float32))
            for name, state in zip(self.owner.step.states, states, strict=False)
        }
        ends = [
            tf.concat(
                [
                    reduce(held[name], axis=-1, keepdims=True) if name in held else zeros
                    for name in self.owner.range_names
                ],
                axis=-1,
            )
            for reduce in (tf.reduce_min, tf.reduce_max)
        ]
        return tf.minimum(ends[0], 0.0), tf.maximum(ends[1], 0.0)

    def _rounded(self, value: Any, name: str) -> Any:
        held = tf.stop_gradient(tf.cast(value, tf.float32))
        self.extremes[name] = tf.reduce_min(held, axis=-1), tf.reduce_max(held, axis=-1)
        return self.rounded(value, name)

    def rounded(self, value: Any, name: str) -> Any:
        """Returns numbers rounded to a range, which does not observe them.

        Args:
            value: The numbers.
            name: Name of the range.
        """
        layer = self.owner.range_of(name)
        single = tf.cast(value, tf.float32)
        if not self._rounds(layer):
            return value
        # The first batch sets the range: until its end there is none to round to.
        known = layer.high.value > layer.low.value
        return tf.cast(tf.where(known, layer.rounded(single, self.training), single), value.dtype)

    def widened(self, lows: Any, highs: Any) -> list[Any]:
        """The extremes of the examples so far, each of shape (batch, ranges)."""
        names = self.owner.range_names
        new = [tf.stack([self.extremes[name][end] for name in names], axis=-1) for end in (0, 1)]
        return [tf.minimum(lows, new[0]), tf.maximum(highs, new[1])]

    def observe(self, lows: Any, highs: Any) -> None:
        """Moves the ranges towards those of all steps and examples."""
        if not (self.training or self.calibrates):
            return
        low, high = tf.reduce_min(lows, axis=0), tf.reduce_max(highs, axis=0)
        for place, layer in enumerate(self.owner.fake_quants):
            if layer.fixed is None and not layer.frozen:
                layer.take_range(low[place], tf.maximum(high[place], low[place] + 1e-6))


register_layer(QuantizedRecurrent, macs=lambda own, x, y: layer_macs(own.layer, x, y))
