"""The metrics that tfnas measures: their directions, and limits of them. Loads nothing heavy."""

from __future__ import annotations

import dataclasses
import math
import numbers
from collections.abc import Mapping, Sequence

from tfnas.runtime.argument_rules import did_you_mean, near

REWARD = "reward"
KNOWN_DIRECTIONS = {
    REWARD: "max",
    "file_accuracy": "max",
    "latency_ratio": "min",
    "latency_ms": "min",
    "size_bytes": "min",
    "gzip_bytes": "min",
    "macs": "min",
    "parameters": "min",
    "peak_activation_bytes": "min",
    "flash_bytes": "min",
    "ram_bytes": "min",
    "vela_ms": "min",
    "vela_cycles": "min",
    "vela_sram_bytes": "min",
    "vela_flash_bytes": "min",
    "vela_cpu_operators": "min",
    "delegated_macs": "max",
}
"""Metrics that tfnas measures itself, with the direction in which they get better."""
_MAY_BE_ZERO = ("vela_cpu_operators",)
_OF_NETWORKS = ("loss", "accuracy", "val_loss", "val_accuracy", "rung", "epochs", "inherited")


def default_objectives(target_ms: float | None, target_ratio: float | None) -> tuple[str, ...]:
    """Returns what is searched for in a space where no objective is set.

    Without a target the reward would be the accuracy, whatever a network costs.

    Example:
        >>> default_objectives(None, 0.2), default_objectives(None, None)
        (('reward',), ('file_accuracy', 'latency_ratio'))

    Args:
        target_ms: The target latency in ms; None: there is none.
        target_ratio: The target latency as a ratio to the reference model's; None: there is none.
    """
    has_target = target_ms is not None or target_ratio is not None
    return (REWARD,) if has_target else ("file_accuracy", "latency_ratio")


def check_names_of_networks(objectives: Sequence[str]) -> None:
    """Checks the objectives of a search whose networks tfnas itself builds and trains.

    Example:
        >>> check_names_of_networks(["file_accuracy", "val_accuracy=max"])
        >>> check_names_of_networks(["file_acuracy"])
        Traceback (most recent call last):
        ValueError: objectives must name metrics of the trials, got 'file_acuracy': did you mean \
'file_accuracy'?

    Args:
        objectives: Names, each perhaps with its direction: "val_accuracy=max".

    Raises:
        ValueError: No trial would report one of them.
    """
    known = [*KNOWN_DIRECTIONS, *_OF_NETWORKS]
    for text in objectives:
        name = text.partition("=")[0]
        if name not in known:
            raise ValueError(
                f"objectives must name metrics of the trials, got {name!r}: "
                f"{did_you_mean(name, known)}"
            )


@dataclasses.dataclass(frozen=True)
class Limit:
    """A bound that a metric must keep.

    Args:
        name: Name of the metric.
        bound: Its largest value, or its smallest value if `direction` is "max".
        direction: "min" or "max", the direction in which the metric gets better.
    """

    name: str
    bound: float
    direction: str

    def excess(self, value: float) -> float:
        """Returns by how much a value exceeds the limit, relative to the bound; 0: it keeps it."""
        if math.isnan(value):
            return math.inf
        over = value - self.bound if self.direction == "min" else self.bound - value
        return max(0.0, over / max(abs(self.bound), 1e-12))

    def __str__(self) -> str:
        return f"{self.name} {'<=' if self.direction == 'min' else '>='} {self.bound:g}"


def checked_limits(
    limits: Mapping[str, float] | None, known: Mapping[str, str]
) -> tuple[Limit, ...]:
    """Returns limits of metrics.

    Args:
        limits: Metric -> bound.
        known: Metric -> direction, of all that may have a limit.

    Raises:
        ValueError: A bound is not a finite number, or a metric is unknown.
    """
    checked = []
    if limits is not None and not isinstance(limits, Mapping):
        raise ValueError(f"limits must be a dictionary of metrics and bounds, got {limits!r}")
    for name, bound in dict(limits or {}).items():
        if name not in known:
            raise ValueError(
                f"limits must name objectives or metrics that tfnas measures "
                f"({', '.join(sorted(KNOWN_DIRECTIONS))}), got {name!r}{near(str(name), known)}"
            )
        number = isinstance(bound, numbers.Real) and not isinstance(bound, bool)
        if not number or not math.isfinite(bound):
            raise ValueError(f"limits[{name!r}] must be a number, got {bound!r}")
        if KNOWN_DIRECTIONS.get(name) == "min" and not (
            bound > 0 or (bound == 0 and name in _MAY_BE_ZERO)
        ):
            raise ValueError(f"limits[{name!r}] must be above 0, got {bound!r}")
        checked.append(Limit(name, float(bound), known[name]))
    return tuple(checked)
