"""MACs and parameters of a model after the removal of channels, without building it."""

from __future__ import annotations

import dataclasses
import math
from typing import Literal

import numpy as np

from tfnas.graph.macs import call_macs
from tfnas.pruning.structured.channel_groups import Dependencies
from tfnas.pruning.structured.channel_trace import ChannelLayer, ChannelWeight, Use


@dataclasses.dataclass(frozen=True, eq=False)
class _Term:
    """A count that is proportional to the numbers of channels along some axes.

    Args:
        constant: The count for one channel along each of these axes.
        rows: The channel ids along each axis.
    """

    constant: int
    rows: tuple[np.ndarray, ...]

    @classmethod
    def of_weight(cls, weight: ChannelWeight) -> _Term:
        """The elements of a weight."""
        sizes = (n for axis, n in enumerate(weight.shape) if axis not in weight.axes)
        return cls(math.prod(sizes), tuple(weight.axes.values()))

    def times(self, use: Use) -> _Term:
        """The count at each position of a use."""
        return _Term(self.constant * use.positions, (*self.rows, *use.ids))

    def count(self, dependencies: Dependencies, removed: np.ndarray) -> int:
        """The count after a removal."""
        kept = (int(dependencies.kept(ids, removed).sum()) for ids in self.rows)
        return self.constant * math.prod(kept)


def _macs_terms(layer: ChannelLayer) -> list[_Term]:
    """The multiply-accumulates of a layer's kernels and products."""
    one = _Term(1, ())
    kernels = [
        _Term.of_weight(weight).times(use) for weight in layer.weights for use in weight.uses
    ]
    return kernels + [one.times(use) for use in layer.products]


class RemainingCosts:
    """Counts the MACs, weights and channels that remain after a removal.

    `nothing` is the removal of no channel. `uncounted` holds the paths of the layers whose MACs
    are unknown; they count as 0, and a target by MACs can't be set.

    Args:
        dependencies: The traced model.
        parameters: Number of all weights of the model.
    """

    def __init__(self, dependencies: Dependencies, parameters: int) -> None:
        self._dependencies = dependencies
        weights = [w for layer in dependencies.layers.values() for w in layer.weights]
        self._elements = [_Term.of_weight(weight) for weight in weights]
        self._rest = parameters - sum(math.prod(weight.shape) for weight in weights)
        macs = {call: call_macs(call) for call in dependencies.flow.calls}
        self.uncounted = sorted({call.name for call, count in macs.items() if count is None})
        counted: dict[int, int] = {}
        for call, count in macs.items():
            counted[id(call.operation)] = counted.get(id(call.operation), 0) + (count or 0)
        self.nothing = np.zeros(len(dependencies.roots), bool)
        self._terms: list[_Term] = []
        self._other_macs = sum(counted.values())  # that do not depend on channels
        for key, layer in dependencies.layers.items():
            terms = _macs_terms(layer)
            total = sum(term.count(dependencies, self.nothing) for term in terms)
            if total <= counted.get(key, 0):  # else some are not counted: none is
                self._terms += terms
                self._other_macs -= total

    def macs(self, removed: np.ndarray) -> int:
        """Returns the MACs per example.

        Args:
            removed: Whether each root is removed, boolean, (channel ids,).
        """
        counts = (term.count(self._dependencies, removed) for term in self._terms)
        return self._other_macs + sum(counts)

    def parameters(self, removed: np.ndarray) -> int:
        """Returns the number of weights.

        Args:
            removed: Whether each root is removed, boolean, (channel ids,).
        """
        counts = (term.count(self._dependencies, removed) for term in self._elements)
        return self._rest + sum(counts)

    def kept_fraction(self, removed: np.ndarray) -> float:
        """Returns the fraction of the removable channels that is kept, in [0, 1].

        Args:
            removed: Whether each root is removed, boolean, (channel ids,).
        """
        groups = self._dependencies.groups
        removable = np.concatenate([g.removable for g in groups] or [np.zeros(0, int)])
        return 1.0 - float(removed[removable].mean()) if len(removable) else 1.0

    def savings(self, unit: Literal["macs", "parameters"]) -> np.ndarray:
        """Returns the MACs or parameters that the removal of each root alone saves, (channel ids,).

        Args:
            unit: "macs" (per example) or "parameters".
        """
        saved = np.zeros(len(self.nothing))
        for term in self._terms if unit == "macs" else self._elements:
            total = term.count(self._dependencies, self.nothing)
            for ids in term.rows:
                per_channel = np.full(len(ids), total / len(ids))
                np.add.at(saved, self._dependencies.roots[ids], per_channel)
        return saved
