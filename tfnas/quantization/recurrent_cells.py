"""One time step of LSTM, GRU and SimpleRNN, as a row of operators that have integer kernels.

A step is written once, here, and computed by any :class:`StepMath`: in training with fake
quantization (:mod:`tfnas.quantization.recurrent_forms`), in a file as the operators themselves
(:mod:`tfnas.tflite.step_operators`). So the trained model and its file round the same values.

GRU's new state, z * h + (1 - z) * n, is computed as n + z * (h - n), which needs no constant.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Generic, Protocol, TypeVar

import keras

from tfnas.graph.call_arguments import named_arguments
from tfnas.graph.functional import Call

T = TypeVar("T")
KINDS = ("LSTM", "GRU", "SimpleRNN")
ACTIVATIONS = ("sigmoid", "tanh", "relu", "linear")
# Function -> the ends of its output with 8 and with 16 bits, as TFLite's kernels prescribe them.
_FIXED = {
    "sigmoid": ((0.0, 255.0 / 256.0), (-32767.0 / 32768.0, 32767.0 / 32768.0)),
    "tanh": ((-1.0, 127.0 / 128.0), (-32767.0 / 32768.0, 32767.0 / 32768.0)),
}


class StepMath(Protocol[T]):
    """The operators of a step. Each output is rounded to the range of its name."""

    def product(
        self, x: T, kernel: str, bias: int | None, name: str, columns: tuple[int, int] | None = None
    ) -> T:
        """Multiplies by "kernel" or "recurrent_kernel", and adds a row of the layer's bias.

        Args:
            x: Numbers of shape (batch, inputs).
            kernel: Name of the weight.
            bias: Row of the bias; None: none is added.
            name: Name of the output's range.
            columns: First and last + 1 of the kernel's columns; None: all.
        """

    def add(self, first: T, second: T, name: str) -> T:
        """Adds."""

    def subtract(self, first: T, second: T, name: str) -> T:
        """Subtracts."""

    def multiply(self, first: T, second: T, name: str) -> T:
        """Multiplies."""

    def split(self, x: T, parts: int) -> list[T]:
        """Splits the last axis into equal parts, which keep their range."""

    def activate(self, x: T, function: str, name: str) -> T:
        """Applies an activation of `ACTIVATIONS`; a linear one rounds nothing."""


class RecurrentStep(Generic[T]):
    """The step of one layer.

    Args:
        layer: An LSTM, GRU or SimpleRNN layer.
    """

    def __init__(self, layer: keras.layers.Layer) -> None:
        self.layer = layer
        self.kind = type(layer).__name__
        self.activation = name_of(layer.activation)
        self.gate = name_of(getattr(layer, "recurrent_activation", None))

    @property
    def states(self) -> tuple[str, ...]:
        """Names of the states; the output is the first."""
        return ("hidden", "cell") if self.kind == "LSTM" else ("hidden",)

    def __call__(self, math: StepMath[T], x: T, states: Sequence[T]) -> list[T]:
        """Returns the new states.

        Args:
            math: What computes.
            x: The inputs of one step, (batch, inputs).
            states: The states before, each (batch, units).
        """
        if self.kind == "LSTM":
            return self._lstm(math, x, *states)
        return (self._gru if self.kind == "GRU" else self._simple)(math, x, *states)

    def ranges(self, bits: int, starts: bool = False) -> dict[str, tuple[float, float] | None]:
        """Returns the names of the ranges, with those that need no data; None for the others.

        Args:
            bits: Of the numbers, 8 or 16.
            starts: Whether the states before the first step are given, and may be any numbers.
        """
        names, step = _Names(), RecurrentStep[None](self.layer)
        step(names, None, [None] * len(self.states))
        # A new state between an old one and an output of tanh stays below 1, as does a product.
        if self.kind != "SimpleRNN" and (self.activation, self.gate) == ("tanh", "sigmoid"):
            names.functions["hidden"] = "tanh"
        if starts:
            names.functions.update(dict.fromkeys(self.states, ""))
        found = names.functions.items()
        return {name: _FIXED[f][bits > 8] if f in _FIXED else None for name, f in found}

    def _bias(self, row: int) -> int | None:
        return row if self.layer.use_bias else None

    def _lstm(self, math: StepMath[T], x: T, h: T, c: T) -> list[T]:
        inputs = math.product(x, "kernel", self._bias(0), "input_sums")
        recurrent = math.product(h, "recurrent_kernel", None, "recurrent_sums")
        enter, keep, new, show = math.split(math.add(inputs, recurrent, "sums"), 4)
        kept = math.multiply(math.activate(keep, self.gate, "keep"), c, "kept")
        new = math.activate(new, self.activation, "new")
        entered = math.multiply(math.activate(enter, self.gate, "enter"), new, "entered")
        c = math.add(kept, entered, "cell")
        shown = math.activate(c, self.activation, "shown")
        h = math.multiply(math.activate(show, self.gate, "show"), shown, "hidden")
        return [h, c]

    def _gru(self, math: StepMath[T], x: T, h: T) -> list[T]:
        units = self.layer.units
        inputs = math.product(x, "kernel", self._bias(0), "input_sums")
        update, reset, candidate = math.split(inputs, 3)
        if self.layer.reset_after:
            sums = math.product(h, "recurrent_kernel", self._bias(1), "recurrent_sums")
            update_h, reset_h, candidate_h = math.split(sums, 3)
        else:
            columns = 0, 2 * units
            sums = math.product(h, "recurrent_kernel", None, "recurrent_sums", columns)
            update_h, reset_h = math.split(sums, 2)
        update = math.activate(math.add(update, update_h, "update_sums"), self.gate, "update")
        reset = math.activate(math.add(reset, reset_h, "reset_sums"), self.gate, "reset")
        if self.layer.reset_after:
            kept = math.multiply(reset, candidate_h, "kept")
        else:
            columns = 2 * units, 3 * units
            kept = math.multiply(reset, h, "kept_state")
            kept = math.product(kept, "recurrent_kernel", None, "kept", columns)
        new = math.activate(math.add(candidate, kept, "new_sums"), self.activation, "new")
        change = math.multiply(update, math.subtract(h, new, "difference"), "change")
        return [math.add(new, change, "hidden")]

    def _simple(self, math: StepMath[T], x: T, h: T) -> list[T]:
        inputs = math.product(x, "kernel", self._bias(0), "input_sums")
        recurrent = math.product(h, "recurrent_kernel", None, "recurrent_sums")
        linear = self.activation == "linear"
        sums = math.add(inputs, recurrent, "hidden" if linear else "sums")
        return [math.activate(sums, self.activation, "hidden")]


class _Names:
    """Notes the ranges of a step, and the function that an output comes from."""

    def __init__(self) -> None:
        self.functions: dict[str, str] = {}

    def product(self, x: Any, kernel: str, bias: Any, name: str, columns: Any = None) -> None:
        self.functions[name] = ""

    def add(self, first: Any, second: Any, name: str) -> None:
        self.functions[name] = ""

    subtract = multiply = add

    def split(self, x: Any, parts: int) -> list[None]:
        return [None] * parts

    def activate(self, x: Any, function: str, name: str) -> None:
        if function != "linear":
            self.functions[name] = function


def name_of(function: Any) -> str:
    """Returns the name of an activation function.

    Args:
        function: The function; None is "linear".
    """
    return "linear" if function is None else str(getattr(function, "__name__", function))


def output_ranges(
    layer: keras.layers.Layer, bits: int, starts: bool = False
) -> list[tuple[float, float] | None]:
    """Returns the ranges of a layer's outputs that need no data; None: data must set it.

    Args:
        layer: A layer of one of the `KINDS`.
        bits: Of the outputs, 8 or 16.
        starts: As of :meth:`RecurrentStep.ranges`.

    Returns:
        A range for the output, and for each state that the layer returns.
    """
    step: RecurrentStep[Any] = RecurrentStep(layer)
    ranges = step.ranges(bits, starts)
    return [ranges[name] for name in ("hidden", *(step.states if layer.return_state else ()))]


def initial_states(call: Call, tensors: Sequence[Any] | None = None) -> list[Any]:
    """Returns the states before the first step that a recurrent layer gets; [] where it gets none.

    Args:
        call: A call of a layer of one of the `KINDS`.
        tensors: What stands for its inputs; None: the inputs themselves.
    """
    states = keras.tree.flatten(named_arguments(call, tensors).get("initial_state"))
    return [state for state in states if state is not None]


def has_mask(call: Call) -> bool:
    """Returns whether a recurrent layer gets a mask, as its last input.

    Args:
        call: A call of a layer of one of the `KINDS`, or of a Bidirectional.
    """
    return named_arguments(call).get("mask") is not None


def fits_fused_lstm(call: Call) -> bool:
    """Returns whether UNIDIRECTIONAL_SEQUENCE_LSTM computes a recurrent layer.

    Args:
        call: A call of a layer of one of the `KINDS` with an integer form.
    """
    step: RecurrentStep[Any] = RecurrentStep(call.operation)
    standard = (step.activation, step.gate) == ("tanh", "sigmoid")
    states = bool(initial_states(call)) or call.operation.return_state
    return step.kind == "LSTM" and standard and not has_mask(call) and not states


def reason_for_float_loop(call: Call) -> str | None:
    """Returns why a recurrent layer stays float; None: it has an integer form.

    Args:
        call: A call of a layer of one of the `KINDS`.
    """
    layer = call.operation
    step: RecurrentStep[Any] = RecurrentStep(layer)
    states = initial_states(call)
    # TANH and LOGISTIC have a prescribed range, which such a state would be cut to.
    if states and (step.kind == "SimpleRNN" and step.activation in _FIXED):
        return f"no integer form of {call.kind} of {step.activation} with an initial state"
    if len(call.inputs) != 1 + bool(states) * len(step.states) + has_mask(call):
        return f"no integer form of {call.kind} with constants as its mask or initial state"
    if has_mask(call) and layer.zero_output_for_mask:
        return f"no integer form of {call.kind} with zero_output_for_mask=True"
    functions = [step.activation] + ([step.gate] if step.kind != "SimpleRNN" else [])
    other = [name for name in functions if name not in ACTIVATIONS]
    if other:
        return f"no integer form of the activation {other[0]!r} in a recurrent layer"
    for argument in ("stateful", "unroll"):
        if getattr(layer, argument):
            return f"no integer form of {step.kind} with {argument}=True"
    return None
