"""Operators that compute, in forms of at most four axes; as in :mod:`.movement_rules`."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tfnas.tflite.flatbuffer import OperatorInfo
from tfnas.tflite.gpu_forms.graph_rewriter import (
    GraphRewriter,
    NotRewritable,
    number_count,
    numbers_of,
    output_of,
)
from tfnas.tflite.gpu_forms.merged_axes import MOST, Shape, aligned, grouped, sizes_of
from tfnas.tflite.gpu_forms.movement_rules import tiled_to


def elementwise(graph: GraphRewriter, info: OperatorInfo, op: schema.OperatorT) -> None:
    """Computes each number from those at its place, with broadcasting."""
    output = output_of(info)
    rank = len(output.shape)
    inputs = [x.index for x in info.inputs]
    sizes = [aligned(x.shape, rank) for x in info.inputs]
    for place in _to_be_tiled(graph, info, sizes):
        inputs[place] = tiled_to(graph, inputs[place], sizes[place], output.shape)
        sizes[place] = output.shape
    marks: list[Hashable] = [
        None if output.shape[axis] == 1 else tuple(each[axis] == 1 for each in sizes)
        for axis in range(rank)
    ]
    groups = grouped(marks)
    if groups is None:
        raise NotRewritable
    views = [
        index
        if number_count(each) == 1 and len(graph.shape(index)) <= MOST
        else graph.view(index, sizes_of(each, groups))
        for index, each in zip(inputs, sizes, strict=True)
    ]
    result = graph.like(output.index, sizes_of(output.shape, groups))
    graph.copied(op, views, [result])
    graph.reshaped(result, output.index)


def _to_be_tiled(graph: GraphRewriter, info: OperatorInfo, sizes: Sequence[Shape]) -> list[int]:
    """Operands that the operator does not broadcast itself.

    A product whose operands are each smaller in some axis, and the choices of SELECT.
    """
    shape = info.outputs[0].shape
    smaller = [number_count(each) not in (1, number_count(shape)) for each in sizes]
    computed = [graph.info.constant_behind(x) is None for x in info.inputs]
    if info.name.startswith("SELECT"):
        found = [place for place in range(1, len(sizes)) if smaller[place]]
    elif info.name == "MUL" and all(smaller):
        found = [0 if computed[0] else 1]
    else:
        found = []
    if not all(computed[place] for place in found):
        raise NotRewritable  # the delegate repeats no constants
    return found


def reduce(graph: GraphRewriter, info: OperatorInfo, op: schema.OperatorT) -> None:
    """MEAN, SUM and others over some of at most four axes."""
    x, output = info.inputs[0], output_of(info)
    axes = {axis % len(x.shape) for axis in numbers_of(info.inputs[1])}
    marks: list[Hashable] = [
        None if size == 1 else axis in axes for axis, size in enumerate(x.shape)
    ]
    groups = grouped(marks)
    if groups is None:
        raise NotRewritable
    sizes, first = sizes_of(x.shape, groups), MOST - len(groups)
    reduced = [first + place for place, group in enumerate(groups) if group[0] in axes]
    left = [1 if axis in reduced else size for axis, size in enumerate(sizes)]
    result = graph.like(output.index, left)
    numbers = graph.writer.numbers(reduced, "axes")
    graph.copied(op, [graph.view(x.index, sizes), numbers], [result], keepDims=True)
    graph.reshaped(result, output.index)


def last_axis(graph: GraphRewriter, info: OperatorInfo, op: schema.OperatorT) -> None:
    """SOFTMAX over the last axis."""
    x, output = info.inputs[0], output_of(info)
    sizes = _rows(x.shape)
    result = graph.like(output.index, sizes)
    graph.copied(op, [graph.view(x.index, sizes)], [result])
    graph.reshaped(result, output.index)


def fully_connected(graph: GraphRewriter, info: OperatorInfo, op: schema.OperatorT) -> None:
    """FULLY_CONNECTED of rows."""
    x, output = info.inputs[0], output_of(info)
    sizes = _rows(output.shape)
    result = graph.like(output.index, sizes)
    view = graph.view(x.index, (*sizes[:-1], number_count(x.shape) // number_count(sizes[:-1])))
    others = [int(index) for index in op.inputs[1:]]
    graph.copied(op, [view, *others], [result], keepNumDims=True)
    graph.reshaped(result, output.index)


def batch_matmul(graph: GraphRewriter, info: OperatorInfo, op: schema.OperatorT) -> None:
    """BATCH_MATMUL of at most two axes of matrices."""
    output = output_of(info)
    rank = len(output.shape)
    sizes = [aligned(x.shape, rank) for x in info.inputs]
    marks: list[Hashable] = [
        None if output.shape[axis] == 1 else tuple(each[axis] == 1 for each in sizes)
        for axis in range(rank - 2)
    ]
    groups = grouped(marks, MOST - 2)
    if groups is None:
        raise NotRewritable

    def small(shape: Shape) -> Shape:
        return (*sizes_of(shape, groups)[-(MOST - 2) :], *shape[-2:])

    views = [graph.view(x.index, small(each)) for x, each in zip(info.inputs, sizes, strict=True)]
    result = graph.like(output.index, small(output.shape))
    graph.copied(op, views, [result])
    graph.reshaped(result, output.index)


def depthwise(graph: GraphRewriter, info: OperatorInfo, op: schema.OperatorT) -> None:
    """A depthwise convolution whose input has each channel as often as it is read."""
    x, multiplier = info.inputs[0], int(op.builtinOptions.depthMultiplier)
    if len(x.shape) != MOST:
        raise NotRewritable
    row = graph.writer.numbers(np.repeat(np.arange(x.shape[3]), multiplier), "channels")
    repeated = graph.like(x.index, (*x.shape[:3], x.shape[3] * multiplier))
    graph.writer.operator("GATHER", [x.index, row], [repeated], axis=3)
    others = [int(index) for index in op.inputs[1:]]
    graph.copied(op, [repeated, *others], [output_of(info).index], depthMultiplier=1)


def log_softmax(graph: GraphRewriter, info: OperatorInfo, op: schema.OperatorT) -> None:
    """x - max(x) - log(sum(exp(x - max(x)))), as the kernel computes it."""
    x, output = info.inputs[0], output_of(info)
    if x.dtype != "float32":
        raise NotRewritable
    rows = _rows(x.shape)
    view, single = graph.view(x.index, rows), (*rows[:-1], 1)
    axes = graph.writer.numbers([MOST - 1], "axes")

    def added(name: str, inputs: list[int], shape: Shape) -> int:
        made = graph.like(view, shape)
        options = {"keepDims": True} if axes in inputs else {}
        graph.writer.operator(name, inputs, [made], **options)
        return made

    below = added("SUB", [view, added("REDUCE_MAX", [view, axes], single)], rows)
    total = added("SUM", [added("EXP", [below], rows), axes], single)
    result = added("SUB", [below, added("LOG", [total], single)], rows)
    graph.reshaped(result, output.index)


def _rows(shape: Shape) -> Shape:
    """The shape of the same numbers in as many rows of the last axis."""
    return (1, 1, number_count(shape[:-1]), shape[-1])
