"""Writes an LSTM with fake quantization as the operator UNIDIRECTIONAL_SEQUENCE_LSTM.

Its inputs are, in this order, the sequence; for each gate (enter, keep, new, show: Keras' order)
a kernel, then a recurrent kernel; three weights of peepholes; four biases; a projection and its
bias; the two states; four factors of normalizations. What Keras' layer does not have is left out.
Biases have the steps of the products of inputs and kernels. The operator begins with the first step
and returns all outputs; a slice in front reverses the steps, one behind it takes the last output.
"""

from __future__ import annotations

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
        _slice(writer, sequences, last, (0, -1, 0), _ALL_AXES - _STEPS_AXIS, 1, _STEPS_AXIS)
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
    units = int(layer.layer.units)
    kernels, formats = [], []
    for name in ("kernel", "recurrent_kernel"):
        parts = np.split(np.asarray(getattr(layer.layer.cell, name)), GATES, axis=1)
        for gate, part in enumerate(parts):
            largest = float(np.abs(part).max()) or 1.0
            formats.append(NumberFormat("int8", max(largest, layer.least) / 127.0))
            integers = formats[-1].integers(part.T)
            kernels.append(writer.constant(integers, formats[-1], f"{name}_{gate}"))
    bias = layer.layer.cell.bias
    values = np.zeros(GATES * units, np.float32) if bias is None else np.asarray(bias)
    biases = []
    for gate, (part, kernel) in enumerate(zip(np.split(values, GATES), formats, strict=False)):
        sums = NumberFormat("int32", float(form.scale or 1.0) * float(kernel.scale or 1.0))
        biases.append(writer.constant(sums.integers(part), sums, f"bias_{gate}"))
    states = []
    for name in ("hidden", "cell"):
        state = NumberFormat.of_range(layer.range_of(name))
        states.append(writer.tensor((batch, units), state, name))
        writer.graph.tensors[states[-1]].isVariable = True
    absent = {count: [_ABSENT] * count for count in (2, 3, 4)}
    inputs = [x, *kernels, *absent[3], *biases, *absent[2], *states, *absent[4]]
    activation = schema.ActivationFunctionType.TANH
    name = "UNIDIRECTIONAL_SEQUENCE_LSTM"
    writer.operator(name, inputs, [output], fusedActivationFunction=activation)
    # The kernels read the last one's format alone, which is that of the output.
    inner = [*[_SUMS] * GATES, NumberFormat.of_range(layer.range_of("hidden"))]
    writer.operators[-1].intermediates = [
        writer.tensor((0,), each, f"inner_{place}") for place, each in enumerate(inner)
    ]


def _reversed(writer: GraphWriter, x: int, form: NumberFormat, signature: Any) -> int:
    shape = tuple(None if size < 0 else int(size) for size in signature)
    output = writer.tensor(shape, form, "last_step_first")
    _slice(writer, x, output, (0, 0, 0), _ALL_AXES, -1, 0)
    return output


def _slice(
    writer: GraphWriter,
    x: int,
    output: int,
    begin: tuple[int, int, int],
    begins: int,
    stride: int,
    dropped: int,
) -> None:
    """A slice from `begin`, but for axes of the bits of `begins`, to the ends of all axes."""
    ends = [begin, (0, 0, 0), (1, stride, 1)]
    places = [
        writer.numbers(each, f"slice_{n}") for each, n in zip(ends, ("begin", "end", "strides"))
    ]
    writer.operator(
        "STRIDED_SLICE",
        [x, *places],
        [output],
        beginMask=begins,
        endMask=_ALL_AXES,
        shrinkAxisMask=dropped,
    )
