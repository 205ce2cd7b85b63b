"""The step of a recurrent layer as operators of a file.

:class:`StepWriter` computes a :class:`~tfnas.quantization.recurrent_cells.RecurrentStep` by writing
operators: in floats, or in the formats of a
:class:`~tfnas.quantization.recurrent_forms.QuantizedRecurrent`.
With 16-bit numbers FULLY_CONNECTED takes 8-bit kernels and no bias, which an ADD adds: with a bias
of 64 bits LiteRT has only a reference kernel, many times slower. Without one it adds up in 32 bits;
a kernel whose sums could overflow these has a bias of 64.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tfnas.quantization.fake_quant import MIN_RANGE_16
from tfnas.quantization.recurrent_cells import RecurrentStep
from tfnas.quantization.recurrent_forms import QuantizedRecurrent
from tfnas.tflite.conversion_error import ConversionError
from tfnas.tflite.graph_writer import GraphWriter, NumberFormat

_FUNCTIONS = {"sigmoid": "LOGISTIC", "tanh": "TANH", "relu": "RELU"}
_FLOAT = NumberFormat("float32")
_MOST_STEPS = 2**31 // 2**15 - 1  # of a column of a kernel that a sum of 32 bits holds


class StepWriter:
    """Writes the operators of steps; numbers are indices of tensors.

    Args:
        writer: What adds them to a graph.
        layer: A recurrent layer, or one with fake quantization.
        batch: Examples in a batch; None: open.
    """

    def __init__(self, writer: GraphWriter, layer: Any, batch: int | None) -> None:
        self.writer, self.batch = writer, batch
        self.rounds = layer if isinstance(layer, QuantizedRecurrent) else None
        self.layer = layer if self.rounds is None else self.rounds.layer
        self.step: RecurrentStep[int] = RecurrentStep(self.layer)

    def write(self, x: int, states: list[int]) -> list[int]:
        """Writes one step.

        Args:
            x: The inputs, (batch, features).
            states: The states before.

        Returns:
            The new states.

        Raises:
            ConversionError: The layer has fake quantization, and its input is no integer.
        """
        form = self.form_of(x)
        if self.rounds is not None and form.scale is None:
            raise ConversionError(
                f"layer {self.layer.name!r} must have integers around it in the file, got an "
                f"input of {form.dtype}"
            )
        if self.rounds is not None and self.rounds.state_bits > 8 and form.dtype == "int8":
            x = self.converted(x, form.finer, "input")
        return self.step(self, x, states)

    def state_formats(self) -> list[NumberFormat]:
        """Returns the formats of the states."""
        return [self._format(name) for name in self.step.states]

    def form_of(self, tensor: int) -> NumberFormat:
        """Returns the format of a tensor of the graph."""
        return NumberFormat.of_tensor(self.writer.graph.tensors[tensor])

    def converted(self, tensor: int, form: NumberFormat, name: str) -> int:
        """Returns a tensor in another format; itself where it has the format."""
        if self.form_of(tensor) == form:
            return tensor
        return self._written("QUANTIZE", [tensor], self._width(tensor), form, name)

    def product(self, x: int, kernel: str, bias: int | None, name: str, columns: Any = None) -> int:
        weights = np.asarray(getattr(self.layer.cell, kernel))
        form = self._kernel_format(weights)
        if columns is not None:
            weights = weights[:, columns[0] : columns[1]]
        integers, output = form.integers(weights.T), self._format(name)
        matrix, is_wide = self.writer.constant(integers, form, f"{name}/{kernel}"), False
        if output.dtype == "int16":
            is_wide = int(np.abs(integers.astype(np.int64)).sum(axis=1).max()) > _MOST_STEPS
            if bias is not None and not is_wide:
                return self._with_added_bias(x, matrix, bias, output, name)
        values = None if bias is None else self._bias_values(bias)
        if values is None and is_wide:
            values = np.zeros(len(integers))
        added = -1 if values is None else self._bias(values, x, form, name)
        inputs = [x, matrix, added]
        return self._written("FULLY_CONNECTED", inputs, len(integers), output, name)

    def _with_added_bias(
        self, x: int, matrix: int, row: int, output: NumberFormat, name: str
    ) -> int:
        """A product of 16 bits, and the ADD of its bias."""
        values = self._bias_values(row)
        largest = max(float(np.abs(values).max()), MIN_RANGE_16)
        own = NumberFormat("int16", largest / 32767)
        added = self.writer.constant(own.integers(values[None]), own, f"{name}/bias")
        wide = NumberFormat("int16", float(output.scale or 0.0) + largest / 32767)
        product = self._written("FULLY_CONNECTED", [x, matrix, -1], len(values), wide, name)
        options = {"potScaleInt16": False}
        return self._written("ADD", [product, added], len(values), output, name, **options)

    def _bias_values(self, row: int) -> np.ndarray:
        values = np.asarray(self.layer.cell.bias)
        return values.reshape(-1, values.shape[-1])[row]

    def add(self, first: int, second: int, name: str) -> int:
        return self._binary("ADD", first, second, name)

    def subtract(self, first: int, second: int, name: str) -> int:
        return self._binary("SUB", first, second, name)

    def multiply(self, first: int, second: int, name: str) -> int:
        return self._binary("MUL", first, second, name)

    def split(self, x: int, parts: int) -> list[int]:
        width, form = self._width(x) // parts, self.form_of(x)
        found = [self._tensor(width, form, f"part_{place}") for place in range(parts)]
        axis = self.writer.numbers(1, "split_axis")
        self.writer.operator("SPLIT", [axis, x], found, numSplits=parts)
        return found

    def activate(self, x: int, function: str, name: str) -> int:
        if function == "linear":
            return x
        return self._written(_FUNCTIONS[function], [x], self._width(x), self._format(name), name)

    def _binary(self, operator: str, first: int, second: int, name: str) -> int:
        inputs, form = [first, second], self._format(name)
        options = {} if operator == "MUL" else {"potScaleInt16": False}
        return self._written(operator, inputs, self._width(first), form, name, **options)

    def _written(
        self,
        operator: str,
        inputs: list[int],
        width: int,
        form: NumberFormat,
        name: str,
        **options: Any,
    ) -> int:
        output = self._tensor(width, form, name)
        self.writer.operator(operator, inputs, [output], **options)
        return output

    def _tensor(self, width: int, form: NumberFormat, name: str) -> int:
        return self.writer.tensor((self.batch, width), form, name)

    def _width(self, tensor: int) -> int:
        return int(self.writer.graph.tensors[tensor].shape[-1])

    def _format(self, name: str) -> NumberFormat:
        return _FLOAT if self.rounds is None else NumberFormat.of_range(self.rounds.range_of(name))

    def _kernel_format(self, kernel: np.ndarray) -> NumberFormat:
        if self.rounds is None:
            return _FLOAT
        largest = float(np.abs(kernel).max()) or 1.0
        return NumberFormat("int8", max(largest, self.rounds.least) / 127.0)

    def _bias(self, values: np.ndarray, x: int, kernel: NumberFormat, name: str) -> int:
        form, inputs = _FLOAT, self.form_of(x)
        if kernel.scale is not None and inputs.scale is not None:
            dtype = "int64" if inputs.dtype == "int16" else "int32"
            form = NumberFormat(dtype, inputs.scale * kernel.scale)
        return self.writer.constant(form.integers(values), form, f"{name}/bias")
