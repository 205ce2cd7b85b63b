"""What a plan of patches costs, before it is written."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from tfnas.tflite.flatbuffer import FileGraph, OperatorInfo, TensorInfo
from tfnas.tflite.operator_macs import operator_macs
from tfnas.tflite.patches.patch_plan import Key, PatchPlan

_BYTES = {"int64": 8, "float32": 4, "int32": 4, "float16": 2, "int16": 2}
_ALIGNED = 16  # bytes: TFLite Micro aligns tensors
_RECORD = 128  # bytes of an operator and its tensors, on a processor of 32 bits
_CONVOLUTIONS = ("CONV_2D", "DEPTHWISE_CONV_2D")


def operators_macs(graph: FileGraph) -> list[int]:
    """Returns the multiply-accumulates of each operator, of one example.

    Args:
        graph: A file's graph; sizes that can't be counted count as 0.
    """
    shapes = {tensor.index: tensor.shape for tensor in graph.tensors}
    return [operator_macs(op, graph, shapes, [graph]) or 0 for op in graph.operators]


def plan_macs(graph: FileGraph, plan: PatchPlan, each: Sequence[int]) -> int:
    """Returns the multiply-accumulates of a plan and of the operators after it.

    Args:
        graph: The file's graph.
        plan: The plan.
        each: Those of the file's operators (:func:`operators_macs`).
    """
    total = sum(each[plan.last + 1 :])
    for op in plan.operators:
        if op.source is not None:
            height, width = graph.operators[op.source].outputs[0].shape[1:3]
            total += each[op.source] * math.prod(op.size) // (height * width)
    return total


def record_bytes(graph: FileGraph, plan: PatchPlan) -> tuple[int, int]:
    """Returns about how many bytes TFLite Micro's records of a stage take, without and in patches.

    Each operator has a record of its own, and each convolution two numbers for each channel.

    Args:
        graph: The file's graph.
        plan: The plan of the stage's patches.
    """
    stage = _stage_records(graph, plan.last)
    made = [
        _record(None if op.source is None else graph.operators[op.source], graph.tensors[op.like])
        for op in plan.operators
    ]
    return sum(stage), sum(made)


def least_records(graph: FileGraph, last: int, patches: int) -> int:
    """Returns a bound of the bytes of records that patches of a stage add, before a plan is made.

    Args:
        graph: The file's graph.
        last: Place of the stage's last operator.
        patches: Number of patches.
    """
    each = _stage_records(graph, last)
    names = (op.name for op in graph.operators)
    kept = sum(size for size, name in zip(each, names, strict=False) if name != "PAD")
    return max(patches * kept - sum(each), 0)


def _stage_records(graph: FileGraph, last: int) -> list[int]:
    return [_record(op, op.outputs[0]) for op in graph.operators[: last + 1]]


def _record(op: OperatorInfo | None, output: TensorInfo) -> int:
    convolves = op is not None and op.name in _CONVOLUTIONS
    return _RECORD + (8 * output.shape[-1] if convolves else 0)


def peak_bytes(graph: FileGraph, plan: PatchPlan | None = None) -> int:
    """Returns the most bytes of activations that are alive at once, for a batch of 1.

    Args:
        graph: The file's graph.
        plan: The plan that its first operators are replaced by; None: the file as it is.
    """
    steps: list[_Step] = []
    sizes = _sizes(graph)
    done = 0
    if plan is not None:
        done = plan.last + 1
        for op in plan.operators:
            like = graph.tensors[op.like]
            sizes[op.output] = _bytes(like, (1, *op.size, like.shape[-1]))
            steps.append((op.inputs, op.output))
    for place in range(done, len(graph.operators)):
        steps += _steps(graph, place)
    return max(_alive(steps, sizes, graph), default=0)


def stage_bounds(graph: FileGraph, ends: Iterable[int]) -> dict[int, int]:
    """Returns bytes that no patches of a stage can do without, by the stage's last operator.

    They are known before a plan is made: the file's input with a third of the stage's output,
    since the last patch still reads the input; the stage's output twice, when patches are joined;
    and what the later operators need.

    Args:
        graph: The file's graph.
        ends: Places of the stages' last operators.
    """
    steps: list[_Step] = []
    places = []
    for place in range(len(graph.operators)):
        of_operator = _steps(graph, place)
        steps += of_operator
        places += [place] * len(of_operator)
    sizes = _sizes(graph)
    alive = _alive(steps, sizes, graph)
    inputs = sum(sizes["file", tensor.index] for tensor in graph.inputs)
    bounds = {}
    for end in ends:
        output = sizes["file", graph.operators[end].outputs[0].index]
        later = (count for place, count in zip(places, alive, strict=True) if place > end)
        bounds[end] = max(inputs + output // 3, 2 * output, max(later, default=0))
    return bounds


_Step = tuple[Sequence[Key], Key]  # what an operator reads, and what it writes


def _steps(graph: FileGraph, place: int) -> list[_Step]:
    op = graph.operators[place]
    inputs = [("file", t.index) for t in op.inputs if t.constant is None]
    return [(inputs, ("file", t.index)) for t in op.outputs]


def _sizes(graph: FileGraph) -> dict[Key, int]:
    return {("file", t.index): _bytes(t, t.shape) for t in graph.tensors}


def _alive(steps: Sequence[_Step], sizes: dict[Key, int], graph: FileGraph) -> list[int]:
    """Bytes that are alive in each step."""
    last: dict[Key, int] = {}
    for number, (inputs, output) in enumerate(steps):
        last.update(dict.fromkeys((*inputs, output), number))
    last.update({("file", t.index): len(steps) for t in graph.outputs})
    alive = {("file", t.index) for t in graph.inputs}
    found = []
    for number, (_, output) in enumerate(steps):
        alive.add(output)
        found.append(sum(sizes[key] for key in alive))
        alive = {key for key in alive if last.get(key, number) > number}
    return found


def _bytes(tensor: TensorInfo, shape: Sequence[int]) -> int:
    size = math.prod(abs(n) for n in shape) * _BYTES.get(tensor.dtype, 1)
    return -(-size // _ALIGNED) * _ALIGNED
