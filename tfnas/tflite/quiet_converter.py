"""Hides what a conversion in this process prints and logs; another thread's output stays.

What native code writes to stderr is hidden by :mod:`tfnas.runtime.native_messages`.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import warnings
from collections.abc import Iterator

import keras

from tfnas.runtime.native_messages import native_messages_hidden

_HARMLESS = (
    "Statistics for quantized inputs were expected",
    # Issued by the converter's own calibrator.
    r"\s*Warning: tf\.lite\.Interpreter is deprecated",
)


@contextlib.contextmanager
def quiet_converter() -> Iterator[None]:
    """Hides the converter's prints, log messages and harmless warnings while it is open."""
    import tensorflow as tf

    forget_made_tables()
    logger = tf.get_logger()  # in a notebook it logs every folder it writes
    warnings_alone = _WarningsOfThread()
    prints = keras.config.is_interactive_logging_enabled()  # a setting of this thread
    keras.config.disable_interactive_logging()
    logger.addFilter(warnings_alone)
    try:
        with native_messages_hidden(), _HARMLESS_HIDDEN:
            yield
    finally:
        logger.removeFilter(warnings_alone)
        if prints:
            keras.config.enable_interactive_logging()


def forget_made_tables() -> None:
    """Takes what made tables leave behind out of this thread's default graph.

    A table that is made without a graph, as that of a TextVectorization that is adapted, adds None
    to the graph's collection of initializers (TensorFlow 2.21.0). Each function that is traced
    later inherits it, and each export of one warns that None can't be written.
    """
    import tensorflow as tf

    key = tf.compat.v1.GraphKeys.TABLE_INITIALIZERS
    entries = tf.compat.v1.get_collection_ref(key)
    entries[:] = [entry for entry in entries if entry is not None]


class _WarningsOfThread(logging.Filter):
    """Drops the messages below warnings that the thread logs that made the filter."""

    def __init__(self) -> None:
        super().__init__()
        self._thread = threading.get_ident()

    def filter(self, record: logging.LogRecord) -> bool:
        """Returns whether a message is logged."""
        return record.levelno >= logging.WARNING or record.thread != self._thread


class _HiddenWarnings:
    """Hides some warnings while any thread is inside; Python keeps filters of all threads."""

    def __init__(self) -> None:
        self._lock, self._inside = threading.Lock(), 0
        self._filters = contextlib.ExitStack()

    def __enter__(self) -> None:
        with self._lock:
            if not self._inside:
                self._filters.enter_context(warnings.catch_warnings())
                for message in _HARMLESS:
                    warnings.filterwarnings("ignore", message)
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside:
                self._filters.close()


_HARMLESS_HIDDEN = _HiddenWarnings()
