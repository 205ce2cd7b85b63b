"""A prediction of what an architecture is worth, from what was measured so far.

A Gaussian process over encoded architectures: a constant, a squared-exponential kernel of one
length and independent noise. Length and noise are those of the largest marginal likelihood
on a small grid (the amplitude has a closed form), so that a fit is exact, has no local optimum
to be caught in and takes milliseconds. Measurements are noisy, so what is called best is
the largest mean, not the luckiest measurement.

References:
    Rasmussen and Williams, "Gaussian Processes for Machine Learning", 2006, equations 2.25,
    2.26 (prediction), 5.8 (marginal likelihood), 5.12 (leaving one out). Jones, Schonlau and
    Welch, "Efficient Global Optimization", 1998, equation 15 (expected improvement).
"""

from __future__ import annotations

import numpy as np

LENGTHS = (0.7, 1.0, 1.5, 2.0, 3.0, 4.5, 7.0)  # a changed choice is sqrt(2) away
NOISES = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0)  # variance over that of the signal


class Surrogate:
    """A fitted Gaussian process; larger is better.

    Example:
        >>> x = np.array([[0.0], [1.0], [2.0], [3.0]])
        >>> surrogate = Surrogate(x, np.array([0.0, 1.0, 2.0, 3.0]))
        >>> mean, deviation = surrogate.predict(np.array([[1.5]]))
        >>> bool(abs(mean[0] - 1.5) < 0.1)
        True

    Args:
        x: (n, features), n at least 2.
        y: (n,), what was measured.
        settings: (length, noise) found before; None: search the grid.
    """

    def __init__(
        self, x: np.ndarray, y: np.ndarray, settings: tuple[float, float] | None = None
    ) -> None:
        self._x = np.asarray(x, float)
        y = np.asarray(y, float)
        self._mean, self._scale = float(y.mean()), float(y.std()) or 1.0
        self._z = (y - self._mean) / self._scale
        squared = _squared_distances(self._x, self._x)
        self.settings = settings or _likeliest(squared, self._z)
        covariance = np.exp(-squared / self._twice) + self.settings[1] * np.eye(len(y))
        self._inverse = np.linalg.inv(covariance)
        self._weights = self._inverse @ self._z
        self._amplitude = float(self._z @ self._weights) / len(y)  # of largest likelihood

    def predict(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns mean and standard deviation of what is behind the noise.

        Args:
            x: (m, features).
        """
        kernel = self._kernel(x)
        mean = kernel @ self._weights
        explained = ((kernel @ self._inverse) * kernel).sum(1)
        variance = self._amplitude * np.maximum(1.0 - explained, 1e-12)
        return mean * self._scale + self._mean, np.sqrt(variance) * self._scale

    def means(self, x: np.ndarray) -> np.ndarray:
        """Returns the mean alone, which costs less.

        Args:
            x: (m, features).
        """
        return self._kernel(x) @ self._weights * self._scale + self._mean

    def _kernel(self, x: np.ndarray) -> np.ndarray:
        return np.exp(-_squared_distances(np.asarray(x, float), self._x) / self._twice)

    def left_out(self) -> np.ndarray:
        """Returns what it would predict for each measurement if it did not know it."""
        left = self._z - self._weights / np.diag(self._inverse)
        return left * self._scale + self._mean

    def rank_correlation(self) -> float:
        """Returns Spearman's correlation of measurements and left-out predictions."""
        from scipy.stats import spearmanr

        y, left = self._z, self.left_out()
        if len(y) < 3 or np.ptp(y) == 0 or np.ptp(left) == 0:
            return 0.0
        return float(spearmanr(y, left).statistic)

    @property
    def _twice(self) -> float:
        return 2 * self.settings[0] ** 2


def _likeliest(squared: np.ndarray, z: np.ndarray) -> tuple[float, float]:
    """(length, noise) of the largest marginal likelihood on the grid."""
    best, found = -np.inf, (LENGTHS[0], NOISES[0])
    for length in LENGTHS:
        values, vectors = np.linalg.eigh(np.exp(-squared / (2 * length**2)))
        values, turned = np.maximum(values, 0.0), vectors.T @ z
        for noise in NOISES:
            spectrum = values + noise
            amplitude = float((turned**2 / spectrum).mean())
            likelihood = -0.5 * (len(z) * np.log(amplitude + 1e-300) + np.log(spectrum).sum())
            if likelihood > best:
                best, found = likelihood, (length, noise)
    return found


def expected_improvement(mean: np.ndarray, deviation: np.ndarray, best: float) -> np.ndarray:
    """Returns by how much each is expected to be above the best.

    Args:
        mean: (m,).
        deviation: (m,), above 0.
        best: What is to be beaten.
    """
    from scipy.stats import norm

    z = (mean - best) / deviation
    return (mean - best) * norm.cdf(z) + deviation * norm.pdf(z)


def _squared_distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    squares = (a**2).sum(1)[:, None] + (b**2).sum(1)[None] - 2 * a @ b.T
    return np.maximum(squares, 0.0)
