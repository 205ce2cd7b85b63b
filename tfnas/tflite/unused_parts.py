"""Removes what a file holds and nothing reads, after operators were replaced."""

from __future__ import annotations

from typing import Any

import numpy as np

from tfnas.tflite.flatbuffer import integers


def remove_unused(model: Any) -> None:
    """Removes operators, tensors, kinds of operators and constants that nothing reads, in place.

    Args:
        model: The objects of a file, of :func:`tfnas.tflite.flatbuffer.unpack`.
    """
    for number, graph in enumerate(model.subgraphs):
        _remove_operators(graph)
        signatures = [s for s in model.signatureDefs or () if s.subgraphIndex == number]
        _remove_tensors(graph, signatures)
    operators = [op for graph in model.subgraphs for op in graph.operators]
    used = sorted({op.opcodeIndex for op in operators})
    places = {index: place for place, index in enumerate(used)}
    model.operatorCodes = [model.operatorCodes[index] for index in used]
    for op in operators:
        op.opcodeIndex = places[op.opcodeIndex]
    read = {tensor.buffer for graph in model.subgraphs for tensor in graph.tensors}
    read |= {entry.buffer for entry in model.metadata or ()}
    for index, buffer in enumerate(model.buffers):
        if index not in read:
            buffer.data = None


def _remove_operators(graph: Any) -> None:
    while True:
        read = {index for op in graph.operators for index in integers(op.inputs)}
        read |= set(integers(graph.outputs))
        outputs = [set(integers(op.outputs)) for op in graph.operators]
        pairs = zip(graph.operators, outputs, strict=True)
        kept = [op for op, own in pairs if read & own or not own]
        if len(kept) == len(graph.operators):
            return
        graph.operators = kept


def _remove_tensors(graph: Any, signatures: list[Any]) -> None:
    ends = [entry for s in signatures for entry in (*(s.inputs or ()), *(s.outputs or ()))]
    used = {*integers(graph.inputs), *integers(graph.outputs)}
    used |= {entry.tensorIndex for entry in ends}
    for op in graph.operators:
        used |= {*integers(op.inputs), *integers(op.outputs), *integers(op.intermediates)}
    kept = sorted(int(index) for index in used if index >= 0)
    places = {index: place for place, index in enumerate(kept)} | {-1: -1}
    graph.tensors = [graph.tensors[index] for index in kept]

    def moved(indices: Any) -> Any:
        return np.array([places[index] for index in integers(indices)], np.int32)

    graph.inputs, graph.outputs = moved(graph.inputs), moved(graph.outputs)
    for op in graph.operators:
        op.inputs, op.outputs = moved(op.inputs), moved(op.outputs)
        if op.intermediates is not None and len(op.intermediates):
            op.intermediates = moved(op.intermediates)
    for entry in ends:
        entry.tensorIndex = places[int(entry.tensorIndex)]
