"""Which drops of quality a budget allows, and which of them training is worth its time for."""

from __future__ import annotations

import dataclasses

from tfnas.compression.budget import Budget
from tfnas.tasks.assessment import ACCURACY, Metric

_LITTLE, _HOPELESS = 0.003, 0.03  # of the baseline, for metrics without numbers of their own


@dataclasses.dataclass(frozen=True)
class Tolerance:
    """Drops in the unit of the task's metric.

    All limits of a budget on the quality become one of these, once, before anything is tried.

    Args:
        little: Drop that is too small to be worth a training.
        hopeless: Drop beyond the limit that longer training won't win back.
        allowed: The strictest limit of the budget; None: the budget's `max_drop`, if it has one.
    """

    little: float
    hopeless: float
    allowed: float | None = None

    @classmethod
    def of(cls, metric: Metric, baseline: float, budget: Budget | None = None) -> Tolerance:
        """Returns the metric's own numbers; where it has none, fractions of the baseline.

        Example:
            >>> Tolerance.of(ACCURACY, 0.9)
            Tolerance(little=0.3, hopeless=3.0, allowed=None)
            >>> error = Metric("error", higher_is_better=False)
            >>> Tolerance.of(error, 200.0, Budget(max_relative_loss=0.25))
            Tolerance(little=0.6, hopeless=6.0, allowed=50.0)

        Args:
            metric: The task's metric.
            baseline: Its value of the uncompressed model, not scaled.
            budget: The limits; None: none is on the quality.
        """
        whole = abs(baseline) * metric.scale
        little = _LITTLE * whole if metric.little is None else metric.little
        hopeless = _HOPELESS * whole if metric.hopeless is None else metric.hopeless
        allowed = None if budget is None else budget.allowed_drop(metric, baseline)
        return cls(little, hopeless, allowed)

    def allowed_by(self, budget: Budget) -> float | None:
        """Returns the largest drop that a budget allows; None where it has no such limit.

        Args:
            budget: The limits.
        """
        return budget.max_drop if self.allowed is None else self.allowed


OF_ACCURACY = Tolerance.of(ACCURACY, 1.0)
