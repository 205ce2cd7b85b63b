"""Sparsity schedules: the target sparsity as a function of the training progress.

A :class:`Schedule` maps a position, an epoch or a step counted from 0, to a sparsity. It
depends on the position alone, so interrupted training continues where it stopped.
:func:`as_schedule` accepts:

- a plain function of the epoch, such as ``lambda epoch: 0 if epoch < 5 else 0.8``;
- :func:`constant` or :func:`polynomial`, by epoch or by step;
- a schedule of tensorflow-model-optimization (tfmot), such as PolynomialDecay, which counts
  steps. It is recognized without importing that package.

:func:`polynomial` and :func:`constant` name their arguments as tfmot's PolynomialDecay and
ConstantSparsity do. Only `begin` and `end` are not called begin_step and end_step, since they
may also count epochs.

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
    """The target sparsity as a function of the position in training.

    Args:
        function: Takes a position and returns the sparsity.
        unit: Unit of positions, "epoch" or "step".
        begin: First position at which the schedule applies; the sparsity before is 0.
        end: Position from which the sparsity is constant; None: unknown.
        frequency: Number of epochs or steps between two updates of the sparsity.

    Example:
        >>> schedule = Schedule(lambda step: min(step / 1000, 0.5), unit="step", frequency=100)
        >>> [schedule(step) for step in (0, 199, 200, 900)]
        [0.0, 0.1, 0.2, 0.5]

    Raises:
        ValueError: A field is out of range.
    """

    function: Callable[[int], Any]
    unit: str = "epoch"
    begin: int = 0
    end: int | None = None
    frequency: int = 1

    def __post_init__(self) -> None:
        if not isinstance(self.unit, str) or self.unit not in UNITS:
            raise ValueError(f"by must be one of {', '.join(UNITS)}, got {self.unit!r}")
        for name, value in (("begin", self.begin), ("end", self.end)):
            if value is not None and not _is_whole(value, 0):
                raise ValueError(f"{name} must be a whole number from 0 on, got {value!r}")
        if self.end is not None and self.end < self.begin:
            raise ValueError(f"end must not be before begin {self.begin}, got {self.end}")
        if not _is_whole(self.frequency, 1):
            raise ValueError(f"frequency must be a whole number above 0, got {self.frequency!r}")

    def __call__(self, position: int) -> float:
        """Returns the target sparsity at a position, in [0, 1).

        Args:
            position: Number of the epoch or step, from 0.

        Raises:
            ValueError: The function returns NaN or a value outside [0, 1).
        """
        if position < self.begin:
            return 0.0
        value = self.function(self.last_update(position))
        return check_ratio(value, f"at {self.unit} {position}", "sparsity")

    def last_update(self, position: int) -> int:
        """Returns the last position, up to and including this one, that updates the sparsity.

        Example:
            >>> polynomial(0.8, end=20, frequency=5).last_update(13)
            10

        Args:
            position: Number of the epoch or step, from 0.
        """
        if self.end is not None and position >= self.end:
            return self.end  # also where the frequency does not divide the way there
        return position - (position - self.begin) % self.frequency

    def peak(self, positions: int | None) -> float | None:
        """Returns the highest sparsity over the first positions, or None where it is unknown.

        Example:
            >>> polynomial(0.8, end=4).peak(10)
            0.8

        Args:
            positions: Number of epochs or steps of the training; None: unknown.

        Raises:
            ValueError: The function returns NaN or a value outside [0, 1) at one of them.
        """
        if self.end is not None:
            return max(self(p) for p in {self.begin, (self.begin + self.end) // 2, self.end})
        return None if positions is None else max(map(self, range(positions)), default=0.0)


def _is_whole(value: Any, least: int) -> bool:
    whole = isinstance(value, numbers.Integral) or (isinstance(value, float) and value.is_integer())
    return whole and not isinstance(value, bool) and value >= least


def check_ratio(value: Any, where: str = "", name: str = "ratio") -> float:
    """Returns a fraction in [0, 1), such as a sparsity, as a float.

    Example:
        >>> check_ratio(0.5)
        0.5

    Args:
        value: The fraction.
        where: Place of the value, such as "at epoch 3", for the error message.
        name: Name of the argument, for the error message.

    Returns:
        The fraction.

    Raises:
        ValueError: The value is not a number in [0, 1).
    """
    where = f" {where}" if where else ""
    try:
        ratio = float(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"{name} must be a number in [0, 1){where}, got {value!r}") from error
    if math.isnan(ratio) or not 0.0 <= ratio < 1.0:
        raise ValueError(f"{name} must be in [0, 1){where}, got {ratio}")
    return ratio


def constant(
    target_sparsity: float, begin: int = 0, by: str = "epoch", frequency: int = 1
) -> Schedule:
    """Returns a schedule that is 0 before `begin` and `target_sparsity` from there on.

    Example:
        >>> schedule = constant(0.5, begin=2)
        >>> [schedule(epoch) for epoch in range(4)]
        [0.0, 0.0, 0.5, 0.5]

    Args:
        target_sparsity: Fraction of zeros, in [0, 1).
        begin: First epoch or step at which it applies.
        by: Unit of `begin` and `frequency`, "epoch" or "step".
        frequency: Number of epochs or steps between two updates of the masks.

    Raises:
        ValueError: An argument is out of range.

    References:
        tfmot's `ConstantSparsity`.
    """
    value = check_ratio(target_sparsity, name="target_sparsity")
    return Schedule(lambda _: value, by, begin, begin, frequency)


def polynomial(
    final_sparsity: float,
    end: int,
    *,
    initial_sparsity: float = 0.0,
    begin: int = 0,
    power: float = 3.0,
    by: str = "epoch",
    frequency: int | None = None,
) -> Schedule:
    """Returns the polynomial schedule of Zhu and Gupta, which prunes fast first and then slower.

    s(t) = s_final + (s_initial - s_final) (1 - (t - begin) / (end - begin))^power   (1)

    between `begin` and `end`; 0 before and `final_sparsity` from `end` on.

    Example:
        >>> schedule = polynomial(0.8, end=4)
        >>> [round(schedule(epoch), 4) for epoch in range(6)]
        [0.0, 0.4625, 0.7, 0.7875, 0.8, 0.8]

    Args:
        final_sparsity: Fraction of zeros from `end` on, in [0, 1).
        end: First epoch or step with the final sparsity. Training of 10 epochs has the
            epochs 0 to 9.
        initial_sparsity: Fraction of zeros at `begin`, in [0, 1).
        begin: First epoch or step with pruning.
        power: Exponent; 1 is linear.
        by: Unit of `begin`, `end` and `frequency`, "epoch" or "step".
        frequency: Number of epochs or steps between two updates. None: 1 epoch; or 100
            steps, fewer where that would give less than 20 updates.

    Raises:
        ValueError: An argument is out of range.

    References:
        Zhu and Gupta, "To prune, or not to prune", 2017, equation (1); tfmot's
        `PolynomialDecay`.
    """
    last = check_ratio(final_sparsity, name="final_sparsity")
    first = check_ratio(initial_sparsity, name="initial_sparsity")
    number = isinstance(power, numbers.Real) and not isinstance(power, bool)
    if not (number and 0 < power < math.inf):
        raise ValueError(f"power must be above 0, got {power!r}")
    for name, value in (("begin", begin), ("end", end)):
        if not _is_whole(value, 0):
            raise ValueError(f"{name} must be a whole number from 0 on, got {value!r}")

    def sparsity(position: int) -> float:
        progress = 1.0 if position >= end else (position - begin) / (end - begin)
        return last + (first - last) * (1.0 - progress) ** power

    if frequency is None:
        # About 20 updates between begin and end, also in short trainings.
        fine = max(1, min(STEPS_BETWEEN_UPDATES, (end - begin) // 20))
        frequency = fine if isinstance(by, str) and by == "step" else 1
    return Schedule(sparsity, by, begin, end, frequency)


def as_schedule(schedule: Any, frequency: int | None = None, name: str = "schedule") -> Schedule:
    """Returns a number, a function or a schedule of tfmot as a :class:`Schedule`.

    Example:
        >>> as_schedule(lambda epoch: 0 if epoch < 5 else 0.5)(7)
        0.5

    Args:
        schedule: A :class:`Schedule`; a schedule of tensorflow-model-optimization; a
            function that takes the epoch and returns the sparsity; or a number, which is a
            constant sparsity.
        frequency: Number of epochs or steps between two updates; None: the schedule's own.
        name: Name of the argument, for the error message.

    Raises:
        ValueError: The schedule is none of these, or the frequency is out of range.
    """
    if _is_tfmot(schedule):
        found = _from_tfmot(schedule)
    elif isinstance(schedule, Schedule):
        found = schedule
    elif _is_keras(schedule):
        raise ValueError(
            f"{name} must return a sparsity, got {type(schedule).__name__}, a schedule of "
            "learning rates: see tfnas.schedules"
        )
    elif callable(schedule):
        found = Schedule(schedule)
    else:
        found = constant(check_ratio(schedule, name=name))
    return found if frequency is None else dataclasses.replace(found, frequency=frequency)


def batches_per_step(model: Any) -> int:
    """Returns the number of batches whose gradients one optimizer step of a model accumulates.

    Args:
        model: A Keras model, or None.
    """
    optimizer = getattr(model, "optimizer", None)
    inner = getattr(optimizer, "inner_optimizer", optimizer)  # of a LossScaleOptimizer
    return getattr(inner, "gradient_accumulation_steps", None) or 1


def _is_keras(schedule: Any) -> bool:
    return any(base.__name__ == "LearningRateSchedule" for base in type(schedule).__mro__)


def _is_tfmot(schedule: Any) -> bool:
    return any(
        base.__module__.startswith("tensorflow_model_optimization.")
        for base in type(schedule).__mro__
    )


def _from_tfmot(schedule: Any) -> Schedule:
    """Wraps a tfmot PruningSchedule: step -> (whether to prune, sparsity), as tensors."""
    begin, end = getattr(schedule, "begin_step", 0), getattr(schedule, "end_step", None)
    frequency = getattr(schedule, "frequency", STEPS_BETWEEN_UPDATES)
    if end is not None and end < 0:
        end = begin  # ConstantSparsity(end_step=-1) prunes until training ends

    def sparsity(step: int) -> float:
        return float(schedule(step)[1])

    return Schedule(sparsity, "step", begin, end, frequency)
