"""A linear model of latency with no negative cost, and how far it can be believed."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from tfnas.measure.latency_model.features import Features

FOLDS = 5
_ITERATIONS = 10
_KEEPS, _REFUSES = 1.5, 6.0  # in robust standard deviations
_LEAST_SPREAD = 1e-4


@dataclasses.dataclass(frozen=True)
class LatencyErrors:
    """How predictions lie beside measurements of the same networks.

    Args:
        median: Median of |predicted / measured - 1|.
        p90: Its 90th percentile.
        within_10: Share of the networks for which it is at most 0.1.
        r2: Coefficient of determination of the ratios.
        spearman: Rank correlation.
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
        """Returns the errors of predictions.

        Example:
            >>> LatencyErrors.of([1.0, 2.2], [1.0, 2.0]).within_10
            0.5

        Args:
            predicted: Ratios, one a network; at least 2.
            measured: Ratios of the same networks.

        Raises:
            ValueError: Lengths differ or are below 2.
        """
        from scipy.stats import rankdata

        p, m = np.asarray(predicted, float), np.asarray(measured, float)
        if p.shape != m.shape or p.ndim != 1 or len(p) < 2:
            raise ValueError(
                f"predicted and measured must hold a number each for 2 networks or more, got "
                f"shapes {p.shape} and {m.shape}"
            )
        wrong = np.abs(p / m - 1)
        spread = float(((m - m.mean()) ** 2).sum())
        ranks = [rankdata(values) for values in (p, m)]
        flat = min(float(r.std()) for r in ranks) == 0
        return cls(
            median=float(np.median(wrong)),
            p90=float(np.quantile(wrong, 0.9)),
            within_10=float((wrong <= 0.1).mean()),
            r2=1 - float(((p - m) ** 2).sum()) / spread if spread else 0.0,
            spearman=0.0 if flat else float(np.corrcoef(*ranks)[0, 1]),
            networks=len(m),
        )

    def __str__(self) -> str:
        return (
            f"{self.within_10:.0%} within 10%, median {self.median:.1%}, 90th percentile "
            f"{self.p90:.1%}, R2 {self.r2:.3f}, Spearman {self.spearman:.3f} over "
            f"{self.networks} networks"
        )


def fit_costs(rows: Sequence[Features], ratios: Sequence[float]) -> dict[str, float]:
    """Returns the cost of a unit of each feature, none negative, by least squares.

    The relative error is what is squared, so that small networks count as much as large ones.
    A shared machine gives some networks a time far off: what lies far from the others in one
    solution counts less in the next, and nothing where it lies very far.

    Example:
        >>> rows = [{"macs": n, "layers": 2.0} for n in (1.0, 2.0, 3.0)]
        >>> {name: round(cost, 6) for name, cost in fit_costs(rows, [3.0, 5.0, 7.0]).items()}
        {'layers': 0.5, 'macs': 2.0}

    Args:
        rows: The features, a network.
        ratios: The measured times, a network, above 0.

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
        wrong = np.abs(relative @ costs - 1)
        spread = max(1.4826 * float(np.median(wrong)), _LEAST_SPREAD)
        weights = np.sqrt(np.minimum(1, _KEEPS * spread / np.maximum(wrong, _LEAST_SPREAD)))
        weights *= wrong < _REFUSES * spread
    return dict(zip(names, map(float, costs / scale), strict=True))


def price(features: Features, costs: Mapping[str, float]) -> float:
    """Returns the sum of the features' costs; a feature without a cost counts nothing."""
    return sum(costs.get(name, 0.0) * value for name, value in features.items())


def cross_validated(
    rows: Sequence[Features], ratios: Sequence[float], seed: int = 0
) -> LatencyErrors:
    """Returns the errors on networks that the costs were not fitted on, each once.

    Args:
        rows: The features, a network.
        ratios: The measured times, a network.
        seed: Seed of the division into five parts.
    """
    order = np.random.default_rng(seed).permutation(len(rows))
    predicted = np.empty(len(rows))
    for held_out in np.array_split(order, FOLDS):
        left = np.setdiff1d(order, held_out)
        costs = fit_costs([rows[i] for i in left], [ratios[i] for i in left])
        predicted[held_out] = [price(rows[i], costs) for i in held_out]
    return LatencyErrors.of(list(predicted), ratios)
