"""What a search wants: objectives with their directions, and hard limits.

One :class:`Objectives` says which of two trials is better. A trial within all limits beats one
outside; of two outside, the one that exceeds them less is better (Deb's constrained
domination). With one objective that is an order; with several, :mod:`.selection` ranks by
Pareto fronts.

References:
    Deb et al., "A Fast and Elitist Multiobjective Genetic Algorithm: NSGA-II", IEEE
    Transactions on Evolutionary Computation 2002, section VI.
"""

from __future__ import annotations

import dataclasses
import math
import numbers
from collections.abc import Mapping
from typing import Any

import keras_tuner as kt
from keras_tuner.src.engine import objective as kt_objective

REWARD = "reward"

KNOWN_DIRECTIONS = {
    REWARD: "max",
    "file_accuracy": "max",
    **dict.fromkeys(
        (
            *("latency_ratio", "latency_ms", "size_bytes", "gzip_bytes", "macs", "parameters"),
            *("peak_activation_bytes", "flash_bytes", "ram_bytes", "vela_ms", "vela_cycles"),
            *("vela_sram_bytes", "vela_flash_bytes", "vela_cpu_operators"),
        ),
        "min",
    ),
}
"""Metrics that tfnas measures itself, with the direction in which they get better."""


_FROM_ZERO = ("vela_cpu_operators",)  # of which there may be none at all


class ParetoObjective(kt_objective.MultiObjective):
    """Several objectives that are never added up; keras_tuner sees the first one's value."""

    def __init__(self, objectives: list[Any]) -> None:
        super().__init__(objectives)
        # keras_tuner looks for an objective's name in what a trial reports.
        self.name, self.direction = objectives[0].name, objectives[0].direction

    def get_value(self, logs: Mapping[str, float]) -> float:
        """Returns the first objective's value."""
        return logs[self.objectives[0].name]


def objective_of(objective: Any, default: Any = None) -> Any:
    """Returns an objective as keras_tuner takes it, with the directions of our own metrics.

    Args:
        objective: A name, a `keras_tuner.Objective`, a list of them, or None.
        default: Instead of None.

    Raises:
        ValueError: A direction is unknown, a name comes twice, or the list is empty.
    """
    objective = default if objective is None else objective
    if isinstance(objective, list | tuple):
        if not objective:
            raise ValueError("objective must name at least one, got an empty list")
        found = [_created(part) for part in objective]
        names = [part.name for part in found]
        if len(set(names)) < len(names):
            raise ValueError(f"objective must hold no name twice, got {', '.join(names)}")
        return found[0] if len(found) == 1 else ParetoObjective(found)
    if isinstance(objective, str) and objective in KNOWN_DIRECTIONS:
        return kt.Objective(objective, KNOWN_DIRECTIONS[objective])
    if isinstance(objective, kt.Objective) and objective.direction not in ("min", "max"):
        raise ValueError(
            f"objective must have the direction 'min' or 'max', got {objective.direction!r}"
        )
    return objective


def _created(part: Any) -> Any:
    try:
        return kt_objective.create_objective(objective_of(part))
    except ValueError as error:
        if not isinstance(part, str):
            raise
        known = ", ".join(sorted(KNOWN_DIRECTIONS))
        raise ValueError(
            f"objective must be a metric that tfnas measures ({known}), "
            f"one of Keras' by its name, or a keras_tuner.Objective, got {part!r}"
        ) from error


@dataclasses.dataclass(frozen=True)
class Limit:
    """A bound that an architecture must keep.

    Args:
        name: The metric.
        bound: Its largest value, or its smallest where `direction` is "max".
        direction: The direction in which the metric gets better.
    """

    name: str
    bound: float
    direction: str

    def excess(self, value: float) -> float:
        """Returns by how much a value breaks the limit, relative to the bound; 0: it holds."""
        if math.isnan(value):
            return math.inf
        over = value - self.bound if self.direction == "min" else self.bound - value
        return max(0.0, over / max(abs(self.bound), 1e-12))

    def __str__(self) -> str:
        return f"{self.name} {'<=' if self.direction == 'min' else '>='} {self.bound:g}"


@dataclasses.dataclass(frozen=True)
class Objectives:
    """Objectives and limits.

    Args:
        names: Names of the objectives.
        directions: "min" or "max", an objective.
        limits: What must hold.
    """

    names: tuple[str, ...]
    directions: tuple[str, ...]
    limits: tuple[Limit, ...] = ()

    @classmethod
    def of(cls, objective: Any, limits: Mapping[str, float] | None = None) -> Objectives:
        """Returns the goals of an objective and of bounds by name.

        Args:
            objective: Of :func:`objective_of`, or what keras_tuner made of it.
            limits: Metric -> its bound: the most of what gets better downwards, the least
                of what gets better upwards.

        Raises:
            ValueError: A limit is no number, or its direction is not known.
        """
        parts = getattr(objective, "objectives", [objective])
        known = {**KNOWN_DIRECTIONS, **{part.name: part.direction for part in parts}}
        found = []
        if limits is not None and not isinstance(limits, Mapping):
            raise ValueError(f"limits must be a dictionary of metrics and bounds, got {limits!r}")
        for name, bound in dict(limits or {}).items():
            if name not in known:
                raise ValueError(
                    f"limits must name objectives or metrics that tfnas measures "
                    f"({', '.join(sorted(KNOWN_DIRECTIONS))}), got {name!r}"
                )
            number = isinstance(bound, numbers.Real) and not isinstance(bound, bool)
            if not number or not math.isfinite(bound):
                raise ValueError(f"limits[{name!r}] must be a number, got {bound!r}")
            if KNOWN_DIRECTIONS.get(name) == "min" and not (
                bound > 0 or (bound == 0 and name in _FROM_ZERO)
            ):
                raise ValueError(f"limits[{name!r}] must be above 0, got {bound!r}")
            found.append(Limit(name, float(bound), known[name]))
        names, directions = tuple(p.name for p in parts), tuple(p.direction for p in parts)
        return cls(names, directions, tuple(found))

    def losses(self, metrics: Mapping[str, float]) -> tuple[float, ...]:
        """Returns the objectives, each turned so that less is better."""
        return tuple(
            -metrics[name] if direction == "max" else metrics[name]
            for name, direction in zip(self.names, self.directions, strict=True)
        )

    def violation(self, metrics: Mapping[str, float]) -> float:
        """Returns how far the metrics are outside of the limits they tell of; 0: within."""
        return sum(lim.excess(metrics[lim.name]) for lim in self.limits if lim.name in metrics)

    def broken(self, metrics: Mapping[str, float]) -> list[str]:
        """Returns the limits that the metrics break, in words."""
        return [
            f"{limit.name} {metrics[limit.name]:g} breaks {limit}"
            for limit in self.limits
            if limit.name in metrics and limit.excess(metrics[limit.name]) > 0
        ]
