"""Places of values in a drawing, and the numbers that stand on its axes."""

from __future__ import annotations

import dataclasses
import math

import numpy as np

_STEPS = (1, 2, 5, 10)


@dataclasses.dataclass(frozen=True)
class AxisScale:
    """Turns values into places along an axis.

    Example:
        >>> AxisScale(0.0, 10.0, 100.0, 200.0).place(5.0)
        150.0
        >>> AxisScale(1.0, 100.0, 0.0, 100.0, logarithmic=True).place(10.0)
        50.0

    Args:
        low: The least value.
        high: The largest value, above `low`.
        start: The place of the least value.
        end: The place of the largest value.
        logarithmic: Whether equal ratios are equally far apart; values are above 0.
    """

    low: float
    high: float
    start: float
    end: float
    logarithmic: bool = False

    def place(self, value: float) -> float:
        """Returns the place of a value, with one decimal."""
        low, high = self.low, self.high
        if self.logarithmic:
            low, high, value = math.log(low), math.log(high), math.log(value)
        return round(self.start + (value - low) / (high - low) * (self.end - self.start), 1)

    def ticks(self, count: int = 5) -> list[tuple[float, str]]:
        """Returns the places and the texts of round numbers along the axis.

        Example:
            >>> AxisScale(0.5, 3.5, 0.0, 300.0).ticks(3)
            [(50.0, '1'), (150.0, '2'), (250.0, '3')]
            >>> AxisScale(0.09, 2.5, 0.0, 100.0, logarithmic=True).ticks()[:2]
            [(3.2, '0.1'), (24.0, '0.2')]

        Args:
            count: About how many.
        """
        values = self._logarithmic_ticks() if self.logarithmic else self._ticks(count)
        return [(self.place(value), f"{value:g}") for value in values]

    def _ticks(self, count: int) -> list[float]:
        raw = (self.high - self.low) / count
        power = 10.0 ** math.floor(math.log10(raw))
        step = next(factor * power for factor in _STEPS if factor * power >= raw * (1 - 1e-9))
        first, last = math.ceil(self.low / step), math.floor(self.high / step)
        digits = max(0, 1 - math.floor(math.log10(step)))
        return [round(number * step, digits) + 0.0 for number in range(first, last + 1)]

    def _logarithmic_ticks(self) -> list[float]:
        powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        found = [round(f * 10.0**p, max(0, -p)) for p in powers for f in _STEPS[:-1]]
        return [value for value in found if self.low <= value <= self.high]


def around(
    values: list[float], start: float, end: float, *, logarithmic: bool = False, room: float = 0.06
) -> AxisScale:
    """Returns a scale that holds some values, with room at both ends.

    Args:
        values: The values; of none the scale goes from 0 to 1.
        start: The place of the least value.
        end: The place of the largest value.
        logarithmic: Whether equal ratios are equally far apart; values are above 0.
        room: The room, as a fraction of the axis.
    """
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    if logarithmic:
        more = (high / low) ** room if high > low else 1.1
        return AxisScale(low / more, high * more, start, end, logarithmic=True)
    more = room * (high - low) or 0.05 * abs(high) or 0.5
    return AxisScale(low - more, high + more, start, end)


def number(value: float | None) -> str:
    """Returns a measured value as a text that is short and says enough.

    Example:
        >>> number(0.12345), number(92.34), number(15600.0), number(None)
        ('0.123', '92.3', '15,600', '')

    Args:
        value: The value; None: unknown.
    """
    if value is None or not np.isfinite(value):
        return ""
    digits = 3 if abs(value) < 10 else 1 if abs(value) < 1000 else 0
    return f"{value:,.{digits}f}"
