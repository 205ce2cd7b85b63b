"""Channel ids: which channels of which tensors must be pruned together.

Each output channel of a layer gets an id, a whole number. A tensor has one id per position of
its channel axis (:class:`Channels`). An operation on channels becomes an operation on ids: a
concatenation concatenates them, a Flatten repeats them, a depthwise convolution passes them on.
An addition couples the ids of its operands (union-find): coupled channels are kept or removed
together, and their *root*, the smallest id among them, stands for all of them. An operation
without a rule locks the ids of its inputs.
"""

from __future__ import annotations

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True, eq=False)
class Channels:
    """The channels of a tensor.

    Args:
        axis: The channel axis, counted with the batch.
        ids: Channel ids, (size of the axis,).
    """

    axis: int
    ids: np.ndarray


class ChannelIds:
    """Creates, couples and locks channel ids.

    Example:
        >>> channels = ChannelIds()
        >>> a, b = channels.new(3, "a"), channels.new(3, "b")
        >>> channels.join(a, b)
        >>> channels.roots(b)
        array([0, 1, 2])
    """

    def __init__(self) -> None:
        self._parents: list[int] = []
        self._makers: list[str] = []
        self._locked: dict[int, str] = {}

    def new(self, count: int, maker: str) -> np.ndarray:
        """Returns new ids, which are not coupled to others.

        Args:
            count: Number of ids.
            maker: Path of the layer whose output channels they are; "" for none.
        """
        first = len(self._parents)
        self._parents += range(first, first + count)
        self._makers += [maker] * count
        return np.arange(first, first + count)

    def join(self, left: np.ndarray, right: np.ndarray) -> None:
        """Couples two rows of ids, position by position."""
        for a, b in zip(left.tolist(), right.tolist(), strict=True):
            one, other = self._root(a), self._root(b)
            if one != other:
                self._parents[max(one, other)] = min(one, other)

    def lock(self, ids: np.ndarray, reason: str) -> None:
        """Marks ids, and all that are coupled to them, as not removable."""
        for number in ids.tolist():
            self._locked.setdefault(number, reason)

    def roots(self, ids: np.ndarray) -> np.ndarray:
        """Returns the root of each id: the smallest id that is coupled to it."""
        return np.array([self._root(number) for number in ids.tolist()], int)

    def locked(self) -> dict[int, str]:
        """Returns the reason of each locked root."""
        found: dict[int, str] = {}
        for number, reason in self._locked.items():
            found.setdefault(self._root(number), reason)
        return found

    def makers(self) -> list[str]:
        """Returns the path of the layer whose output channel each id is."""
        return list(self._makers)

    def __len__(self) -> int:
        return len(self._parents)

    def _root(self, number: int) -> int:
        while self._parents[number] != number:
            self._parents[number] = self._parents[self._parents[number]]
            number = self._parents[number]
        return number
