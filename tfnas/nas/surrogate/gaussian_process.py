"""A Gaussian process that predicts the objective of an architecture from measured trials.

It works on encoded architectures and has a constant mean, a squared-exponential kernel with one
length scale, and independent noise. Length scale and noise maximize the marginal likelihood on a
small grid (the amplitude has a closed form), so a fit is deterministic, has no local optima and
takes milliseconds. Measurements are noisy, so the best architecture is that of the largest mean,
not of the largest measurement.

References:
    Rasmussen and Williams, "Gaussian Processes for Machine Learning", 2006, equations 2.25,
    2.26 (prediction), 5.8 (marginal likelihood), 5.12 (leaving one out). Jones, Schonlau and
    Welch, "Efficient Global Optimization", 1998, equation 15 (expected improvement).
"""

from __future__ import annotations

import numpy as np

LENGTHS = (0.7, 1.0, 1.5, 2.0, 3.0, 4.5, 7.0)  # one changed choice is a distance of sqrt(2)
NOISES = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0)  # variance relative to that of the signal


class Surrogate:
    """A fitted Gaussian process; larger is better.

    Example:
        >>> x = np.array([[0.0], [1.0], [2.0], [3.0]])
        >>> surrogate = Surrogate(x, np.array([0.0, 1.0, 2.0, 3.0]))
        >>> mean, deviation = surrogate.predict(np.array([[1.5]]))
        >>> bool(abs(mean[0] - 1.5) < 0.1)
        True

    Args:
        x: Features, (n, features), n at least 2.
        y: Measurements, (n,).
        settings: (length scale, noise) of an earlier fit; None: they are searched on the grid.
    """

    def __init__(
        self, x: np.ndarray, y: np.ndarray, settings: tuple[float, float] | None = None
    ) -> None:
        self._x = np.asarray(x, float)
        y = np.asarray(y, float)
        self._mean, self._scale = float(y.mean()), float(y.std()) or 1.0
        self._z = (y - self._mean) / self._scale
        squared = _squared_distances(self._x, self._x)
        self.settings = settings or _most_likely_settings(squared, self._z)
        covariance = np.exp(-squared / self._twice) + self.settings[1] * np.eye(len(y))
        self._inverse = np.linalg.inv(covariance)
        self._weights = self._inverse @ self._z
        self._amplitude = float(self._z @ self._weights) / len(y)  # maximizes the likelihood

    def predict(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns mean and standard deviation of the function without noise, each (m,).

        Args:
            x: Features, (m, features).
        """
        kernel = self._kernel(x)
        mean = kernel @ self._weights
        explained = ((kernel @ self._inverse) * kernel).sum(1)
        variance = self._amplitude * np.maximum(1.0 - explained, 1e-12)
        return mean * self._scale + self._mean, np.sqrt(variance) * self._scale

    def means(self, x: np.ndarray) -> np.ndarray:
        """Returns only the mean, (m,), which costs less.

        Args:
            x: Features, (m, features).
        """
        return self._kernel(x) @ self._weights * self._scale + self._mean

    def _kernel(self, x: np.ndarray) -> np.ndarray:
        return np.exp(-_squared_distances(np.asarray(x, float), self._x) / self._twice)

    def left_out(self) -> np.ndarray:
        """Returns the leave-one-out prediction of each measurement, (n,)."""
        left = self._z - self._weights / np.diag(self._inverse)
        return left * self._scale + self._mean

    def rank_correlation(self) -> float:
        """Returns Spearman's correlation of measurements and leave-one-out predictions."""
        from scipy.stats import spearmanr

        y, left = self._z, self.left_out()
        if len(y) < 3 or np.ptp(y) == 0 or np.ptp(left) == 0:
            return 0.0
        return float(spearmanr(y, left).statistic)

    @property
    def _twice(self) -> float:
        return 2 * self.settings[0] ** 2


def _most_likely_settings(squared: np.ndarray, z: np.ndarray) -> tuple[float, float]:
    """The (length scale, noise) of the grid with the largest marginal likelihood."""
    best, settings = -np.inf, (LENGTHS[0], NOISES[0])
    for length in LENGTHS:
        values, vectors = np.linalg.eigh(np.exp(-squared / (2 * length**2)))
        values, rotated = np.maximum(values, 0.0), vectors.T @ z
        for noise in NOISES:
            spectrum = values + noise
            amplitude = float((rotated**2 / spectrum).mean())
            likelihood = -0.5 * (len(z) * np.log(amplitude + 1e-300) + np.log(spectrum).sum())
            if likelihood > best:
                best, settings = likelihood, (length, noise)
    return settings


def expected_improvement(mean: np.ndarray, deviation: np.ndarray, best: float) -> np.ndarray:
    """Returns the expected improvement of normally distributed values over a best value, (m,).

    Args:
        mean: Means, (m,).
        deviation: Standard deviations, (m,), above 0.
        best: The best value so far.
    """
    from scipy.stats import norm

    z = (mean - best) / deviation
    return (mean - best) * norm.cdf(z) + deviation * norm.pdf(z)


def _squared_distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    squares = (a**2).sum(1)[:, None] + (b**2).sum(1)[None] - 2 * a @ b.T
    return np.maximum(squares, 0.0)
