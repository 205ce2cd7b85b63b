"""The errors of work that was begun, apart from those of wrong arguments."""

from __future__ import annotations


class FailedWork(ValueError):
    """What was asked for was allowed, and its outcome is not; the message says what came out.

    A command takes any other ValueError that tfnas raises for one of an argument, and ends with the
    code of wrong usage. One of Keras, TensorFlow or a user's own code counts as failed work.
    """
