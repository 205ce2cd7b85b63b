"""Operators that move numbers, in forms of at most four axes.

A rule takes the rewriter, the operator as a record and as an object of the schema, and adds other
operators. It raises :class:`NotRewritable` where there is no other form.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tfnas.tflite.flatbuffer import OperatorInfo, TensorInfo
from tfnas.tflite.gpu_forms.graph_rewriter import (
    GraphRewriter,
    NotRewritable,
    number_count,
    numbers_of,
    output_of,
)
from tfnas.tflite.gpu_forms.merged_axes import MOST, Group, Shape, aligned, grouped, sizes_of


def transpose(graph: GraphRewriter, info: OperatorInfo, op: schema.OperatorT) -> None:
    """Changes places of two blocks at a time, each in four axes."""
    x, output = info.inputs[0], output_of(info)
    moved = graph.transposed(x.index, x.shape, numbers_of(info.inputs[1]))
    graph.reshaped(moved, output.index)


def reshape(graph: GraphRewriter, info: OperatorInfo, op: schema.OperatorT) -> None:
    """EXPAND_DIMS and SQUEEZE: a reshape."""
    graph.reshaped(info.inputs[0].index, output_of(info).index)


def tile(graph: GraphRewriter, info: OperatorInfo, op: schema.OperatorT) -> None:
    """TILE and BROADCAST_TO: a TILE of at most four axes."""
    x, output = info.inputs[0], output_of(info)
    sizes = aligned(x.shape, len(output.shape))
    tiled = tiled_to(graph, x.index, sizes, output.shape)
    graph.reshaped(tiled, output.index)


def tiled_to(graph: GraphRewriter, index: int, sizes: Shape, wanted: Shape) -> int:
    """Returns a tensor whose axes are repeated until they have other sizes.

    Args:
        graph: The rewriter.
        index: The tensor.
        sizes: Its shape, with as many axes as `wanted`.
        wanted: The other sizes.

    Raises:
        NotRewritable: More than four axes are left.
    """
    marks: list[Hashable] = []
    for axis, (before, after) in enumerate(zip(sizes, wanted, strict=True)):
        if not before or after % before:
            raise NotRewritable
        repeated: Hashable = "new" if before == 1 else ("repeated", axis)
        marks.append(None if after == 1 else "kept" if before == after else repeated)
    groups = _groups(marks)
    small, large = sizes_of(sizes, groups), sizes_of(wanted, groups)
    multiples = [b // a for a, b in zip(small, large, strict=True)]
    return graph.tiled(graph.view(index, small), multiples)


def concatenate(graph: GraphRewriter, info: OperatorInfo, op: schema.OperatorT) -> None:
    """CONCATENATION along one of at most four axes."""
    output = output_of(info)
    axis = _option(op, "axis") % len(output.shape)
    groups, place = _around(output.shape, axis)
    views = [graph.view(x.index, sizes_of(x.shape, groups)) for x in info.inputs]
    joined = graph.like(output.index, sizes_of(output.shape, groups))
    graph.copied(op, views, [joined], axis=place)
    graph.reshaped(joined, output.index)


def pack(graph: GraphRewriter, info: OperatorInfo, op: schema.OperatorT) -> None:
    """PACK as a concatenation along the new axis."""
    output = output_of(info)
    axis = _option(op, "axis") % len(output.shape)
    groups, place = _around(output.shape, axis)
    each = [1 if n == axis else size for n, size in enumerate(output.shape)]
    views = [graph.view(x.index, sizes_of(each, groups)) for x in info.inputs]
    joined = graph.like(output.index, sizes_of(output.shape, groups))
    graph.writer.operator("CONCATENATION", views, [joined], axis=place)
    graph.reshaped(joined, output.index)


def unpack(graph: GraphRewriter, info: OperatorInfo, op: schema.OperatorT) -> None:
    """UNPACK as slices of one place each."""
    x = info.inputs[0]
    axis = _option(op, "axis") % len(x.shape)
    groups, place = _around(x.shape, axis)
    sizes = sizes_of(x.shape, groups)
    view = graph.view(x.index, sizes)
    for number, output in enumerate(info.outputs):
        begin = [number if n == place else 0 for n in range(MOST)]
        end = [number + 1 if n == place else size for n, size in enumerate(sizes)]
        graph.reshaped(_sliced(graph, view, begin, end, [1] * MOST), output.index)


def split(graph: GraphRewriter, info: OperatorInfo, op: schema.OperatorT) -> None:
    """SPLIT and SPLIT_V along one of at most four axes."""
    of_sizes = info.name == "SPLIT_V"
    x = info.inputs[0 if of_sizes else 1]
    (axis,) = numbers_of(info.inputs[2 if of_sizes else 0])
    axis %= len(x.shape)
    groups, place = _around(x.shape, axis)
    parts = [graph.like(each.index, sizes_of(each.shape, groups)) for each in info.outputs]
    view, number = (
        graph.view(x.index, sizes_of(x.shape, groups)),
        graph.writer.numbers(place, "axis"),
    )
    inputs = [view, info.inputs[1].index, number] if of_sizes else [number, view]
    graph.copied(op, inputs, parts)
    for part, output in zip(parts, info.outputs, strict=True):
        graph.reshaped(part, output.index)


def cut(graph: GraphRewriter, info: OperatorInfo, op: schema.OperatorT) -> None:
    """SLICE and STRIDED_SLICE without masks, of four axes."""
    x, output = info.inputs[0], output_of(info)
    ranges = _strided(info, op) if info.name == "STRIDED_SLICE" else _plain(info)
    whole = [range(size) for size in x.shape]
    marks: list[Hashable] = [
        None if size == 1 else "whole" if one == every else ("cut", axis)
        for axis, (size, one, every) in enumerate(zip(x.shape, ranges, whole, strict=True))
    ]
    groups = _groups(marks)
    sizes = sizes_of(x.shape, groups)
    kept = [range(1)] * (MOST - len(groups))
    for group in groups:
        alone = len(group) == 1
        kept.append(ranges[group[0]] if alone else range(number_count([x.shape[n] for n in group])))
    if any(not each or each.step < 1 for each in kept):
        raise NotRewritable
    begin, end = [each.start for each in kept], [each.stop for each in kept]
    steps = [each.step for each in kept]
    graph.reshaped(_sliced(graph, graph.view(x.index, sizes), begin, end, steps), output.index)


def _sliced(
    graph: GraphRewriter, view: int, begin: list[int], end: list[int], steps: list[int]
) -> int:
    sizes = [len(range(*each)) for each in zip(begin, end, steps, strict=True)]
    new = graph.like(view, sizes)
    numbers = [graph.writer.numbers(each, "slice") for each in (begin, end, steps)]
    graph.writer.operator("STRIDED_SLICE", [view, *numbers], [new])
    return new


def _plain(info: OperatorInfo) -> list[range]:
    begin, size = numbers_of(info.inputs[1]), numbers_of(info.inputs[2])
    return [
        range(first, whole if count == -1 else first + count)
        for first, count, whole in zip(begin, size, info.inputs[0].shape, strict=True)
    ]


def _strided(info: OperatorInfo, op: schema.OperatorT) -> list[range]:
    """The places of each axis that a STRIDED_SLICE keeps."""
    options, shape = op.builtinOptions, info.inputs[0].shape
    if options.ellipsisMask or options.offset:
        raise NotRewritable
    found: list[range] = []
    rows = zip(*(numbers_of(each) for each in info.inputs[1:4]), strict=True)
    for bit, (begin, end, step) in enumerate(rows):
        if options.newAxisMask >> bit & 1:
            continue
        size = shape[len(found)]
        if options.shrinkAxisMask >> bit & 1:
            found.append(range(begin % size, begin % size + 1))
            continue
        first = None if options.beginMask >> bit & 1 else begin
        last = None if options.endMask >> bit & 1 else end
        found.append(range(*slice(first, last, step).indices(size)))
    return [*found, *(range(size) for size in shape[len(found) :])]


def pad(graph: GraphRewriter, info: OperatorInfo, op: schema.OperatorT) -> None:
    """PAD, PADV2 and MIRROR_PAD of four axes."""
    x, output = info.inputs[0], output_of(info)
    pads = np.reshape(numbers_of(info.inputs[1]), (-1, 2)).tolist()
    marks: list[Hashable] = [
        ("padded", axis) if any(pads[axis]) else None if size == 1 else "kept"
        for axis, size in enumerate(x.shape)
    ]
    groups = _groups(marks)
    around = [[0, 0]] * (MOST - len(groups))
    around += [pads[group[0]] if len(group) == 1 else [0, 0] for group in groups]
    padded = graph.like(output.index, sizes_of(output.shape, groups))
    view = graph.view(x.index, sizes_of(x.shape, groups))
    others = [each.index for each in info.inputs[2:]]
    graph.copied(op, [view, graph.writer.numbers(around, "pads"), *others], [padded])
    graph.reshaped(padded, output.index)


def gather(graph: GraphRewriter, info: OperatorInfo, op: schema.OperatorT) -> None:
    """GATHER by a row of int32 places."""
    values, places = info.inputs
    if _option(op, "batchDims"):
        raise NotRewritable
    axis = _option(op, "axis") % len(values.shape)
    row = _row_of(graph, places)
    gathered(graph, values, axis, row, output_of(info))


def gathered(
    graph: GraphRewriter, values: TensorInfo, axis: int, row: int, output: TensorInfo
) -> None:
    """Adds a GATHER of places of an axis, whose result another tensor gets.

    Args:
        graph: The rewriter.
        values: What is gathered.
        axis: The axis.
        row: Index of the places.
        output: Gets the result.
    """
    sizes = values.shape
    if len(sizes) > MOST:
        before, behind = number_count(sizes[:axis]), number_count(sizes[axis + 1 :])
        sizes, axis = (1, before, sizes[axis], behind), 2
    view = graph.view(values.index, sizes)
    new = graph.like(output.index, (*sizes[:axis], *graph.shape(row), *sizes[axis + 1 :]))
    graph.writer.operator("GATHER", [view, row], [new], axis=axis)
    graph.reshaped(new, output.index)


def _row_of(graph: GraphRewriter, places: TensorInfo) -> int:
    count = number_count(places.shape)
    if places.constant is not None:
        return graph.writer.numbers(numbers_of(places), "places")
    if places.dtype != "int32":
        raise NotRewritable
    return graph.view(places.index, (count,))


def reverse(graph: GraphRewriter, info: OperatorInfo, op: schema.OperatorT) -> None:
    """REVERSE_V2 of one axis: a GATHER of its places from the last to the first."""
    x = info.inputs[0]
    axes = numbers_of(info.inputs[1])
    if len(axes) != 1 or x.dtype == "int32":
        raise NotRewritable
    axis = axes[0] % len(x.shape)
    row = graph.writer.numbers(range(x.shape[axis])[::-1], "places")
    gathered(graph, x, axis, row, output_of(info))


def _around(shape: Shape, axis: int) -> tuple[list[Group], int]:
    """Groups of axes with one alone, and its place among four."""
    marks: list[Hashable] = [
        "axis" if n == axis else None if size == 1 else "before" if n < axis else "behind"
        for n, size in enumerate(shape)
    ]
    groups = _groups(marks)
    return groups, MOST - len(groups) + groups.index((axis,))


def _groups(marks: Sequence[Hashable]) -> list[Group]:
    groups = grouped(marks)
    if groups is None:
        raise NotRewritable
    return groups


def _option(op: schema.OperatorT, name: str) -> int:
    return int(getattr(op.builtinOptions, name, 0) or 0)
