"""Multiply-accumulates of recurrent layers: those of their cell, once for each step."""

from __future__ import annotations

from typing import Any

from tfnas.graph.functional import Call
from tfnas.graph.known_sizes import Shape, product, times, total
from tfnas.graph.registered_layers import class_of_keras, registered_layer


def recurrent(call: Call) -> int | None:
    """SimpleRNN, LSTM, GRU, ConvLSTM and RNN with any cell that is known."""
    layer, shape = call.operation, call.inputs[0].shape
    return times(shape[1], cell_macs(layer.cell, (shape[0], *shape[2:]), _step_output(call)))


def cell(call: Call) -> int | None:
    """A cell that is called by itself, for one step."""
    return cell_macs(call.operation, call.inputs[0].shape, call.outputs[0].shape)


def cell_macs(layer: Any, inputs: Shape, outputs: Shape) -> int | None:
    """Returns the multiply-accumulates of one step of a cell; None where they are unknown.

    Args:
        layer: The cell.
        inputs: Shape of its input, the batch first.
        outputs: Shape of its output, the batch first.
    """
    record = registered_layer(layer)
    if record is not None:
        return None if record.macs is None else record.macs(layer, inputs, outputs)
    base = class_of_keras(layer)
    kind = "" if base is None else base.__name__
    if kind == "StackedRNNCells":
        return _stacked(layer, inputs)
    if kind == "ConvLSTMCell":
        places = outputs[2:] if layer.data_format == "channels_first" else outputs[1:-1]
        return times(product(places), _kernels(layer))
    return _kernels(layer) if kind in ("SimpleRNNCell", "LSTMCell", "GRUCell") else None


def _stacked(layer: Any, inputs: Shape) -> int | None:
    counts, shape = [], inputs
    for each in layer.cells:
        outputs = (shape[0], getattr(each, "output_size", None))
        counts.append(cell_macs(each, shape, outputs))
        shape = outputs
    return total(counts)


def _kernels(layer: Any) -> int | None:
    return total([product(layer.kernel.shape), product(layer.recurrent_kernel.shape)])


def _step_output(call: Call) -> Shape:
    shape = call.outputs[0].shape
    return (shape[0], *shape[2:]) if call.operation.return_sequences else shape
