"""TensorFlow's warning of retracing, in work that trains many networks.

TensorFlow counts how often Keras' training step was traced, over all models of a process, and warns
from the fifth on. Each network of a search or a compression is traced once, as it must be: the
warning is of no use there, and its advice is for the user's own code.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Iterator


@contextlib.contextmanager
def retracing_expected() -> Iterator[None]:
    """Hides the warning in this thread, of functions of Keras' trainer alone.

    Example:
        >>> with retracing_expected():
        ...     pass  # train many networks
    """
    logger, hidden = logging.getLogger("tensorflow"), _OfKeras()
    logger.addFilter(hidden)
    try:
        yield
    finally:
        logger.removeFilter(hidden)


class _OfKeras(logging.Filter):
    """Drops the warning in the thread that made the filter."""

    def __init__(self) -> None:
        super().__init__()
        self._thread = threading.get_ident()

    def filter(self, record: logging.LogRecord) -> bool:
        """Returns whether a message is logged."""
        if record.thread != self._thread:
            return True
        text = record.getMessage()
        return not ("TensorFlowTrainer" in text and "tf.function retracing" in text)
