"""The operators of a patch-based file, before it is written.

The image that a stage of operators ends with is cut into patches. For each patch each operator of
the stage computes what the patch needs of its output, so neighbors compute their borders twice.
Where an operator pads, its patch is padded where it touches the image's border, and not elsewhere.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any

from tfnas.tflite.flatbuffer import FileGraph, OperatorInfo
from tfnas.tflite.patches.windows import NotLocal, Pads, Region, Span, Window, windows

Key = tuple[Any, ...]  # a tensor: ("file", index), or a part of it in a patch
_Step = tuple[OperatorInfo, tuple[Window, Window]]  # an operator of the stage, and what it reads


@dataclasses.dataclass(frozen=True)
class PatchOperator:
    """An operator of the new file.

    Args:
        name: TFLite's name of it; of an operator of the file, "".
        source: Place of the operator in the file; None: it is new.
        inputs: Its inputs that are no constants.
        output: Its output.
        like: Index of the tensor in the file that the output has type and scale of.
        size: Rows and columns of the output.
        begin: Of a SLICE: the first row and column.
        pads: Of a PAD: rows and columns before and after.
        axis: Of a CONCATENATION.
    """

    name: str
    source: int | None
    inputs: tuple[Key, ...]
    output: Key
    like: int
    size: tuple[int, int]
    begin: tuple[int, int] = (0, 0)
    pads: Pads = ((0, 0), (0, 0))
    axis: int = 0


@dataclasses.dataclass(frozen=True)
class PatchPlan:
    """The operators that replace a stage.

    Args:
        last: Place of the last operator of the stage in the file.
        rows: Patches one below the other.
        columns: Patches side by side.
        operators: The new operators, in the order of execution.
    """

    last: int
    rows: int
    columns: int
    operators: tuple[PatchOperator, ...]


def stages(graph: FileGraph) -> list[int]:
    """Returns the places of operators that a stage of patches may end with.

    Args:
        graph: A file's graph of one input.

    Raises:
        NotLocal: There is none; the message names the operator in the way.
    """
    found: list[int] = []
    reason = "the file has no operator"
    readers: dict[int, int] = {}
    for place, op in enumerate(graph.operators):
        readers.update({tensor.index: place for tensor in op.inputs})
    ends = {tensor.index for tensor in graph.outputs}
    open_until = max((readers.get(t.index, 0) for t in graph.inputs), default=0)
    for place, op in enumerate(graph.operators):
        try:
            windows(op)
        except NotLocal as error:
            reason = str(error)
            break
        output = op.outputs[0]
        # Later operators may read the stage's last output alone.
        if place >= open_until and output.index not in ends:
            found.append(place)
        open_until = max(open_until, readers.get(output.index, place))
    if not found:
        raise NotLocal(reason)
    return found


def plan(graph: FileGraph, last: int, rows: int, columns: int) -> PatchPlan:
    """Returns the operators that compute a stage in patches.

    Args:
        graph: The file's graph.
        last: Place of the stage's last operator, one of :func:`stages`.
        rows: Patches one below the other.
        columns: Patches side by side.

    Raises:
        NotLocal: There are more patches than rows or columns.
    """
    stage = [(op, windows(op)) for op in graph.operators[: last + 1]]
    end = stage[-1][0].outputs[0]
    height, width = end.shape[1:3]
    if rows > height or columns > width:
        raise NotLocal(f"{rows} x {columns} patches of an image of {height}x{width}")
    operators: list[PatchOperator] = []
    strips: list[Key] = []
    for row, across in enumerate(_parts(height, rows)):
        patches = []
        for column, along in enumerate(_parts(width, columns)):
            patches.append(_patch(operators, stage, (across, along), (row, column)))
        strips.append(patches[0])
        if columns > 1:
            strips[-1] = ("strip", row)
            size = (across.length, width)
            joined = PatchOperator(
                "CONCATENATION", None, tuple(patches), strips[-1], end.index, size, axis=2
            )
            operators.append(joined)
    whole: Key = ("file", end.index)
    if rows > 1:
        joined = PatchOperator(
            "CONCATENATION", None, tuple(strips), whole, end.index, (height, width), axis=1
        )
        operators.append(joined)
    else:
        operators[-1] = dataclasses.replace(operators[-1], output=whole)
    return PatchPlan(last, rows, columns, tuple(operators))


def _parts(length: int, count: int) -> list[Span]:
    edges = [round(length * n / count) for n in range(count + 1)]
    return [Span(*pair) for pair in itertools.pairwise(edges)]


def _patch(
    operators: list[PatchOperator],
    stage: Sequence[_Step],
    region: Region,
    patch: tuple[int, int],
) -> Key:
    """Adds the operators of one patch, and returns its output."""
    needed = _needed(stage, region)
    made: dict[int, Key] = {}
    for place, (op, fields) in enumerate(stage):
        output = op.outputs[0].index
        if output not in needed:
            continue
        part = needed[output]
        wanted, pads = _input_region(fields, part)
        inputs = []
        for number, tensor in enumerate(op.inputs):
            if tensor.constant is not None:
                continue
            key = made.get(tensor.index, ("file", tensor.index))
            held = needed[tensor.index] if tensor.index in made else _whole(tensor.shape)
            name: Key = (*patch, place, number)
            if wanted != held:
                begin = (wanted[0].start - held[0].start, wanted[1].start - held[1].start)
                size = (wanted[0].length, wanted[1].length)
                cut = PatchOperator(
                    "SLICE", None, (key,), ("slice", *name), tensor.index, size, begin=begin
                )
                operators.append(cut)
                key = cut.output
            if pads != ((0, 0), (0, 0)):
                size = tuple(  # type: ignore[assignment]
                    span.length + sum(pad) for span, pad in zip(wanted, pads, strict=True)
                )
                padded = PatchOperator(
                    "PAD", None, (key,), ("pad", *name), tensor.index, size, pads=pads
                )
                operators.append(padded)
                key = padded.output
            inputs.append(key)
        if op.name == "PAD":
            made[output] = inputs[0]
            continue
        made[output] = ("part", *patch, output)
        size = (part[0].length, part[1].length)
        operators.append(PatchOperator("", place, tuple(inputs), made[output], output, size))
    return made[stage[-1][0].outputs[0].index]


def _needed(stage: Sequence[_Step], region: Region) -> dict[int, Region]:
    """The region of each tensor that a region of the stage's output needs."""
    needed = {stage[-1][0].outputs[0].index: region}
    for op, fields in reversed(stage):
        part = needed.get(op.outputs[0].index)
        if part is None:
            continue
        wanted, _ = _input_region(fields, part)
        for tensor in op.inputs:
            if tensor.constant is None:
                before = needed.get(tensor.index, wanted)
                needed[tensor.index] = (before[0].with_(wanted[0]), before[1].with_(wanted[1]))
    return needed


def _input_region(fields: tuple[Window, Window], output: Region) -> tuple[Region, Pads]:
    rows, columns = fields
    across, above = rows.needs(output[0])
    along, beside = columns.needs(output[1])
    return (across, along), (above, beside)


def _whole(shape: tuple[int, ...]) -> Region:
    return Span(0, shape[1]), Span(0, shape[2])
