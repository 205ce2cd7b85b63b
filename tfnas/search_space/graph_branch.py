"""Branches of a TensorFlow graph that cost nothing where they are not taken.

`tf.cond` makes a function of each branch and of each branch's gradient: a network of thirty
branches takes a minute to trace. A :class:`GraphBranch` is made of the two operations that
TensorFlow turns `tf.cond` into when it runs it, Switch and Merge; the same network is traced in
seconds. It works inside of `tf.function` alone.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf


class GraphBranch:
    """The operations that are computed only if a condition holds.

    Example:
        >>> import tensorflow as tf
        >>> @tf.function
        ... def halved_if_large(x):
        ...     branch = GraphBranch(x > 10.0)
        ...     return branch.leave(branch.enter(x) / 2.0, x)
        >>> float(halved_if_large(tf.constant(12.0))), float(halved_if_large(tf.constant(8.0)))
        (6.0, 8.0)

    Args:
        condition: A boolean scalar, computed outside of the branch; None: it always holds.
    """

    def __init__(self, condition: Any = None) -> None:
        self.condition = condition

    def enter(self, tensor: Any) -> Any:
        """Returns a tensor for use inside of the branch; all that is used there must enter.

        Args:
            tensor: A tensor from outside.
        """
        if self.condition is None:
            return tensor
        return tf.raw_ops.Switch(data=tensor, pred=self.condition).output_true

    def leave(self, inside: Any, otherwise: Any) -> Any:
        """Returns a tensor of the branch, for use outside of it.

        Args:
            inside: The tensor that the branch computed.
            otherwise: A tensor from outside that takes its place if the branch is not taken.
        """
        if self.condition is None:
            return inside
        skipped = tf.raw_ops.Switch(data=otherwise, pred=self.condition).output_false
        return tf.raw_ops.Merge(inputs=[skipped, inside]).output

    def inner(self, condition: Any) -> GraphBranch:
        """Returns the branch inside of this one whose further condition holds too.

        What enters it comes from outside of both, or from this branch. What leaves it is of this
        branch.

        Args:
            condition: A boolean scalar, computed outside.
        """
        return GraphBranch(
            condition if self.condition is None else tf.logical_and(self.condition, condition)
        )
