"""Tensors of many axes as tensors of at most four, whose numbers have the same order in memory.

A GPU's tensor has a batch, a height, a width and channels. What an operator does to more axes it
often does to adjacent ones alike: those become one axis. Axes of size 1 vanish. A permutation is a
row of changes of place of two neighboring blocks, each of which has four axes: what is before the
blocks, the blocks, what is behind them.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Hashable, Sequence

MOST = 4
Shape = tuple[int, ...]
Group = tuple[int, ...]


def grouped(marks: Sequence[Hashable], most: int = MOST) -> list[Group] | None:
    """Returns axes in groups of adjacent ones, as many groups as there may be.

    Example:
        >>> grouped(["kept", "kept", "summed", "kept", None, "kept"])
        [(0, 1), (2,), (3,), (5,)]
        >>> grouped(["a", "b", "a", "b", "a"]) is None
        True

    Args:
        marks: What is done to each axis: only neighbors of equal marks share a group. None: the
            axis is left out, since its size is 1.
        most: The largest number of groups.

    Returns:
        The groups, in order; None where there would be more.
    """
    groups: list[Group] = [(axis,) for axis, mark in enumerate(marks) if mark is not None]
    while len(groups) > most:
        for place, (one, other) in enumerate(itertools.pairwise(groups)):
            if marks[one[0]] == marks[other[0]]:
                groups[place : place + 2] = [one + other]
                break
        else:
            return None
    return groups


def sizes_of(shape: Sequence[int], groups: Sequence[Group]) -> Shape:
    """Returns the sizes of groups, as a shape of four axes that begins with as many 1 as needed.

    Example:
        >>> sizes_of((2, 1, 3, 5), [(0,), (2, 3)])
        (1, 1, 2, 15)

    Args:
        shape: The sizes of the axes.
        groups: At most four groups of them.
    """
    sizes = [math.prod(shape[axis] for axis in group) for group in groups]
    return (1,) * (MOST - len(sizes)) + tuple(sizes)


def aligned(shape: Sequence[int], rank: int) -> Shape:
    """Returns a shape with axes of size 1 in front, as broadcasting adds them.

    Example:
        >>> aligned((3, 4), 4)
        (1, 1, 3, 4)

    Args:
        shape: The shape.
        rank: The number of axes.
    """
    return (1,) * (rank - len(shape)) + tuple(shape)


def transpositions(shape: Sequence[int], order: Sequence[int]) -> list[tuple[Shape, Shape]]:
    """Returns a permutation of axes as a row of permutations of at most four axes.

    Before each, the numbers are reshaped.

    Example:
        >>> transpositions((1, 8, 8, 3, 4), (0, 1, 2, 4, 3))
        [((1, 64, 3, 4), (0, 1, 3, 2))]

    Args:
        shape: The sizes of the axes.
        order: For each new axis the old one.

    Returns:
        The shape and the order of each; none where no number moves.
    """
    sizes, left = _essential(shape, order)
    steps: list[tuple[Shape, Shape]] = []
    while list(left) != sorted(left):
        if len(left) <= MOST:
            added = MOST - len(left)
            full = (*range(added), *(added + axis for axis in left))
            return [*steps, ((1,) * added + tuple(sizes), full)]
        start = next(n for n, axis in enumerate(left) if axis != n)
        first = left[start]
        length = _run(left, start)
        blocks = (
            sizes[:start],
            sizes[start:first],
            sizes[first : first + length],
            sizes[first + length :],
        )
        steps.append((tuple(math.prod(block) for block in blocks), (0, 2, 1, 3)))
        moved = [*range(start), *range(first, first + length), *range(start, first)]
        moved += range(first + length, len(sizes))
        places = {axis: place for place, axis in enumerate(moved)}
        sizes, left = _essential([sizes[axis] for axis in moved], [places[axis] for axis in left])
    return steps


def _essential(shape: Sequence[int], order: Sequence[int]) -> tuple[list[int], list[int]]:
    """The permutation without axes of size 1, where axes that stay neighbors are one."""
    axes = [axis for axis in order if shape[axis] != 1]
    kept = sorted(axes)
    following = dict(itertools.pairwise(kept))
    groups: list[list[int]] = []
    for axis in axes:
        if groups and following.get(groups[-1][-1]) == axis:
            groups[-1].append(axis)
        else:
            groups.append([axis])
    by_place = sorted(groups)
    sizes = [math.prod(shape[axis] for axis in group) for group in by_place]
    return sizes, [by_place.index(group) for group in groups]


def _run(order: Sequence[int], start: int) -> int:
    """The number of axes from a place on that are neighbors before the permutation too."""
    length = 1
    while start + length < len(order) and order[start + length] == order[start] + length:
        length += 1
    return length
