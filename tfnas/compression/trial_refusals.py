"""What ends a trial that compresses: a technique refuses the network, or a training fails."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator


class NotCompressible(ValueError):
    """A technique refuses the network; the message says why."""


class _TrainingFailed(Exception):
    """Carries an error of a training past :func:`refusals`."""

    def __init__(self, error: ValueError) -> None:
        super().__init__(str(error))
        self.error = error


@contextlib.contextmanager
def refusals() -> Iterator[None]:
    """Turns a technique's refusal into :class:`NotCompressible`; errors of training stay errors."""
    try:
        yield
    except NotCompressible:
        raise
    except ValueError as error:
        raise NotCompressible(str(error)) from error
    except _TrainingFailed as failed:
        raise failed.error from None


@contextlib.contextmanager
def errors_of_training() -> Iterator[None]:
    """Lets errors of a training pass :func:`refusals` as they are."""
    try:
        yield
    except NotCompressible:
        raise
    except ValueError as error:
        raise _TrainingFailed(error) from error
