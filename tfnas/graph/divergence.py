"""Outputs of models, and how much they have changed; needs no labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tfnas.graph.traversal import flat_outputs

if TYPE_CHECKING:
    import keras

_SUM_TOLERANCE = 0.02  # dequantized probabilities sum to 1 only within some steps


def divergence(
    expected: Sequence[np.ndarray], actual: Sequence[np.ndarray], least: float = 1e-12
) -> float:
    """Returns the change of a model's outputs, summed over its outputs.

    Outputs (examples, classes) with more than one column are taken as logits or probabilities of
    classes: the Kullback-Leibler divergence from the expected ones, in nats per example. For
    others: the mean squared change divided by the expected variance.

    Example:
        >>> divergence([np.array([[0.0, 1.0]])], [np.array([[0.0, 1.0]])])
        0.0

    Args:
        expected: The reference outputs, each (examples, ...).
        actual: The outputs to compare, of the same shapes.
        least: Smaller probabilities are clipped to it; use half a step for dequantized ones.
    """
    total = 0.0
    for old, new in zip(expected, actual, strict=True):
        if old.ndim == 2 and old.shape[1] > 1:
            a, b = _log_softmax(old, least), _log_softmax(new, least)
            total += float((np.exp(a) * (a - b)).sum(axis=1).mean())
        else:
            total += float(((old - new) ** 2).mean() / max(float(old.var()), 1e-30))
    return max(total, 0.0)


def outputs_of(model: keras.Model, batches: Sequence[Any]) -> list[np.ndarray]:
    """Returns what a model computes at inference, each output (examples, ...), float64.

    Example:
        >>> import keras
        >>> model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
        >>> [found] = outputs_of(model, [np.ones((4, 3)), np.ones((1, 3))])
        >>> found.shape
        (5, 2)

    Args:
        model: The model.
        batches: Inputs in the structure of the model's.
    """
    import keras

    found = [flat_outputs(model, batch) for batch in batches]
    return [
        np.concatenate([np.asarray(keras.ops.convert_to_numpy(each), np.float64) for each in parts])
        for parts in zip(*found, strict=True)
    ]


def _log_softmax(values: np.ndarray, least: float) -> np.ndarray:
    """Log probabilities of logits or probabilities."""
    values = np.asarray(values, np.float64)
    if (values >= 0).all() and np.allclose(values.sum(axis=1), 1.0, atol=_SUM_TOLERANCE):
        values = np.log(np.maximum(values, least))
    values = values - values.max(axis=1, keepdims=True)
    return values - np.log(np.exp(values).sum(axis=1, keepdims=True))
