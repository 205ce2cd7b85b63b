"""A Gaussian process that predicts the objective of an architecture from measured trials.

It works on encoded architectures and has a constant mean, a squared-exponential kernel and
independent noise. The features of a decision are a group with one weight: how much a change of this
decision changes the objective. The product over all decisions contains their interactions of all
orders. Weights and noise are the most probable ones under a prior that keeps the weights of many
decisions small, so that fifty trials are enough for forty decisions. Without a weight for each
group (`separate=False`) all of them grow and shrink together, which is the safer model while there
are few trials.

The amplitude has a closed form. A fit begins at the prior's means, so it depends on the trials
alone, and takes milliseconds. Measurements are noisy, so the best architecture is that of the
largest mean, not of the largest measurement.

References:
    Rasmussen and Williams, "Gaussian Processes for Machine Learning", 2006, equations 2.25,
    2.26 (prediction), 5.8, 5.9 (marginal likelihood and its gradient), 5.12 (leaving one out).
    Hvarfner et al., "Vanilla Bayesian Optimization Performs Great in High Dimensions", ICML 2024
    (the prior's dependence on the number of dimensions). Jones, Schonlau and Welch, "Efficient
    Global Optimization", 1998, equation 15 (expected improvement).
"""

from __future__ import annotations

import numpy as np

_WEIGHT_DEVIATION = 1.0  # of the logarithm of a group's weight
_SHIFT_DEVIATION = 2.0  # of the logarithm of all weights' common factor
_NOISE = float(np.log(0.05))  # logarithm of the noise's variance relative to the signal's
_NOISE_DEVIATION = 1.5
_FARTHEST = 7.0  # bound of the logarithms' distances from their means
_LARGEST_NOISE = 2.0  # logarithm
_STEPS = 25  # of the optimizer; more change no choice
_TOLERANCE = 1e-4  # of the logarithm of the probability
_PRECISION = 16  # parts of 1 that settings are rounded to, so that no rounding of sums shows


class FeatureGroups:
    """Which features belong to one decision, and how much its weight is before any trial.

    Args:
        index: The group of each feature, (features,), from 0.
        offsets: Logarithms of the prior weights relative to each other, (groups,); None: zeros.
    """

    def __init__(self, index: np.ndarray, offsets: np.ndarray | None = None) -> None:
        self.index = np.asarray(index, int)
        self.count = int(self.index.max()) + 1
        offsets = np.zeros(self.count) if offsets is None else np.asarray(offsets, float)
        self.means = offsets - 0.5 * np.log(self.count)
        """Means of the logarithms of the weights, (groups,)."""

    def scales(self, weights: np.ndarray) -> np.ndarray:
        """Returns what each feature is multiplied by, (features,).

        Args:
            weights: Logarithms of the weights, (groups,).
        """
        return np.exp(0.5 * weights)[self.index]


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
        groups: The features of each decision; None: each feature is a group.
        separate: Whether each group has a weight of its own, or all have one factor.
        settings: Logarithms of weights and noise of an earlier fit, (groups + 1,); None: they are
            fitted.
    """

    def __init__(
        self,
        x: np.ndarray,
        y: np.ndarray,
        groups: FeatureGroups | None = None,
        *,
        separate: bool = True,
        settings: np.ndarray | None = None,
    ) -> None:
        x, y = np.asarray(x, float), np.asarray(y, float)
        self._features, self._y = x, y
        self.groups = groups or FeatureGroups(np.arange(x.shape[1]))
        self._mean, self._scale = float(y.mean()), float(y.std()) or 1.0
        self._z = (y - self._mean) / self._scale
        fitted = most_probable(x, self._z, self.groups, separate) if settings is None else settings
        self.settings = fitted
        self._scales = self.groups.scales(fitted[:-1])
        self._x = x * self._scales
        covariance = self._kernel(self._x) + np.exp(fitted[-1]) * np.eye(len(y))
        self._inverse = np.linalg.inv(covariance)
        self._weights = self._inverse @ self._z
        self._amplitude = float(self._z @ self._weights) / len(y)  # maximizes the likelihood

    def predict(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns mean and standard deviation of the function without noise, each (m,).

        Args:
            x: Features, (m, features).
        """
        kernel = self._kernel(np.asarray(x, float) * self._scales)
        mean = kernel @ self._weights
        explained = ((kernel @ self._inverse) * kernel).sum(1)
        variance = self._amplitude * np.maximum(1.0 - explained, 1e-10) + 1e-12
        return mean * self._scale + self._mean, np.sqrt(variance) * self._scale

    def means(self, x: np.ndarray) -> np.ndarray:
        """Returns only the mean, (m,), which costs less.

        Args:
            x: Features, (m, features).
        """
        kernel = self._kernel(np.asarray(x, float) * self._scales)
        return kernel @ self._weights * self._scale + self._mean

    def left_out(self) -> np.ndarray:
        """Returns the leave-one-out prediction of each measurement, (n,)."""
        left = self._z - self._weights / np.diag(self._inverse)
        return left * self._scale + self._mean

    def fitted_means(self) -> np.ndarray:
        """Returns the means of the fitted examples, (n,)."""
        return self.means(self._features)

    def believing(self, x: np.ndarray) -> Surrogate:
        """Returns a surrogate for which the predictions at some features were measured.

        Args:
            x: Features, (m, features).
        """
        features = np.concatenate([self._features, np.asarray(x, float)])
        values = np.concatenate([self._y, self.means(x)])
        return Surrogate(features, values, self.groups, settings=self.settings)

    def _kernel(self, scaled: np.ndarray) -> np.ndarray:
        return np.exp(-0.5 * _squared_distances(scaled, self._x))


def most_probable(
    x: np.ndarray, z: np.ndarray, groups: FeatureGroups, separate: bool
) -> np.ndarray:
    """Returns the most probable logarithms of weights and noise, (groups + 1,).

    Args:
        x: Features, (n, features).
        z: Measurements of mean 0 and deviation 1, (n,).
        groups: The groups of the features.
        separate: Whether each group has a weight of its own, or all have one factor.
    """
    from scipy.optimize import minimize

    count = groups.count if separate else 1
    means = np.r_[groups.means if separate else np.zeros(1), _NOISE]
    spread = _WEIGHT_DEVIATION if separate else _SHIFT_DEVIATION
    deviations = np.r_[np.full(count, spread), _NOISE_DEVIATION]

    def settings(values: np.ndarray) -> np.ndarray:
        return values if separate else np.r_[groups.means + values[0], values[1]]

    def improbability(values: np.ndarray) -> tuple[float, np.ndarray]:
        loss, slope = unlikelihood(x, z, groups, settings(values))
        if not separate:
            slope = np.r_[slope[:-1].sum(), slope[-1]]
        away = (values - means) / deviations
        return loss + 0.5 * float(away @ away), slope + away / deviations

    bounds = [(mean - _FARTHEST, mean + _FARTHEST) for mean in means[:-1]]
    found = minimize(
        improbability,
        means,
        jac=True,
        method="L-BFGS-B",
        bounds=[*bounds, (-_FARTHEST, _LARGEST_NOISE)],
        options={"maxiter": _STEPS, "ftol": _TOLERANCE},
    )
    return np.round(settings(found.x) * _PRECISION) / _PRECISION


def unlikelihood(
    x: np.ndarray, z: np.ndarray, groups: FeatureGroups, settings: np.ndarray
) -> tuple[float, np.ndarray]:
    """Returns the negative logarithm of the marginal likelihood and its gradient, (groups + 1,).

    The amplitude is that of the largest likelihood; a constant is left out.

    Args:
        x: Features, (n, features).
        z: Measurements of mean 0, (n,).
        groups: The groups of the features.
        settings: Logarithms of weights and noise, (groups + 1,).
    """
    scales, noise = groups.scales(settings[:-1]), float(np.exp(settings[-1]))
    scaled = x * scales
    kernel = np.exp(-0.5 * _squared_distances(scaled, scaled))
    covariance = kernel + noise * np.eye(len(z))
    inverse = np.linalg.inv(covariance)
    explained = inverse @ z
    amplitude = max(float(z @ explained) / len(z), 1e-12)
    loss = 0.5 * (len(z) * np.log(amplitude) + float(np.linalg.slogdet(covariance)[1]))
    outer = 0.5 * (inverse - np.outer(explained, explained) / amplitude)
    # The sum of outer * kernel times each pair's squared distance in one feature.
    pairs = -outer * kernel
    by_feature = pairs.sum(1) @ scaled**2 - (scaled * (pairs @ scaled)).sum(0)
    slope = np.bincount(groups.index, by_feature, minlength=groups.count)
    return loss, np.r_[slope, noise * float(np.trace(outer))]


def log_expected_improvement(mean: np.ndarray, deviation: np.ndarray, best: float) -> np.ndarray:
    """Returns the logarithm of the expected improvement over a best value, (m,).

    The logarithm tells apart improvements that are too small for a number.

    Args:
        mean: Means of normally distributed values, (m,).
        deviation: Their standard deviations, (m,), above 0.
        best: The best value so far.

    References:
        Ament et al., "Unexpected Improvements to Expected Improvement", NeurIPS 2023.
    """
    from scipy.special import erfcx, ndtr

    z = (np.asarray(mean, float) - best) / deviation
    high, low = np.maximum(z, -1.0), np.clip(z, -1e6, -1.0)
    near = np.log(np.exp(-0.5 * high**2) / np.sqrt(2 * np.pi) + high * ndtr(high))
    # Far below 0 both terms are almost equal; their ratio is known exactly.
    far = np.log1p(low * np.sqrt(np.pi / 2) * erfcx(-low / np.sqrt(2)))
    far -= 0.5 * low**2 + 0.5 * np.log(2 * np.pi)
    return np.where(z > -1.0, near, far) + np.log(deviation)


def _squared_distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    squares = (a**2).sum(1)[:, None] + (b**2).sum(1)[None] - 2 * a @ b.T
    return np.maximum(squares, 0.0)
