"""TensorBoard in a search: asked for before the first trial, with all that a trial measures."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import keras

from tfnas.optional import require

_NAME = "TensorBoard"  # keras_tuner looks for this name, and puts the hyperparameters beside it


def check_tensorboard(callbacks: Iterable[keras.callbacks.Callback] | None) -> None:
    """Checks that TensorBoard is installed where a callback writes for it.

    Without it each trial of keras_tuner ends at once, as if it had been trained.

    Args:
        callbacks: The callbacks of a search.

    Raises:
        ImportError: It is not installed.
    """
    kinds = {kind.__name__ for each in callbacks or () for kind in type(each).__mro__}
    if _NAME in kinds:
        require("tensorboard", "the callback TensorBoard")


def write_measured(
    callbacks: Iterable[keras.callbacks.Callback] | None, metrics: Mapping[str, float]
) -> None:
    """Writes the metrics of a trial beside its hyperparameters, where HParams shows them.

    Args:
        callbacks: The callbacks of the trial; those of TensorBoard say where it logs.
        metrics: Metric -> value; values that are not finite are left out.
    """
    folders = [each.log_dir for each in callbacks or () if type(each).__name__ == _NAME]
    if not folders:
        return
    import tensorflow as tf

    for folder in folders:
        writer = tf.summary.create_file_writer(str(folder))
        with writer.as_default(step=0):
            for name, value in metrics.items():
                if math.isfinite(value):
                    tf.summary.scalar(name, value)
        writer.close()
