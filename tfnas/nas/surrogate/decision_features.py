"""Architectures as features of a surrogate, in a group for each decision.

A decision among names is seen as equal or different alone. Of a decision among numbers, such as a
kernel size, the surrogate sees the order too: near choices are alike. Both are groups of their own,
so that the trials decide which of them counts.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tfnas.nas.surrogate.gaussian_process import FeatureGroups
from tfnas.search_space.search_space import Decision

_ORDER = 0.7  # logarithm of the prior weight of a number's order, relative to a name's
_DIFFERENCE = -1.5  # of the difference of two numbers beyond their order
_SPAN = 8.0**0.5  # distance of the smallest and the largest number; of two names it is sqrt(2)


class DecisionFeatures:
    """The features of the decisions of a search space.

    Args:
        decisions: The decisions.
        width: Number of features of an encoded architecture: those of the decisions, then others.
    """

    def __init__(self, decisions: Sequence[Decision], width: int) -> None:
        self.decisions, self.width = tuple(decisions), width
        self._orders: list[tuple[slice, np.ndarray]] = []
        index: list[int] = []
        offsets: list[float] = []
        scales: list[float] = []
        ordered = 0
        for decision in self.decisions:
            size, numbers = len(decision.features(None, False)), _numbers(decision)
            part = slice(len(index), len(index) + size)
            if numbers is not None:
                low, span = min(numbers), max(numbers) - min(numbers)
                places = [_SPAN * ((number - low) / span - 0.5) for number in numbers]
                self._orders.append((part, np.array(places)))
                ordered += 1
            plain = 0.0 if decision.choices else _ORDER
            offsets.append(plain if numbers is None else _DIFFERENCE)
            index += [len(offsets) - 1] * size
            scales += [1.0 if decision.choices else 2.0] * size
        others = width - len(index)
        index += [len(offsets) + i for i in range(max(others, 0))]
        offsets += [0.0] * max(others, 0)
        index += [len(offsets) + i for i in range(ordered)]
        offsets += [_ORDER] * ordered
        self._scales = np.array(scales + [1.0] * max(others, 0))
        self.groups = FeatureGroups(np.array(index), np.array(offsets))

    def of(self, encoded: np.ndarray) -> np.ndarray:
        """Returns the features of encoded architectures, (n, features).

        Args:
            encoded: What the search space encodes, (n, width).
        """
        encoded = np.asarray(encoded, float)
        orders = [encoded[:, part] @ places for part, places in self._orders]
        return np.column_stack([encoded * self._scales, *orders])


def _numbers(decision: Decision) -> list[float] | None:
    """The choices of a decision among at least three numbers; None of any other."""
    choices = decision.choices
    are_numbers = all(isinstance(c, int | float) and not isinstance(c, bool) for c in choices)
    return [float(choice) for choice in choices] if are_numbers and len(choices) > 2 else None
