"""Tensors of many axes as tensors of four, against NumPy."""

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tfnas.tflite.gpu_forms.merged_axes import aligned, grouped, sizes_of, transpositions


@st.composite
def permutations(draw):
    shape = draw(st.lists(st.integers(1, 4), min_size=1, max_size=8))
    return tuple(shape), tuple(draw(st.permutations(range(len(shape)))))


@given(permutations())
def test_steps_of_four_axes_permute_as_numpy_does(permutation):
    shape, order = permutation
    numbers = np.arange(math.prod(shape)).reshape(shape)
    moved = numbers
    for sizes, axes in transpositions(shape, order):
        assert len(sizes) == 4
        moved = moved.reshape(sizes).transpose(axes)
    np.testing.assert_array_equal(
        moved.reshape(-1), numbers.transpose(order).reshape(-1), strict=True
    )


def test_common_permutations_are_one_step():
    windows = transpositions((1, 2, 4, 2, 4, 12), (0, 1, 3, 2, 4, 5))
    assert windows == [((2, 4, 2, 48), (0, 2, 1, 3))]
    heads = transpositions((1, 6, 3, 2, 8), (2, 0, 3, 1, 4))
    assert heads == [((1, 6, 6, 8), (0, 2, 1, 3))]
    assert transpositions((1, 5, 1, 3), (2, 1, 0, 3)) == []


@given(st.lists(st.sampled_from(["a", "b", None]), max_size=7), st.data())
def test_groups_hold_each_axis_that_counts_once_and_are_of_one_mark(marks, data):
    groups = grouped(marks)
    if groups is None:
        return
    assert [axis for group in groups for axis in group] == [
        axis for axis, mark in enumerate(marks) if mark is not None
    ]
    assert len(groups) <= 4
    assert all(len({marks[axis] for axis in group}) == 1 for group in groups)
    sizes = [data.draw(st.integers(2, 5)) if mark else 1 for mark in marks]
    assert math.prod(sizes_of(sizes, groups)) == math.prod(sizes)


def test_axes_are_joined_no_more_than_needed():
    assert grouped(["a"] * 3) == [(0,), (1,), (2,)]
    assert grouped(["a"] * 6) == [(0, 1, 2), (3,), (4,), (5,)]
    assert grouped(["a", "b", "a", "b", "a"]) is None
    assert aligned((3,), 3) == (1, 1, 3)
