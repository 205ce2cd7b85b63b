"""Channels by identity: which positions of which tensors must stay or go together.

Every channel that some layer makes is an *atom*, a number. A tensor carries one atom a
position of its channel axis (:class:`Channels`). What an operation does to channels is done to
these numbers: a concatenation joins two rows of them, a Flatten repeats them, a depthwise
convolution hands them on. Where an addition meets two atoms they become one (union-find):
they stay or go together. What is not understood locks the atoms that it sees.
"""

from __future__ import annotations

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True, eq=False)
class Channels:
    """The channels of a tensor.

    Args:
        axis: The channel axis, counted with the batch.
        labels: (size of the axis,), an atom a position.
    """

    axis: int
    labels: np.ndarray


class ChannelIds:
    """A growing set of atoms, in classes that stay or go together."""

    def __init__(self) -> None:
        self._parents: list[int] = []
        self._makers: list[str] = []
        self._locked: dict[int, str] = {}

    def fresh(self, count: int, maker: str) -> np.ndarray:
        """Returns new atoms, each alone in its class.

        Args:
            count: How many.
            maker: Name of the layer that makes these channels.
        """
        first = len(self._parents)
        self._parents += range(first, first + count)
        self._makers += [maker] * count
        return np.arange(first, first + count)

    def join(self, left: np.ndarray, right: np.ndarray) -> None:
        """Joins the classes of two rows of atoms, position by position."""
        for a, b in zip(left.tolist(), right.tolist(), strict=True):
            one, other = self._root(a), self._root(b)
            if one != other:
                self._parents[max(one, other)] = min(one, other)

    def lock(self, labels: np.ndarray, reason: str) -> None:
        """Keeps atoms, and so all of their classes, whatever they are worth."""
        for atom in labels.tolist():
            self._locked.setdefault(atom, reason)

    def roots(self, labels: np.ndarray) -> np.ndarray:
        """Returns the class of each atom, named by its least atom."""
        return np.array([self._root(atom) for atom in labels.tolist()], int)

    def locked(self) -> dict[int, str]:
        """Returns class -> why it is locked."""
        found: dict[int, str] = {}
        for atom, reason in self._locked.items():
            found.setdefault(self._root(atom), reason)
        return found

    def makers(self) -> list[str]:
        """Returns the layer that makes each atom."""
        return list(self._makers)

    def __len__(self) -> int:
        return len(self._parents)

    def _root(self, atom: int) -> int:
        while self._parents[atom] != atom:
            self._parents[atom] = self._parents[self._parents[atom]]
            atom = self._parents[atom]
        return atom
