"""What the problems share: a training with a decaying learning rate, and parts of arrays."""

from __future__ import annotations

import math
from typing import Any

import keras
import numpy as np
import tensorflow as tf

Part = tuple[Any, ...] | tf.data.Dataset


def fit(
    model: keras.Model, train: Part, validation: Part, epochs: int, batch_size: int = 32
) -> keras.callbacks.History:
    """Trains a model; its learning rate falls to 0 along a cosine.

    Args:
        model: A compiled model.
        train: The training part.
        validation: The validation part, which is logged and decides nothing.
        epochs: Passes over the training part.
        batch_size: Examples in a batch; datasets bring their own batches.
    """
    peak = float(keras.ops.convert_to_numpy(model.optimizer.learning_rate))

    def rate(epoch: int, _: float) -> float:
        return peak * (1 + math.cos(math.pi * epoch / epochs)) / 2

    options = {
        "validation_data": validation,
        "epochs": epochs,
        "verbose": 2,
        "callbacks": [keras.callbacks.LearningRateScheduler(rate)],
    }
    if isinstance(train, tf.data.Dataset):
        return model.fit(train, **options)
    x, y, *weight = train
    weights = {"sample_weight": weight[0]} if weight else {}
    return model.fit(x, y, batch_size=batch_size, **weights, **options)


def targets(part: Part) -> Any:
    """Returns all targets of a part, examples first.

    Args:
        part: Arrays, or a dataset of batches.
    """
    if not isinstance(part, tf.data.Dataset):
        return part[1]
    batches = [batch[1] for batch in part.as_numpy_iterator()]
    return keras.tree.map_structure(lambda *each: np.concatenate(each), *batches)


def inputs(part: Part) -> Any:
    """Returns all inputs of a part, examples first.

    Args:
        part: Arrays, or a dataset of batches.
    """
    if not isinstance(part, tf.data.Dataset):
        return part[0]
    batches = [batch[0] for batch in part.as_numpy_iterator()]
    return keras.tree.map_structure(lambda *each: np.concatenate(each), *batches)


def calibration_inputs(part: Part, count: int = 300) -> Any:
    """Returns inputs of a part to calibrate with: all arrays, or the first of a dataset.

    Args:
        part: Arrays, or a dataset of batches.
        count: Examples of a dataset.
    """
    if isinstance(part, tf.data.Dataset):
        return inputs(part.unbatch().take(count).batch(count))
    return part[0]


def held_out(labels: np.ndarray, every: int) -> np.ndarray:
    """Returns which examples are held out: of each label the first, and each `every`-th after it.

    Example:
        >>> held_out(np.array([0, 1, 0, 1, 0, 1]), every=2)
        array([ True,  True, False, False,  True,  True])

    Args:
        labels: Integer labels, (examples,).
        every: One example of a label in so many is held out.
    """
    chosen = np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels):
        chosen[np.flatnonzero(labels == label)[::every]] = True
    return chosen
