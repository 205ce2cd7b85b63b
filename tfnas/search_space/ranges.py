"""Decisions over a range of numbers, without a list of choices.

A :class:`RangeDecision` maps positions in [0, 1) to values of a range, evenly on a linear, a
logarithmic or a reversed logarithmic scale, as keras_tuner's `Float` and `Int` do. Its positions
are drawn, changed, mixed and seen by a surrogate, so that a learning rate of 0.0001 to 0.1 is
searched evenly over its orders of magnitude. A policy chooses one of :data:`BINS` parts of the
range, and the value within it is drawn evenly: a density that is constant by parts.
"""

from __future__ import annotations

import dataclasses
import math
import numbers
from collections.abc import Hashable
from typing import Any

import numpy as np

from tfnas.search_space.search_space import ConditionedDecision

BINS = 8  # parts of a range that a policy chooses from
_SMALLEST_CHANGE = 1e-3  # scale of the smallest changes, as a fraction of the range
_SPREAD = math.sqrt(2.0)  # distance of the ends, that of two choices in a one-hot group


@dataclasses.dataclass(frozen=True)
class NumberRange:
    """A range of numbers on a scale.

    Example:
        >>> rates = NumberRange(1e-4, 1e-2, "log")
        >>> round(rates.value(0.5), 6)
        0.001
        >>> rates.position(1e-3) == 0.5
        True

    Args:
        low: The smallest value.
        high: The largest value, above `low`.
        sampling: "linear", "log" or "reverse_log".
        step: Difference of neighboring values, or on a logarithmic scale their factor; None: all
            real numbers, or with `integer` all whole numbers.
        integer: Whether values are whole numbers.
    """

    low: float
    high: float
    sampling: str = "linear"
    step: float | None = None
    integer: bool = False

    @property
    def count(self) -> float:
        """Number of values; infinite for real numbers."""
        if self.step is not None:
            if self.sampling == "linear":
                return int((self.high - self.low) / self.step + 1e-8) + 1
            return int(math.log(self.high / self.low, self.step) + 1e-8) + 1
        return int(self.high - self.low) + 1 if self.integer else math.inf

    def value(self, position: float) -> Any:
        """Returns the value at a position.

        Args:
            position: From 0 to 1; 1 is the largest value.
        """
        if self.step is not None:
            index = min(int(position * self.count), int(self.count) - 1)
            value = self._stepped(index)
        else:
            value = self._scaled(position, self._end)
        value = min(max(value, self.low), self.high)
        return int(value) if self.integer else float(value)

    def position(self, value: float) -> float:
        """Returns the position of a value: of a step the middle of its part.

        Args:
            value: A value of the range; a number outside counts as the nearest end.
        """
        value = min(max(value, self.low), self.high)
        if self.step is not None:
            return (self._index(value) + 0.5) / self.count
        value, end = (value + 0.5 if self.integer else value), self._end
        if self.sampling == "linear":
            return (value - self.low) / (end - self.low)
        if self.sampling == "log":
            return math.log(value / self.low) / math.log(end / self.low)
        return 1.0 - math.log((end + self.low - value) / self.low) / math.log(end / self.low)

    def nearest(self, value: float) -> Any:
        """Returns the value of the range that is nearest to a number.

        Args:
            value: A finite number.
        """
        value = min(max(value, self.low), self.high)
        if self.step is not None:
            value = min(max(self._stepped(self._index(value)), self.low), self.high)
        return round(value) if self.integer else float(value)

    @property
    def _end(self) -> float:
        return self.high + 1 if self.integer and self.step is None else self.high

    def _scaled(self, position: float, end: float) -> float:
        if self.sampling == "linear":
            return self.low + position * (end - self.low)
        if self.sampling == "log":
            return self.low * math.pow(end / self.low, position)
        return end + self.low - self.low * math.pow(end / self.low, 1 - position)

    def _stepped(self, index: int) -> float:
        assert self.step is not None
        if self.sampling == "linear":
            return self.low + index * self.step
        power = self.low * math.pow(self.step, index)
        return power if self.sampling == "log" else self.high + self.low - power

    def _index(self, value: float) -> int:
        """The number of the nearest step."""
        assert self.step is not None
        if self.sampling == "linear":
            steps = (value - self.low) / self.step
        else:
            factor = value if self.sampling == "log" else self.high + self.low - value
            steps = math.log(factor / self.low, self.step)
        return min(max(round(steps), 0), int(self.count) - 1)


@dataclasses.dataclass(frozen=True)
class RangeDecision(ConditionedDecision):
    """A decision whose value is any number of a range; it has no list of choices.

    Args:
        name: Name of the decision, unique in its space.
        choices: Always empty.
        parent: As for :class:`~tfnas.search_space.search_space.Decision`.
        parent_values: As for :class:`~tfnas.search_space.search_space.Decision`.
        conditions: As for :class:`~tfnas.search_space.search_space.ConditionedDecision`.
        range: The range.
    """

    range: NumberRange = NumberRange(0.0, 1.0)

    def __post_init__(self) -> None:
        if self.choices:
            raise ValueError(f"{self.name} must have a range alone, got {self.choices} too")

    @property
    def count(self) -> float:
        """Number of values; infinite for real numbers."""
        return self.range.count

    @property
    def num_options(self) -> int:
        """Number of parts of the range that a policy chooses from."""
        return BINS

    def option(self, value: Hashable) -> int:
        """Returns the part of the range that a value is in."""
        return min(int(self._position(value) * BINS), BINS - 1)

    def of_option(self, option: int, rng: np.random.Generator) -> Any:
        """Returns a random value of a part of the range."""
        return self.range.value((option + rng.random()) / BINS)

    def may_choose(self, option: int, value: Hashable) -> bool:
        """Returns True: each part, also that of the value, holds other values."""
        return True

    def draw(self, rng: np.random.Generator) -> Any:
        """Returns a random value, even on the scale of the range."""
        return self.range.value(rng.random())

    def changed(self, value: Hashable, rng: np.random.Generator) -> Any:
        """Returns another value: often a near one, sometimes one from far away.

        The step is normal with a random scale, from a thousandth of the range to all of it. At an
        end of the range it is reflected.
        """
        position = self._position(value)
        while True:
            scale = _SMALLEST_CHANGE ** rng.random()
            moved = abs(position + scale * rng.normal()) % 2.0
            other = self.range.value(min(moved, 2.0 - moved))
            if other != value:
                return other

    def mixed(self, first: Hashable, second: Hashable, rng: np.random.Generator) -> Any:
        """Returns a random value between two others, on the scale of the range."""
        a, b = self._position(first), self._position(second)
        return first if first == second else self.range.value(a + rng.random() * (b - a))

    def contains(self, value: Hashable) -> bool:
        """Returns whether a value is in the range; steps are not checked."""
        if isinstance(value, bool) or not isinstance(value, numbers.Real):
            return False
        return self.range.low <= float(value) <= self.range.high

    def nearest(self, value: Hashable) -> Any:
        """Returns the nearest value of the range; the smallest one for anything but a number."""
        if not isinstance(value, numbers.Real) or not math.isfinite(number := float(value)):
            return self.range.value(0.0)
        return self.range.nearest(number)

    def features(self, value: Hashable, active: bool) -> list[float]:
        """Returns whether the decision is active, and the value's position around 0."""
        return [1.0, _SPREAD * (self._position(value) - 0.5)] if active else [0.0, 0.0]

    def _position(self, value: Hashable) -> float:
        assert isinstance(value, numbers.Real)
        return self.range.position(float(value))
