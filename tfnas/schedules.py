"""Values that depend on how far training has come.

A :class:`Schedule` maps a position, counted in epochs or in steps from 0, to a ratio. It
is a function of the position alone, so that training which was interrupted goes on where
it was. :func:`as_schedule` turns whatever a caller may give into one:

- a plain function of the epoch, such as ``lambda epoch: 0 if epoch < 5 else 0.8``;
- :func:`constant` or :func:`polynomial`, by epoch or by step;
- a schedule of tensorflow-model-optimization, which is asked by step and is told apart
  without importing that package.

This module imports no TensorFlow.
"""

from __future__ import annotations

import dataclasses
import math
import numbers
from collections.abc import Callable
from typing import Any

UNITS = ("epoch", "step")
STEPS_BETWEEN_UPDATES = 100  # tensorflow-model-optimization's default


@dataclasses.dataclass(frozen=True)
class Schedule:
    """A ratio as a function of the position in training.

    Args:
        function: Position -> ratio.
        unit: "epoch" or "step": what positions count.
        begin: First position at which it applies; before, the ratio is 0.
        end: Position from which the ratio no longer changes, None where that is unknown.
        every: Distance of the positions at which the ratio is renewed.
    """

    function: Callable[[int], Any]
    unit: str = "epoch"
    begin: int = 0
    end: int | None = None
    every: int = 1

    def __post_init__(self) -> None:
        if not isinstance(self.unit, str) or self.unit not in UNITS:
            raise ValueError(f"by must be one of {', '.join(UNITS)}, got {self.unit!r}")
        for name, value in (("begin", self.begin), ("end", self.end)):
            if value is not None and not _is_whole(value, 0):
                raise ValueError(f"{name} must be a whole number from 0 on, got {value!r}")
        if self.end is not None and self.end < self.begin:
            raise ValueError(f"end must not be before begin {self.begin}, got {self.end}")
        if not _is_whole(self.every, 1):
            raise ValueError(f"frequency must be a whole number above 0, got {self.every!r}")

    def __call__(self, position: int) -> float:
        """Returns the ratio in force at a position, in [0, 1).

        Raises:
            ValueError: The schedule gives NaN or a ratio outside [0, 1).
        """
        if position < self.begin:
            return 0.0
        return check_ratio(self.function(self.renewal(position)), f"at {self.unit} {position}")

    def renewal(self, position: int) -> int:
        """Returns the last position up to this one at which the ratio was renewed."""
        if self.end is not None and position >= self.end:
            return self.end  # reached also where `every` steps over it
        return position - (position - self.begin) % self.every

    def peak(self, positions: int | None) -> float | None:
        """Returns the highest ratio over the first positions, None where it can't be known.

        Raises:
            ValueError: The schedule gives NaN or a ratio outside [0, 1) on the way.
        """
        if self.end is not None:
            return max(self(p) for p in {self.begin, (self.begin + self.end) // 2, self.end})
        return None if positions is None else max(map(self, range(positions)), default=0.0)


def _is_whole(value: Any, least: int) -> bool:
    whole = isinstance(value, numbers.Integral) or (isinstance(value, float) and value.is_integer())
    return whole and not isinstance(value, bool) and value >= least


def check_ratio(value: Any, where: str = "", name: str = "ratio") -> float:
    """Returns a ratio as a float.

    Example:
        >>> check_ratio(0.5)
        0.5

    Args:
        value: The ratio.
        where: Where it was met, for the error message.
        name: Name of the argument, for the error message.

    Raises:
        ValueError: It is no number in [0, 1).
    """
    where = f" {where}" if where else ""
    try:
        ratio = float(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"{name} must be a number in [0, 1){where}, got {value!r}") from error
    if math.isnan(ratio) or not 0.0 <= ratio < 1.0:
        raise ValueError(f"{name} must be in [0, 1){where}, got {ratio}")
    return ratio


def constant(ratio: float, begin: int = 0, by: str = "epoch", frequency: int = 1) -> Schedule:
    """Returns a schedule that is 0 before `begin` and `ratio` from there on.

    Example:
        >>> schedule = constant(0.5, begin=2)
        >>> [schedule(epoch) for epoch in range(4)]
        [0.0, 0.0, 0.5, 0.5]

    Args:
        ratio: In [0, 1).
        begin: First epoch or step at which it applies.
        by: "epoch" or "step".
        frequency: How many epochs or steps lie between two renewals.

    Raises:
        ValueError: An argument is outside its rule.
    """
    value = check_ratio(ratio)
    return Schedule(lambda _: value, by, begin, begin, frequency)


def polynomial(
    final: float,
    end: int,
    *,
    initial: float = 0.0,
    begin: int = 0,
    power: float = 3.0,
    by: str = "epoch",
    frequency: int | None = None,
) -> Schedule:
    """Returns the schedule of Zhu and Gupta: fast at first, then ever slower.

    ratio(t) = final + (initial - final) (1 - (t - begin) / (end - begin))^power   (1)

    between `begin` and `end`; 0 before and `final` from `end` on.

    Example:
        >>> schedule = polynomial(0.8, end=4)
        >>> [round(schedule(epoch), 4) for epoch in range(6)]
        [0.0, 0.4625, 0.7, 0.7875, 0.8, 0.8]

    Args:
        final: Ratio from `end` on, in [0, 1).
        end: First epoch or step with the final ratio. Training that lasts 10 epochs has
            the epochs 0 to 9.
        initial: Ratio at `begin`.
        begin: First epoch or step that is pruned.
        power: Exponent; 1 is linear.
        by: "epoch" or "step".
        frequency: How many epochs (default 1) or steps (default 100, less where there
            would be fewer than twenty) lie between two renewals.

    Raises:
        ValueError: An argument is outside its rule.

    References:
        Zhu and Gupta, "To prune, or not to prune", 2017, equation (1).
    """
    last = check_ratio(final, name="final")
    first = check_ratio(initial, name="initial")
    number = isinstance(power, numbers.Real) and not isinstance(power, bool)
    if not (number and 0 < power < math.inf):
        raise ValueError(f"power must be above 0, got {power!r}")
    for name, value in (("begin", begin), ("end", end)):
        if not _is_whole(value, 0):
            raise ValueError(f"{name} must be a whole number from 0 on, got {value!r}")

    def ratio(position: int) -> float:
        share = 1.0 if position >= end else (position - begin) / (end - begin)
        return last + (first - last) * (1.0 - share) ** power

    if frequency is None:
        # Some twenty renewals on the way, also where the way is short.
        fine = max(1, min(STEPS_BETWEEN_UPDATES, (end - begin) // 20))
        frequency = fine if isinstance(by, str) and by == "step" else 1
    return Schedule(ratio, by, begin, end, frequency)


def as_schedule(schedule: Any, frequency: int | None = None, name: str = "schedule") -> Schedule:
    """Returns whatever describes a schedule as one.

    Example:
        >>> as_schedule(lambda epoch: 0 if epoch < 5 else 0.5)(7)
        0.5

    Args:
        schedule: A :class:`Schedule`; a schedule of tensorflow-model-optimization; a
            function epoch -> ratio; or a number, which is a constant ratio.
        frequency: Distance of two renewals; None: the schedule's own.
        name: Name of the argument, for the error message.

    Raises:
        ValueError: It is none of these.
    """
    if _is_tfmot(schedule):
        found = _from_tfmot(schedule)
    elif isinstance(schedule, Schedule):
        found = schedule
    elif _is_keras(schedule):
        raise ValueError(
            f"{name} must give a share of zeros, got {type(schedule).__name__}, a schedule of "
            "learning rates: see tfnas.schedules"
        )
    elif callable(schedule):
        found = Schedule(schedule)
    else:
        found = constant(check_ratio(schedule, name=name))
    return found if frequency is None else dataclasses.replace(found, every=frequency)


def _is_keras(schedule: Any) -> bool:
    return any(base.__name__ == "LearningRateSchedule" for base in type(schedule).__mro__)


def _is_tfmot(schedule: Any) -> bool:
    return any(
        base.__module__.startswith("tensorflow_model_optimization.")
        for base in type(schedule).__mro__
    )


def _from_tfmot(schedule: Any) -> Schedule:
    """A tfmot PruningSchedule: step -> (whether to prune, ratio), as tensors."""
    begin, end = getattr(schedule, "begin_step", 0), getattr(schedule, "end_step", None)
    every = getattr(schedule, "frequency", STEPS_BETWEEN_UPDATES)
    if end is not None and end < 0:
        end = begin  # ConstantSparsity(end_step=-1) prunes for ever, at one ratio

    def ratio(step: int) -> float:
        return float(schedule(step)[1])

    return Schedule(ratio, "step", begin, end, every)
