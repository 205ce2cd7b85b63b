"""Multiply-accumulates of the operators of a `.tflite` file, by the shapes of their tensors.

As of layers (:mod:`tfnas.graph.macs`): one multiplication with its addition, in convolutions,
products of matrices and recurrent operators; elementwise products, pooling, interpolation,
normalization and activations are 0. What can't be counted is None, never 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np

from tfnas.graph.known_sizes import times, total
from tfnas.tflite.flatbuffer import FileGraph, OperatorInfo, TensorInfo

# Index of a tensor -> its shape; a tensor that is not among them has unknown sizes.
Shapes = Mapping[int, tuple[int, ...]]


def operator_macs(
    operator: OperatorInfo, graph: FileGraph, shapes: Shapes, graphs: list[FileGraph]
) -> int | None:
    """Returns the multiply-accumulates of one run of an operator; None where they are unknown.

    Args:
        operator: The operator.
        graph: The graph that it is in.
        shapes: The shapes of the graph's tensors.
        graphs: All graphs of the file, for loops and branches.
    """
    if operator.custom or operator.name in _UNCOUNTED:
        return None
    if operator.name in ("WHILE", "IF", "CALL"):
        return _of_graphs(operator, graph, graphs)
    counter = _COUNTERS.get(operator.name)
    if counter is None:
        return 0
    try:
        return counter(operator, graph, shapes)
    except KeyError:  # a tensor of unknown sizes
        return None


def known_shapes(graph: FileGraph) -> dict[int, tuple[int, ...]]:
    """Returns the shapes of a graph's tensors as the file has them, without those left open.

    Args:
        graph: The graph.
    """
    return {t.index: t.shape for t in graph.tensors if -1 not in t.signature}


def graph_macs(graph: FileGraph, graphs: list[FileGraph]) -> int | None:
    """Returns the multiply-accumulates of one run of a graph; None where they are unknown.

    Args:
        graph: The graph.
        graphs: All graphs of the file.
    """
    shapes = known_shapes(graph)
    return total([operator_macs(each, graph, shapes, graphs) for each in graph.operators])


def _of_graphs(operator: OperatorInfo, graph: FileGraph, graphs: list[FileGraph]) -> int | None:
    """A loop runs its body once for each step; a branch and a call are counted where they are 0."""
    options = operator.options
    if operator.name == "WHILE":
        cond, body = graphs[options.condSubgraphIndex], graphs[options.bodySubgraphIndex]  # type: ignore[attr-defined]
        steps = trip_count(operator, graph, cond, body)
        each = total([graph_macs(body, graphs), graph_macs(cond, graphs)])
        return 0 if each == 0 else times(steps, each)
    if operator.name == "CALL":
        return graph_macs(graphs[options.subgraph], graphs)  # type: ignore[attr-defined]
    branches = options.thenSubgraphIndex, options.elseSubgraphIndex  # type: ignore[attr-defined]
    counts = {graph_macs(graphs[index], graphs) for index in branches}
    return counts.pop() if len(counts) == 1 else None  # which one runs is not known


def trip_count(
    operator: OperatorInfo, graph: FileGraph, cond: FileGraph, body: FileGraph
) -> int | None:
    """Returns how often the body of a loop runs; None where the file does not say.

    It does where the condition is that counters are below constants, and each counter starts at a
    constant and grows by one.

    Args:
        operator: The WHILE operator.
        graph: The graph that it is in.
        cond: Its condition.
        body: Its body.
    """
    limits = []
    places = [tensor.index for tensor in cond.inputs]
    for each in cond.operators:
        if each.name == "LOGICAL_AND":
            continue
        if each.name != "LESS":
            return None
        counter, limit = each.inputs
        if counter.index not in places:
            return None
        place = places.index(counter.index)
        last, first = _number(limit), _number(graph.constant_behind(operator.inputs[place]))
        if last is None and limit.index in places:  # the limit is carried through the loop
            last = _number(graph.constant_behind(operator.inputs[places.index(limit.index)]))
        if last is None or first is None or _growth(body, place) != 1:
            return None
        limits.append(max(0, last - first))
    return min(limits, default=None)


def _growth(body: FileGraph, place: int) -> int | None:
    """By how much a counter grows in the body of a loop."""
    for each in body.operators:
        if each.name == "ADD" and each.outputs[0].index == body.outputs[place].index:
            own = body.inputs[place].index
            others = [tensor for tensor in each.inputs if tensor.index != own]
            return _number(others[0]) if len(others) == 1 else None
    return None


def _number(tensor: TensorInfo | None) -> int | None:
    """The one integer that a constant holds."""
    if tensor is None or tensor.constant is None or tensor.dtype not in ("int32", "int64"):
        return None
    values = np.frombuffer(tensor.constant, np.dtype(tensor.dtype))
    return int(values[0]) if values.size == 1 else None


def _convolution(operator: OperatorInfo, graph: FileGraph, shapes: Shapes) -> int:
    kernel = operator.inputs[1].shape  # (filters, height, width, channels of a group)
    return math.prod(shapes[operator.outputs[0].index]) * math.prod(kernel[1:])


def _depthwise(operator: OperatorInfo, graph: FileGraph, shapes: Shapes) -> int:
    kernel = operator.inputs[1].shape  # (1, height, width, channels)
    return math.prod(shapes[operator.outputs[0].index]) * math.prod(kernel[1:3])


def _volume(operator: OperatorInfo, graph: FileGraph, shapes: Shapes) -> int:
    kernel = operator.inputs[1].shape  # (depth, height, width, channels, filters)
    return math.prod(shapes[operator.outputs[0].index][:-1]) * math.prod(kernel)


def _transposed(operator: OperatorInfo, graph: FileGraph, shapes: Shapes) -> int:
    kernel, given = operator.inputs[1].shape, shapes[operator.inputs[2].index]
    return math.prod(given[:-1]) * math.prod(kernel)


def _dense(operator: OperatorInfo, graph: FileGraph, shapes: Shapes) -> int:
    kernel = operator.inputs[1].shape  # (outputs, inputs)
    return math.prod(shapes[operator.outputs[0].index]) * kernel[-1]


def _batch_matmul(operator: OperatorInfo, graph: FileGraph, shapes: Shapes) -> int:
    turned = bool(getattr(operator.options, "adjX", False))
    summed = shapes[operator.inputs[0].index][-2 if turned else -1]
    return math.prod(shapes[operator.outputs[0].index]) * summed


def _sequence(operator: OperatorInfo, graph: FileGraph, shapes: Shapes) -> int:
    """All matrices of the cell, at each step of each example."""
    return math.prod(shapes[operator.inputs[0].index][:-1]) * _matrices(operator, graph)


def _step(operator: OperatorInfo, graph: FileGraph, shapes: Shapes) -> int:
    return shapes[operator.inputs[0].index][0] * _matrices(operator, graph)


def _matrices(operator: OperatorInfo, graph: FileGraph) -> int:
    weights = (graph.constant_behind(tensor) for tensor in operator.inputs[1:])
    return sum(math.prod(w.shape) for w in weights if w is not None and len(w.shape) == 2)


_COUNTERS: dict[str, Callable[[OperatorInfo, FileGraph, Shapes], int]] = {
    "BATCH_MATMUL": _batch_matmul,
    "BIDIRECTIONAL_SEQUENCE_LSTM": _sequence,
    "BIDIRECTIONAL_SEQUENCE_RNN": _sequence,
    "CONV_2D": _convolution,
    "CONV_3D": _volume,
    "CONV_3D_TRANSPOSE": _transposed,
    "DEPTHWISE_CONV_2D": _depthwise,
    "FULLY_CONNECTED": _dense,
    "LSTM": _step,
    "RNN": _step,
    "SVDF": _step,
    "TRANSPOSE_CONV": _transposed,
    "UNIDIRECTIONAL_SEQUENCE_LSTM": _sequence,
    "UNIDIRECTIONAL_SEQUENCE_RNN": _sequence,
}
_UNCOUNTED = frozenset(
    {
        "CONCAT_EMBEDDINGS",
        "CUSTOM",
        "DELEGATE",
        "EMBEDDING_LOOKUP_SPARSE",
        "RFFT2D",
        "STABLEHLO_COMPOSITE",
        "STABLEHLO_CONVOLUTION",
        "STABLEHLO_CUSTOM_CALL",
        "STABLEHLO_DOT_GENERAL",
        "STABLEHLO_WHILE",
    }
)
