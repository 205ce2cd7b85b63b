"""Channel ids: which channels of which tensors must be pruned together.

Each output channel of a layer gets an id, a whole number. A tensor has one id per position of
each channel axis (:class:`Channels`): a feature map has one such axis, the heads of an attention
have two, (heads, values of a head). An operation on channels becomes an operation on ids: a
concatenation concatenates them, a Flatten repeats them, a depthwise convolution passes them on.
An addition couples the ids of its operands: coupled channels are kept or removed
together, and their *root*, the smallest id among them, stands for all of them. An operation
without a rule locks the ids of its inputs.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

ONLY_CHANNEL = "it is the only channel"


@dataclasses.dataclass(frozen=True, eq=False)
class Channels:
    """The channels of a tensor.

    Args:
        axes: Maps each channel axis, counted with the batch, to its channel ids, (size of the
            axis,). The other axes are places: a batch, rows, columns, tokens.
    """

    axes: Mapping[int, np.ndarray] = dataclasses.field(default_factory=dict)

    def moved(self, new_axis: Mapping[int, int]) -> Channels:
        """Returns the channels of a tensor with the axes in another order.

        Args:
            new_axis: Maps each channel axis to its new number.
        """
        return Channels({new_axis[axis]: ids for axis, ids in self.axes.items()})

    def without(self, gone: Collection[int], rank: int) -> Channels:
        """Returns the channels of a tensor without some axes.

        Args:
            gone: The removed axes.
            rank: Number of axes before.
        """
        left = [axis for axis in range(rank) if axis not in gone]
        return Channels({left.index(a): ids for a, ids in self.axes.items() if a not in gone})


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
        self._pairs: list[np.ndarray] = []  # each (2, coupled positions)
        self._makers: list[str] = []
        self._locked: dict[int, str] = {}

    def new(self, count: int, maker: str) -> np.ndarray:
        """Returns new ids, which are not coupled to others, (count,).

        Args:
            count: Number of ids.
            maker: Path of the layer whose output channels they are; "" for none.
        """
        first = len(self)
        self._makers += [maker] * count
        return np.arange(first, first + count)

    def join(self, left: np.ndarray, right: np.ndarray) -> None:
        """Couples two rows of ids, position by position.

        Args:
            left: Channel ids, (channels,).
            right: As many channel ids.

        Raises:
            ValueError: The rows differ in length.
        """
        if len(left) != len(right):
            raise ValueError(
                f"left and right must have the same length, got {len(left)} and {len(right)}"
            )
        self._pairs.append(np.stack([left, right]).astype(int))

    def lock(self, ids: np.ndarray, reason: str) -> None:
        """Marks ids, and all that are coupled to them, as not removable.

        Args:
            ids: Channel ids, (channels,).
            reason: Why they have to stay. The first reason of a channel counts.
        """
        for number in ids.tolist():
            self._locked.setdefault(number, reason)

    def roots(self, ids: np.ndarray) -> np.ndarray:
        """Returns the root of each id: the smallest id that is coupled to it.

        Args:
            ids: Channel ids, (channels,).

        Returns:
            The roots, of the same shape.
        """
        return self._all_roots()[np.asarray(ids, int)]

    def locked(self) -> dict[int, str]:
        """Returns the reason of each locked root."""
        found: dict[int, str] = {}
        for root, reason in zip(
            self.roots(np.array(list(self._locked), int)), self._locked.values(), strict=True
        ):
            found.setdefault(int(root), reason)
        return found

    def makers(self) -> list[str]:
        """Returns the path of the layer whose output channel each id is."""
        return list(self._makers)

    def __len__(self) -> int:
        return len(self._makers)

    def _all_roots(self) -> np.ndarray:
        """The root of every id, (ids,)."""
        every_id = np.arange(len(self))
        if not self._pairs:
            return every_id
        left, right = np.concatenate(self._pairs, axis=1)
        graph = coo_array((np.ones(len(left)), (left, right)), shape=(len(self), len(self)))
        count, component = connected_components(graph, directed=False)
        smallest = np.full(count, len(self))
        np.minimum.at(smallest, component, every_id)
        return smallest[component]
