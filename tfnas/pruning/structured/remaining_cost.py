"""MACs and parameters of a model after the removal of channels, without building it."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np

from tfnas.graph.macs import call_macs
from tfnas.pruning.structured.channel_groups import Dependencies
from tfnas.pruning.structured.channel_trace import ChannelWeight


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
        self._weights = [w for layer in dependencies.layers.values() for w in layer.weights]
        self._rest = parameters - sum(math.prod(weight.shape) for weight in self._weights)
        macs = {call: call_macs(call) for call in dependencies.flow.calls}
        self.uncounted = sorted({call.name for call, count in macs.items() if count is None})
        unknown = {id(call.operation) for call, count in macs.items() if count is None}
        self._multiplying = [
            weight
            for key, layer in dependencies.layers.items()
            for weight in layer.weights
            if weight.positions and key not in unknown
        ]
        counted = sum(n or 0 for c, n in macs.items() if id(c.operation) not in unknown)
        prunable = sum(weight.positions * math.prod(weight.shape) for weight in self._multiplying)
        self._other_macs = counted - prunable  # of layers that do not depend on channels
        self.nothing = np.zeros(len(dependencies.roots), bool)

    def macs(self, removed: np.ndarray) -> int:
        """Returns the MACs per example.

        Args:
            removed: Whether each root is removed, boolean, (channel ids,).
        """
        return self._other_macs + sum(
            weight.positions * self._elements(weight, removed) for weight in self._multiplying
        )

    def parameters(self, removed: np.ndarray) -> int:
        """Returns the number of weights.

        Args:
            removed: Whether each root is removed, boolean, (channel ids,).
        """
        return self._rest + sum(self._elements(weight, removed) for weight in self._weights)

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
        for weight in self._multiplying if unit == "macs" else self._weights:
            total = math.prod(weight.shape) * (weight.positions if unit == "macs" else 1)
            for axis, ids in weight.axes.items():
                per_channel = np.full(len(ids), total / weight.shape[axis])
                np.add.at(saved, self._dependencies.roots[ids], per_channel)
        return saved

    def _elements(self, weight: ChannelWeight, removed: np.ndarray) -> int:
        shape = list(weight.shape)
        for axis, ids in weight.axes.items():
            shape[axis] = int(self._dependencies.kept(ids, removed).sum())
        return math.prod(shape)
