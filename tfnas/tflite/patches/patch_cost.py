"""What a plan of patches costs, before it is written."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from tfnas.tflite.flatbuffer import FileGraph, TensorInfo
from tfnas.tflite.operator_macs import operator_macs
from tfnas.tflite.patches.patch_plan import Key, PatchPlan

_BYTES = {"int64": 8, "float32": 4, "int32": 4, "float16": 2, "int16": 2}
_ALIGNED = 16  # bytes: TFLite Micro aligns tensors
_RECORD = 128  # bytes of an operator and its tensors, on a processor of 32 bits
_CONVOLUTIONS = ("CONV_2D", "DEPTHWISE_CONV_2D")


def macs_of(graph: FileGraph) -> int:
    """Returns the multiply-accumulates of one example of a file.

    Args:
        graph: Its graph; sizes that can't be counted count as 0.
    """
    return sum(_macs(graph))


def plan_macs(graph: FileGraph, plan: PatchPlan) -> int:
    """Returns the multiply-accumulates of a plan and of the operators after it.

    Args:
        graph: The file's graph.
        plan: The plan.
    """
    each = _macs(graph)
    total = sum(each[plan.last + 1 :])
    for op in plan.operators:
        if op.source is not None:
            height, width = graph.operators[op.source].outputs[0].shape[1:3]
            total += each[op.source] * math.prod(op.size) // (height * width)
    return total


def record_bytes(graph: FileGraph, plan: PatchPlan) -> int:
    """Returns about how many bytes TFLite Micro's records of a plan's operators take.

    Each operator has a record of its own, and each convolution two numbers for each channel.

    Args:
        graph: The file's graph.
        plan: The plan.
    """
    total = 0
    for op in plan.operators:
        total += _RECORD
        if op.source is not None and graph.operators[op.source].name in _CONVOLUTIONS:
            total += 8 * graph.tensors[op.like].shape[-1]
    return total


def peak_bytes(graph: FileGraph, plan: PatchPlan | None = None) -> int:
    """Returns the most bytes of activations that are alive at once, for a batch of 1.

    Args:
        graph: The file's graph.
        plan: The plan that its first operators are replaced by; None: the file as it is.
    """
    steps: list[tuple[Sequence[Key], Key]] = []
    sizes: dict[Key, int] = {("file", t.index): _bytes(t, t.shape) for t in graph.tensors}
    done = 0
    if plan is not None:
        done = plan.last + 1
        for op in plan.operators:
            like = graph.tensors[op.like]
            sizes[op.output] = _bytes(like, (1, *op.size, like.shape[-1]))
            steps.append((op.inputs, op.output))
    for later in graph.operators[done:]:
        inputs = [("file", t.index) for t in later.inputs if t.constant is None]
        steps += [(inputs, ("file", t.index)) for t in later.outputs]
    return _peak(steps, sizes, [("file", t.index) for t in graph.outputs], graph)


def _peak(
    steps: Sequence[tuple[Sequence[Key], Key]],
    sizes: dict[Key, int],
    ends: Iterable[Key],
    graph: FileGraph,
) -> int:
    last: dict[Key, int] = {}
    for number, (inputs, output) in enumerate(steps):
        last.update(dict.fromkeys((*inputs, output), number))
    last.update({key: len(steps) for key in ends})
    alive = {("file", t.index) for t in graph.inputs}
    peak = 0
    for number, (_, output) in enumerate(steps):
        alive.add(output)
        peak = max(peak, sum(sizes[key] for key in alive))
        alive = {key for key in alive if last.get(key, number) > number}
    return peak


def _bytes(tensor: TensorInfo, shape: Sequence[int]) -> int:
    size = math.prod(abs(n) for n in shape) * _BYTES.get(tensor.dtype, 1)
    return -(-size // _ALIGNED) * _ALIGNED


def _macs(graph: FileGraph) -> list[int]:
    shapes = {tensor.index: tensor.shape for tensor in graph.tensors}
    return [operator_macs(op, graph, shapes, [graph]) or 0 for op in graph.operators]
