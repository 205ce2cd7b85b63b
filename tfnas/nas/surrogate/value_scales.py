"""Scales of measurements on which a failure does not drown the differences among good trials.

A few trials near chance have a spread that is many times that of all others: a surrogate fitted to
them would see no difference among the good ones. Two scales bear that, and each one helps where
the other loses: :func:`clipped` keeps distances, :func:`normal_scores` keeps ranks alone.
"""

from __future__ import annotations

import numpy as np

_DEPTH = 2.0  # how far below the median values are kept, relative to the best value's height


def clipped(values: np.ndarray) -> np.ndarray:
    """Returns values of which those far below the median are raised.

    Example:
        >>> clipped(np.array([0.1, 0.88, 0.9, 0.91, 0.92]))
        array([0.86, 0.88, 0.9 , 0.91, 0.92])

    Args:
        values: Measurements, larger is better, (n,).
    """
    middle, best = float(np.median(values)), float(np.max(values))
    return np.maximum(values, middle - _DEPTH * (best - middle)) if best > middle else values


def normal_scores(values: np.ndarray) -> np.ndarray:
    """Returns the normal deviates of the ranks of values; equal values have equal ones.

    Example:
        >>> normal_scores(np.array([3.0, 1.0, 2.0])).round(2)
        array([ 0.97, -0.97,  0.  ])

    Args:
        values: Measurements, (n,).
    """
    from scipy.stats import norm, rankdata

    scores: np.ndarray = norm.ppf((rankdata(values) - 0.5) / len(values))
    return scores
