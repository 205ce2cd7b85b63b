"""Metrics of numbers: squared and absolute errors, R2, the error of a reconstruction."""

from __future__ import annotations

import functools

import numpy as np

from tfnas.tasks.assessment import Metric
from tfnas.tasks.target_forms import same_shape

RECONSTRUCTION = "reconstruction error"
_lower = functools.partial(Metric, higher_is_better=False)


def mse() -> Metric:
    """Returns the mean squared error, over all numbers of all examples; lower is better.

    Example:
        >>> metric = mse()
        >>> metric.values(np.array([1.0, 2.0]), np.array([[1.0], [4.0]]))
        array([0., 4.])

    Returns:
        The metric; targets and predictions are (examples, ...).
    """
    return _lower("mse", values=_squared)


def mae() -> Metric:
    """Returns the mean absolute error, over all numbers of all examples; lower is better.

    Example:
        >>> metric = mae()
        >>> metric.values(np.array([1.0, 2.0]), np.array([[1.0], [4.0]]))
        array([0., 2.])

    Returns:
        The metric; targets and predictions are (examples, ...).
    """
    return _lower("mae", values=_absolute)


def rmse() -> Metric:
    """Returns the root of the mean squared error; lower is better.

    Example:
        >>> metric = rmse()
        >>> metric.value(metric.values(np.array([0.0, 0.0]), np.array([3.0, 3.0])))
        3.0

    Returns:
        The metric; targets and predictions are (examples, ...).
    """
    return _lower("rmse", values=_squared, aggregate=_root)


def r2() -> Metric:
    """Returns the coefficient of determination, averaged over the numbers of an output.

    It is 1 for perfect predictions, 0 for the mean of the targets. A number that never changes in
    the targets counts as 1 where it is predicted exactly, else as 0.

    Example:
        >>> metric = r2()
        >>> y = np.array([1.0, 2.0, 3.0])
        >>> metric.value(metric.values(y, np.array([1.0, 2.0, 4.0])))
        0.5

    Returns:
        The metric; targets and predictions are (examples, ...).

    References:
        `sklearn.metrics.r2_score` with `multioutput="uniform_average"`; `keras.metrics.R2Score`.
    """
    return Metric("R2", values=_with_residuals, aggregate=_determination)


def reconstruction_error() -> Metric:
    """Returns the mean squared error of an autoencoder, whose targets are its inputs.

    Example:
        >>> metric = reconstruction_error()
        >>> metric.values(np.zeros((2, 3)), np.ones((2, 3)))
        array([1., 1.])

    Returns:
        The metric; lower is better. Where data has no targets, the inputs take their place.
    """
    return _lower(RECONSTRUCTION, values=_squared)


def _squared(y: np.ndarray, predictions: np.ndarray) -> np.ndarray:
    return _means(np.square(_residuals(y, predictions)))


def _absolute(y: np.ndarray, predictions: np.ndarray) -> np.ndarray:
    return _means(np.abs(_residuals(y, predictions)))


def _residuals(y: np.ndarray, predictions: np.ndarray) -> np.ndarray:
    y, predictions = same_shape(y, predictions)
    return y.astype(np.float64) - predictions


def _means(errors: np.ndarray) -> np.ndarray:
    return errors.reshape(len(errors), -1).mean(axis=1)


def _root(rows: np.ndarray) -> float:
    return float(np.sqrt(rows.mean()))


def _with_residuals(y: np.ndarray, predictions: np.ndarray) -> np.ndarray:
    """Targets and residuals, (examples, 2, numbers)."""
    y, predictions = same_shape(y, predictions)
    flat = len(y), -1
    truth = y.astype(np.float64).reshape(flat)
    return np.stack([truth, truth - predictions.reshape(flat)], axis=1)


def _determination(rows: np.ndarray) -> float:
    truth, residuals = rows[:, 0], rows[:, 1]
    lost = np.square(residuals).sum(axis=0)
    whole = np.square(truth - truth.mean(axis=0)).sum(axis=0)
    varies = whole > 0
    shares = np.where(lost == 0, 1.0, 0.0)
    np.divide(lost, whole, out=shares, where=varies)
    return float(np.where(varies, 1 - shares, shares).mean())
