"""How far a model's outputs have moved, without labels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

_ROUNDED = 0.02  # sums of probabilities that integers stand for miss 1 by some steps


def divergence(
    expected: Sequence[np.ndarray], given: Sequence[np.ndarray], least: float = 1e-12
) -> float:
    """Returns how far outputs have moved, summed over the outputs of a model.

    Outputs (examples, classes) with more than one column count as class scores, logits or
    probabilities: the Kullback-Leibler divergence from the expected ones, in nats an
    example. Others: the mean squared change over the expected variance.

    Example:
        >>> divergence([np.array([[0.0, 1.0]])], [np.array([[0.0, 1.0]])])
        0.0

    Args:
        expected: The outputs as they should be, examples first.
        given: The outputs as they are.
        least: Probabilities below it count as it: half a step where integers stand for them.
    """
    total = 0.0
    for old, new in zip(expected, given, strict=True):
        if old.ndim == 2 and old.shape[1] > 1:
            a, b = _log_softmax(old, least), _log_softmax(new, least)
            total += float((np.exp(a) * (a - b)).sum(axis=1).mean())
        else:
            total += float(((old - new) ** 2).mean() / max(float(old.var()), 1e-30))
    return max(total, 0.0)


def _log_softmax(values: np.ndarray, least: float) -> np.ndarray:
    """Log probabilities of logits, or of probabilities that the model gives already."""
    values = np.asarray(values, np.float64)
    if (values >= 0).all() and np.allclose(values.sum(axis=1), 1.0, atol=_ROUNDED):
        values = np.log(np.maximum(values, least))
    values = values - values.max(axis=1, keepdims=True)
    return values - np.log(np.exp(values).sum(axis=1, keepdims=True))
