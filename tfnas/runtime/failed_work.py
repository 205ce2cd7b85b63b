"""The errors of work that was begun, apart from those of wrong arguments."""

from __future__ import annotations


class FailedWork(ValueError):
    """What was asked for was allowed, and its outcome is not; the message says what came out.

    Any other ValueError is of an argument, so that a command ends with the code of wrong usage.
    """
