"""Which candidates are shown, and which one is chosen: by every cost that the budget limits.

The front holds the candidates that no other dominates in quality, size, latency and each further
cost with a limit. Since a candidate that dominates another one in all of these keeps every limit
that the other keeps, the best candidate is always on the front of the same budget.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

from tfnas.compression.budget import QUALITY_LIMITS, Budget, CandidateCosts
from tfnas.compression.tolerance import OF_ACCURACY, Tolerance
from tfnas.measure.measurement import pareto_front

_SIZES = ("bytes", "gzip_bytes")
_OTHERS = (
    "macs",
    "memory",
)  # besides these, costs on a device are compared as far as they are known


class HasCosts(Protocol):
    """A candidate, as far as it is chosen by."""

    @property
    def costs(self) -> CandidateCosts:
        """The costs of its file."""
        ...


AnyCandidate = TypeVar("AnyCandidate", bound=HasCosts)


def limited_costs(budget: Budget | None) -> tuple[str, ...]:
    """Returns the costs that candidates are compared by besides quality, size, time and device.

    Example:
        >>> limited_costs(Budget(max_bytes=9000, max_gzip_bytes=8000, max_macs=0.6))
        ('bytes', 'macs')

    Args:
        budget: The limits; the size is that after gzip where this is limited. None: whichever cost
            may be limited counts.
    """
    if budget is None:
        return _SIZES + _OTHERS
    also = ("bytes",) * (budget.max_gzip_bytes is not None)
    return tuple(n for n in (*also, *_OTHERS) if getattr(budget, f"max_{n}") is not None)


def compared(
    costs: CandidateCosts, gzipped: bool, timed: bool = True, also: Sequence[str] = ()
) -> tuple[float, ...]:
    """Returns the values to compare candidates by, smaller is better.

    Args:
        costs: The costs of a candidate.
        gzipped: Whether the size is that after gzip.
        timed: Whether the time is the measured latency; else multiply-accumulates, which are the
            same each time.
        also: Names of further costs.

    Returns:
        Drop, size and time, then `also`, then the device's limited metrics.
    """
    size = costs.gzip_bytes if gzipped else costs.bytes
    time = costs.latency if timed else costs.macs
    return costs.drop, size, time, *map(costs.value, also), *costs.device_losses()


def front(
    candidates: Sequence[AnyCandidate], gzipped: bool, budget: Budget | None = None
) -> list[AnyCandidate]:
    """Returns the Pareto front: candidates that no other dominates.

    Args:
        candidates: The candidates.
        gzipped: Whether sizes are those after gzip.
        budget: The limits, whose costs count beside quality, size and latency; None: every cost
            counts, so that the best for any budget is among them.
    """
    also = limited_costs(budget)
    rows = [compared(candidate.costs, gzipped, also=also) for candidate in candidates]
    return [candidates[i] for i in pareto_front(rows, ["min"] * len(rows[0]))] if rows else []


def best_for_budget(
    candidates: Sequence[AnyCandidate], budget: Budget, tolerance: Tolerance = OF_ACCURACY
) -> AnyCandidate:
    """Returns the candidate that meets a budget best, or the one nearest to it.

    With a limit on the quality it is the one of least size x latency among those that meet all
    limits; without, the most accurate of them. Where none meets all, the one whose excesses, see
    :func:`shortfall`, add up to the least. Of equals the one that no other dominates.

    Args:
        candidates: At least one. All that were measured, so that none that keeps the limits is
            left out.
        budget: The limits.
        tolerance: The drop that the limits on quality allow, and the one that does not matter.
    """
    gzipped, also = budget.max_gzip_bytes is not None, limited_costs(budget)

    def ranked(candidate: AnyCandidate) -> tuple[float, ...]:
        costs = candidate.costs
        drop, size, time, *others = compared(costs, gzipped, also=also)
        if not meeting:
            first = shortfall(costs, budget, tolerance)
        else:
            first = size * time if budget.limits_quality else drop
        rest = costs.macs, costs.memory, costs.bytes, costs.gzip_bytes, costs.latency
        return first, drop, size, time, *others, *rest  # so that their order does not matter

    meeting = [each for each in candidates if not budget.excesses(each.costs)]
    return min(meeting or candidates, key=ranked)


def shortfall(costs: CandidateCosts, budget: Budget, tolerance: Tolerance = OF_ACCURACY) -> float:
    """Returns by how much a candidate exceeds a budget: a sum of fractions of the limits.

    Each excess is a fraction of its limit, so that 10% too many bytes weigh as much as a drop 10%
    above the allowed one. Limits on quality are one limit, the strictest. What is allowed counts as
    at least `tolerance.little`, and one operator: a limit of 0 has no fractions.

    Example:
        >>> costs = CandidateCosts(1.5, 110, 100, 0.5, 1.0, 10)
        >>> round(shortfall(costs, Budget(max_drop=1.0, max_bytes=100)), 6)
        0.6

    Args:
        costs: The costs of the candidate.
        budget: The limits.
        tolerance: The drop that the limits on quality allow, and the one that does not matter.
    """
    excesses = budget.excesses(costs)
    total = _of_quality(costs, budget, tolerance, excesses)
    for name, excess in excesses.items():
        if name == "max_vela_cpu_operators":
            total += excess / max(1, budget.limits[name])
        elif name not in QUALITY_LIMITS:
            total += excess
    return total


def _of_quality(
    costs: CandidateCosts, budget: Budget, tolerance: Tolerance, excesses: dict[str, float]
) -> float:
    allowed = tolerance.allowed_by(budget)
    if allowed is None or not any(name in excesses for name in QUALITY_LIMITS):
        return max((excesses.get(name, 0.0) for name in QUALITY_LIMITS), default=0.0)
    if not math.isfinite(costs.drop):
        return math.inf
    unit = max(abs(allowed), tolerance.little)
    return math.inf if not unit else max(0.0, costs.drop - allowed) / unit


def measured_front(
    candidates: Callable[[], Sequence[AnyCandidate]],
    budget: Budget,
    tolerance: Tolerance,
    measure: Callable[[list[AnyCandidate]], None],
) -> tuple[list[AnyCandidate], AnyCandidate]:
    """Returns the front and the best candidate, both by latencies that were measured side by side.

    A latency that is measured again may put another candidate on the front. That one is measured
    as well, until all of the front were, with the best candidate, which is always on it.

    Args:
        candidates: Returns all candidates, with the latencies of the last measurement.
        budget: The limits.
        tolerance: The drop that the limits on quality allow, and the one that does not matter.
        measure: Measures the latencies of some candidates side by side. Afterwards `candidates`
            has other ones in their places.
    """
    gzipped, measured = budget.max_gzip_bytes is not None, set[int]()
    while True:
        found = candidates()
        kept = front(found, gzipped, budget)
        on_front = {i for i, each in enumerate(found) if any(each is other for other in kept)}
        if on_front <= measured:
            return kept, best_for_budget(found, budget, tolerance)
        measured |= on_front
        measure([found[i] for i in sorted(measured)])
