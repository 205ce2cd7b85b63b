"""Non-negative linear regression of latency, and its cross-validated errors."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from tfnas.measure.latency_model.features import Features
from tfnas.table import Tabular

FOLDS = 5
_ITERATIONS = 10
# Residuals above the first lose weight, those above the second are dropped; in robust
# standard deviations.
_HUBER, _OUTLIER = 1.5, 6.0
_MIN_SPREAD = 1e-4


@dataclasses.dataclass(frozen=True)
class LatencyErrors(Tabular):
    """Errors of predicted latencies against measured ones of the same networks.

    Args:
        median: Median of |predicted / measured - 1|.
        p90: 90th percentile of |predicted / measured - 1|.
        within_10: Fraction of the networks for which it is at most 0.1.
        r2: Coefficient of determination of the ratios.
        spearman: Spearman's rank correlation.
        networks: Number of networks.
    """

    median: float
    p90: float
    within_10: float
    r2: float
    spearman: float
    networks: int

    @classmethod
    def of(cls, predicted: Sequence[float], measured: Sequence[float]) -> LatencyErrors:
        """Computes the errors of predictions.

        Example:
            >>> LatencyErrors.of([1.0, 2.2], [1.0, 2.0]).within_10
            0.5

        Args:
            predicted: Predicted ratios, one per network; at least 2.
            measured: Measured ratios of the same networks.

        Raises:
            ValueError: Lengths differ or are below 2.
        """
        from scipy.stats import rankdata

        p, m = np.asarray(predicted, float), np.asarray(measured, float)
        if p.shape != m.shape or p.ndim != 1 or len(p) < 2:
            raise ValueError(
                f"predicted and measured must hold one ratio per network, of at least 2 networks, "
                f"got the shapes {p.shape} and {m.shape}"
            )
        error = np.abs(p / m - 1)
        spread = float(((m - m.mean()) ** 2).sum())
        ranks = [rankdata(values) for values in (p, m)]
        flat = min(float(r.std()) for r in ranks) == 0
        return cls(
            median=float(np.median(error)),
            p90=float(np.quantile(error, 0.9)),
            within_10=float((error <= 0.1).mean()),
            r2=1 - float(((p - m) ** 2).sum()) / spread if spread else 0.0,
            spearman=0.0 if flat else float(np.corrcoef(*ranks)[0, 1]),
            networks=len(m),
        )

    def headers(self) -> list[str]:
        """Returns the titles of the columns."""
        return ["within 10%", "median", "90th pct.", "R2", "Spearman", "networks"]

    def rows(self) -> list[list[str]]:
        """Returns the errors as the one row of a table."""
        return [
            [
                f"{self.within_10:.0%}",
                f"{self.median:.1%}",
                f"{self.p90:.1%}",
                f"{self.r2:.3f}",
                f"{self.spearman:.3f}",
                str(self.networks),
            ]
        ]

    def __str__(self) -> str:
        return (
            f"{self.within_10:.0%} within 10%, median {self.median:.1%}, p90 {self.p90:.1%}, "
            f"R2 {self.r2:.3f}, Spearman {self.spearman:.3f}, {self.networks} networks"
        )


def fit_costs(rows: Sequence[Features], ratios: Sequence[float]) -> dict[str, float]:
    """Fits a non-negative cost per unit of each feature by robust least squares.

    The squared error is relative, so that small networks count as much as large ones. On a
    shared machine some measurements are far off, so the fit is repeated with smaller weights
    for large residuals (Huber's) and without outliers.

    Example:
        >>> rows = [{"macs": n, "layers": 2.0} for n in (1.0, 2.0, 3.0)]
        >>> {name: round(cost, 6) for name, cost in fit_costs(rows, [3.0, 5.0, 7.0]).items()}
        {'layers': 0.5, 'macs': 2.0}

    Args:
        rows: The features of each network.
        ratios: The measured ratio of each network, above 0.

    References:
        Lawson and Hanson, "Solving Least Squares Problems", 1974, chapter 23 (NNLS);
        Huber, "Robust Statistics", 1981 (the weights).
    """
    from scipy.optimize import nnls

    names = sorted({name for row in rows for name in row})
    matrix = np.array([[row.get(name, 0.0) for name in names] for row in rows], float)
    scale = np.maximum(np.abs(matrix).max(0), 1e-12)
    relative = matrix / scale / np.asarray(ratios, float)[:, None]
    weights = np.ones(len(relative))
    for _ in range(_ITERATIONS):
        costs, _norm = nnls(relative * weights[:, None], weights, maxiter=100 * len(names))
        error = np.abs(relative @ costs - 1)
        spread = max(1.4826 * float(np.median(error)), _MIN_SPREAD)
        weights = np.sqrt(np.minimum(1, _HUBER * spread / np.maximum(error, _MIN_SPREAD)))
        weights *= error < _OUTLIER * spread
    return dict(zip(names, map(float, costs / scale), strict=True))


def predicted_ratio(features: Features, costs: Mapping[str, float]) -> float:
    """Returns the sum of features times costs; a feature without a cost counts as 0."""
    return sum(costs.get(name, 0.0) * value for name, value in features.items())


def cross_validated(
    rows: Sequence[Features], ratios: Sequence[float], seed: int = 0
) -> LatencyErrors:
    """Returns the errors of 5-fold cross-validation.

    Args:
        rows: The features of each network.
        ratios: The measured ratio of each network.
        seed: Seed of the division into folds.
    """
    order = np.random.default_rng(seed).permutation(len(rows))
    predicted = np.empty(len(rows))
    for held_out in np.array_split(order, FOLDS):
        rest = np.setdiff1d(order, held_out)
        costs = fit_costs([rows[i] for i in rest], [ratios[i] for i in rest])
        predicted[held_out] = [predicted_ratio(rows[i], costs) for i in held_out]
    return LatencyErrors.of(list(predicted), ratios)
