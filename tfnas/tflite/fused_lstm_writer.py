"""Writes an LSTM with fake quantization as the operator UNIDIRECTIONAL_SEQUENCE_LSTM.

Its inputs are, in this order, the sequence; for each gate (enter, keep, new, show: Keras' order)
a kernel, then a recurrent kernel; three weights of peepholes; four biases; a projection and its
bias; the two states; four factors of normalizations. What Keras' layer does not have is left out.
Biases have the steps of the products of inputs and kernels. The operator begins with the first step
and returns all outputs; a slice in front reverses the steps, one behind it takes the last output.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tfnas.quantization.fused_lstm import GATES, QuantizedFusedLstm
from tfnas.tflite.conversion_error import ConversionError
from tfnas.tflite.graph_writer import GraphWriter, NumberFormat

_ABSENT = -1
_SUMS = NumberFormat("int16", 2.0**-12)
_ALL_AXES, _STEPS_AXIS = 0b111, 0b010


def write_fused_lstm(writer: GraphWriter, layer: QuantizedFusedLstm, x: int, output: int) -> None:
    """Adds the operator, and what reverses and selects steps around it.

    Args:
        writer: What adds them to a graph.
        layer: The layer.
        x: Index of its input, (batch, steps, features).
        output: Index of its output.

    Raises:
        ConversionError: The input has no 8-bit integers, or its batch is open.
    """
    tensor = writer.graph.tensors[x]
    form = NumberFormat.of_tensor(tensor)
    signature = tensor.shape if tensor.shapeSignature is None else tensor.shapeSignature
    batch, steps, _ = (None if size < 0 else int(size) for size in signature)
    if form.dtype != "int8" or form.scale is None or batch is None:
        raise ConversionError(
            f"layer {layer.layer.name!r} must have 8-bit integers and a fixed batch in the file, "
            f"got an input of {form.dtype} and the batch {batch or 'open'}"
        )
    if "/" not in str(writer.graph.tensors[output].name):  # the converter's own, "tfl.custom"
        writer.graph.tensors[output].name = f"{writer.scope}output".encode()
    own, units = layer.layer, int(layer.layer.units)
    if own.go_backwards:
        x = _reversed(writer, x, form, signature)
    hidden = NumberFormat.of_range(layer.range_of("hidden"))
    same = NumberFormat.of_tensor(writer.graph.tensors[output]) == hidden
    sequences = output
    if not (own.return_sequences and same):
        sequences = writer.tensor((batch, steps, units), hidden, "outputs")
    _write_operator(writer, layer, x, form, sequences, batch)
    last = sequences
    if not own.return_sequences:
        last = output if same else writer.tensor((batch, units), hidden, "last_output")
        _write_last_step(writer, sequences, last)
    if last != output:
        writer.operator("QUANTIZE", [last], [output])


def _write_operator(
    writer: GraphWriter,
    layer: QuantizedFusedLstm,
    x: int,
    form: NumberFormat,
    output: int,
    batch: int,
) -> None:
    units, absent = int(layer.layer.units), [_ABSENT]
    weights = _weights(writer, layer, float(form.scale or 1.0))
    hidden, cell = (NumberFormat.of_range(layer.range_of(name)) for name in ("hidden", "cell"))
    states = [
        writer.tensor((batch, units), each, f"{name}_state")
        for name, each in (("hidden", hidden), ("cell", cell))
    ]
    for state in states:
        writer.graph.tensors[state].isVariable = True
    inputs = [x, *weights[:8], *absent * 3, *weights[8:], *absent * 2, *states, *absent * 4]
    activation = schema.ActivationFunctionType.TANH
    name = "UNIDIRECTIONAL_SEQUENCE_LSTM"
    writer.operator(name, inputs, [output], fusedActivationFunction=activation)
    # LiteRT reads the formats of sums, which it wants to be there, for normalizations alone.
    inner = [writer.tensor((0,), each, "") for each in (*[_SUMS] * GATES, hidden)]
    for each in inner:
        writer.graph.tensors[each].name = None  # nothing shows them, and a name has bytes
    writer.operators[-1].intermediates = inner


def _weights(writer: GraphWriter, layer: QuantizedFusedLstm, scale: float) -> list[int]:
    """Kernels, recurrent kernels and biases of the gates; `scale` is that of the inputs."""
    cell, found, formats = layer.layer.cell, [], []
    for name in ("kernel", "recurrent_kernel"):
        for gate, part in enumerate(np.split(np.asarray(getattr(cell, name)), GATES, axis=1)):
            largest = float(np.abs(part).max()) or 1.0
            form = NumberFormat("int8", max(largest, layer.least) / 127.0)
            formats.append(form)
            found.append(writer.constant(form.integers(part.T), form, f"{name}_{gate}"))
    width = GATES * layer.layer.units
    bias = np.zeros(width, np.float32) if cell.bias is None else np.asarray(cell.bias)
    for gate, part in enumerate(np.split(bias, GATES)):
        sums = NumberFormat("int32", scale * float(formats[gate].scale or 1.0))
        found.append(writer.constant(sums.integers(part), sums, f"bias_{gate}"))
    return found


def _reversed(writer: GraphWriter, x: int, form: NumberFormat, signature: Any) -> int:
    """The sequence from its last step to its first."""
    shape = tuple(None if size < 0 else int(size) for size in signature)
    output = writer.tensor(shape, form, "last_step_first")
    places = _places(writer, (0, 0, 0), (1, -1, 1))
    writer.operator("STRIDED_SLICE", [x, *places], [output], beginMask=_ALL_AXES, endMask=_ALL_AXES)
    return output


def _write_last_step(writer: GraphWriter, sequences: int, output: int) -> None:
    writer.operator(
        "STRIDED_SLICE",
        [sequences, *_places(writer, (0, -1, 0), (1, 1, 1))],
        [output],
        beginMask=_ALL_AXES - _STEPS_AXIS,
        endMask=_ALL_AXES,
        shrinkAxisMask=_STEPS_AXIS,
    )


def _places(writer: GraphWriter, begin: Sequence[int], strides: Sequence[int]) -> list[int]:
    """Where a slice begins, where it ends, and its strides; a mask overrides the ends."""
    first = writer.numbers(begin, "slice_begin")
    return [first, first, writer.numbers(strides, "slice_strides")]
