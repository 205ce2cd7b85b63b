"""Objectives of a search with their directions, and hard limits.

:class:`Objectives` defines which of two trials is better. A trial that keeps all limits is better
than one that doesn't; of two that don't, the one with the smaller violation is better (Deb's
constrained domination). Trials with several objectives are ranked by Pareto fronts
(:mod:`tfnas.nas.samplers.pareto_selection`).

References:
    Deb et al., "A Fast and Elitist Multiobjective Genetic Algorithm: NSGA-II", IEEE
    Transactions on Evolutionary Computation 2002, section VI.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import keras_tuner as kt

from tfnas.nas.keras_tuner_private import MultiObjective, created_objective
from tfnas.nas.metric_directions import KNOWN_DIRECTIONS, Limit, checked_limits
from tfnas.runtime.argument_rules import did_you_mean

ObjectiveLike: TypeAlias = str | kt.Objective | Sequence[str | kt.Objective] | None

_OF_KERAS = [
    f"{part}{name}" for part in ("", "val_") for name in ("loss", "accuracy", "auc", "mae", "mse")
]


class ParetoObjective(MultiObjective):
    """Several objectives that are not summed up; keras_tuner gets the value of the first one.

    Args:
        objectives: keras_tuner's objectives.
    """

    def __init__(self, objectives: list[kt.Objective]) -> None:
        super().__init__(objectives)
        # keras_tuner looks up an objective by its name in a trial's metrics.
        self.name, self.direction = objectives[0].name, objectives[0].direction

    def get_value(self, logs: Mapping[str, float]) -> float:
        """Returns the first objective's value."""
        return logs[self.objectives[0].name]


def objective_of(objective: ObjectiveLike, default: ObjectiveLike = None) -> Any:
    """Returns an objective for keras_tuner, with the directions of tfnas' metrics.

    Example:
        >>> print(objective_of("latency_ratio"), objective_of("val_f1=max"))
        Objective(name="latency_ratio", direction="min") Objective(name="val_f1", direction="max")

    Args:
        objective: A name, a `keras_tuner.Objective`, a list of them, or None. A name may have its
            direction: "val_f1=max".
        default: Used if `objective` is None.

    Raises:
        ValueError: A direction is unknown, a name comes twice, or the list is empty.
    """
    objective = default if objective is None else objective
    if isinstance(objective, list | tuple):
        if not objective:
            raise ValueError("objective must have at least one name, got an empty list")
        objectives = [_created(part) for part in objective]
        names = [part.name for part in objectives]
        if len(set(names)) < len(names):
            raise ValueError(f"objective must hold no name twice, got {', '.join(names)}")
        return objectives[0] if len(objectives) == 1 else ParetoObjective(objectives)
    if isinstance(objective, str):
        return _named(objective)
    if isinstance(objective, kt.Objective) and objective.direction not in ("min", "max"):
        raise ValueError(
            f"objective must have the direction 'min' or 'max', got {objective.direction!r}"
        )
    return objective


def _created(part: Any) -> kt.Objective:
    return created_objective(objective_of(part))


def _named(text: str) -> kt.Objective:
    """The objective of a name, with the direction that it has, that tfnas knows or Keras infers."""
    name, sign, direction = text.partition("=")
    if sign:
        if not name or direction not in ("min", "max"):
            raise ValueError(f"objective must be a name, name=min or name=max, got {text!r}")
        return kt.Objective(name, direction)
    if name in KNOWN_DIRECTIONS:
        return kt.Objective(name, KNOWN_DIRECTIONS[name])
    try:
        return created_objective(name)
    except ValueError as error:
        raise ValueError(
            f"objective must be a metric that tfnas measures ({', '.join(KNOWN_DIRECTIONS)}), one "
            f"of Keras' by its name, or have a direction ({name}=max), got {name!r}: "
            f"{did_you_mean(name, [*KNOWN_DIRECTIONS, *_OF_KERAS])}"
        ) from error


@dataclasses.dataclass(frozen=True)
class Objectives:
    """The objectives and limits of a search.

    Args:
        names: Names of the objectives.
        directions: "min" or "max" for each objective.
        limits: The limits.
    """

    names: tuple[str, ...]
    directions: tuple[str, ...]
    limits: tuple[Limit, ...] = ()

    @classmethod
    def of(cls, objective: Any, limits: Mapping[str, float] | None = None) -> Objectives:
        """Returns the objectives and limits of a search.

        Args:
            objective: The result of :func:`objective_of`, or the `objective` of an oracle.
            limits: Metric -> bound: the largest value of metrics that are minimized, the smallest
                value of those that are maximized.

        Raises:
            ValueError: A bound is not a finite number, or the direction of a metric is unknown.
        """
        parts = getattr(objective, "objectives", [objective])
        known = {**KNOWN_DIRECTIONS, **{part.name: part.direction for part in parts}}
        checked = checked_limits(limits, known)
        names, directions = tuple(p.name for p in parts), tuple(p.direction for p in parts)
        return cls(names, directions, checked)

    @property
    def all_names(self) -> set[str]:
        """Names of the objectives and of the metrics that have a limit."""
        return {*self.names, *(limit.name for limit in self.limits)}

    def losses(self, metrics: Mapping[str, float]) -> tuple[float, ...]:
        """Returns the objectives, with the sign changed of those that are maximized."""
        return tuple(
            -metrics[name] if direction == "max" else metrics[name]
            for name, direction in zip(self.names, self.directions, strict=True)
        )

    def violation(self, metrics: Mapping[str, float]) -> float:
        """Returns the sum of the relative excesses over the limits of these metrics; 0: none."""
        return sum(lim.excess(metrics[lim.name]) for lim in self.limits if lim.name in metrics)

    def broken(self, metrics: Mapping[str, float]) -> list[str]:
        """Returns a sentence for each limit that the metrics break."""
        return [
            f"{limit.name} {metrics[limit.name]:g} breaks {limit}"
            for limit in self.limits
            if limit.name in metrics and limit.excess(metrics[limit.name]) > 0
        ]

    def standing(self, metrics: Mapping[str, float]) -> list[str]:
        """Returns a sentence for each limit: its metric's value, and whether it keeps the limit.

        Example:
            >>> Objectives.of(objective_of("reward"), {"ram_bytes": 65536}).standing(
            ...     {"reward": 0.9, "ram_bytes": 40960}
            ... )
            ['ram_bytes 40,960 keeps <= 65,536']

        Args:
            metrics: The metrics of a trial.
        """
        return [_standing(limit, metrics.get(limit.name)) for limit in self.limits]


def target_standing(ratio: float | None, target: float | None) -> list[str]:
    """Returns a sentence on the target latency; none without a target or a latency.

    Example:
        >>> target_standing(0.081, 0.05)
        ['target latency 0.05x missed']

    Args:
        ratio: The latency of a file, as a ratio to the reference model's.
        target: The target latency, likewise.
    """
    if ratio is None or target is None:
        return []
    return [f"target latency {metric_text(target)}x {'met' if ratio <= target else 'missed'}"]


def _standing(limit: Limit, value: float | None) -> str:
    bound = f"{'<=' if limit.direction == 'min' else '>='} {metric_text(limit.bound)}"
    if value is None:
        return f"{limit.name} not measured, must be {bound}"
    verb, text = "breaks" if limit.excess(value) else "keeps", metric_text(value)
    if text == metric_text(limit.bound) and value != limit.bound:
        text = f"{value:.9g}"
    return f"{limit.name} {text} {verb} {bound}"


def metric_text(value: float) -> str:
    """Returns the value of a metric of any size as a short text.

    Example:
        >>> metric_text(0.91234), metric_text(40960.0)
        ('0.9123', '40,960')

    Args:
        value: The value.
    """
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
