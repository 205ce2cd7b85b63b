"""Branches of a graph: right values and gradients, and no work where they are not taken."""

import pytest
import tensorflow as tf

from tfnas.search_space.graph_branch import GraphBranch


@tf.function
def chosen(x, w, outer, inner):
    """w * x in the outer branch, squared in the inner one; else x."""
    branch = GraphBranch(outer)
    product = branch.enter(w) * branch.enter(x)
    nested = branch.inner(inner)
    product = nested.leave(tf.square(nested.enter(product)), product)
    result = branch.leave(product, x)
    return result, tf.gradients(result, [x, w])


@pytest.mark.parametrize(
    ("outer", "inner", "value", "gradients"),
    [
        (True, True, 36.0, [36.0, 24.0]),
        (True, False, 6.0, [3.0, 2.0]),
        (False, True, 2.0, [1.0, 0.0]),
        (False, False, 2.0, [1.0, 0.0]),
    ],
)
def test_values_and_gradients(outer, inner, value, gradients):
    arguments = [tf.constant(each) for each in (2.0, 3.0, outer, inner)]
    result, found = chosen(*arguments)
    assert float(result) == value
    assert [float(each) for each in found] == gradients


def test_a_branch_that_is_not_taken_is_not_computed():
    @tf.function
    def guarded(x, condition):
        branch = GraphBranch(condition)
        inside = tf.debugging.check_numerics(branch.enter(x), "computed")
        return branch.leave(inside, 0.0)

    bad = tf.constant(float("nan"))
    assert float(guarded(bad, tf.constant(False))) == 0.0
    with pytest.raises(tf.errors.InvalidArgumentError, match="computed"):
        guarded(bad, tf.constant(True))


def test_without_a_condition_it_is_always_taken():
    branch = GraphBranch()
    assert float(branch.leave(branch.enter(tf.constant(3.0)), 0.0)) == 3.0
