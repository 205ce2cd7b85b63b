"""What a model costs after some channels have gone, without building it."""

from __future__ import annotations

import math

import numpy as np

from tfnas.graph.macs import call_macs
from tfnas.pruning.structured.channel_groups import Dependencies, Slices


class RemainingCosts:
    """Counts multiply-accumulates, weights and channels.

    `uncounted` holds the layers whose multiply-accumulates are not known; they count nothing.

    Args:
        dependencies: The traced model.
        parameters: Number of all weights of the model.
    """

    def __init__(self, dependencies: Dependencies, parameters: int) -> None:
        self._dependencies = dependencies
        self._parts = [p for unit in dependencies.units.values() for p in unit.slices]
        self._rest = parameters - sum(math.prod(part.shape) for part in self._parts)
        macs = {call: call_macs(call) for call in dependencies.flow.calls}
        self.uncounted = sorted({call.name for call, count in macs.items() if count is None})
        counted = sum(count or 0 for count in macs.values())
        parts = sum(part.positions * math.prod(part.shape) for part in self._parts)
        self._other_macs = counted - parts  # of layers that no channel can leave
        self.nothing = np.zeros(len(dependencies.classes), bool)

    def macs(self, removed: np.ndarray) -> int:
        """Multiply-accumulates an example."""
        return self._other_macs + sum(
            part.positions * self._elements(part, removed) for part in self._parts if part.positions
        )

    def parameters(self, removed: np.ndarray) -> int:
        """Number of weights."""
        return self._rest + sum(self._elements(part, removed) for part in self._parts)

    def share(self, removed: np.ndarray) -> float:
        """Share of the channels that could go which stays."""
        free = np.concatenate([g.classes for g in self._dependencies.groups] or [np.zeros(0, int)])
        return 1.0 - float(removed[free].mean()) if len(free) else 1.0

    def savings(self, what: str) -> np.ndarray:
        """Returns what each class's removal alone saves, "macs" or "parameters"."""
        saved = np.zeros(len(self.nothing))
        for part in self._parts:
            whole = math.prod(part.shape) * (part.positions if what == "macs" else 1)
            for axis, labels in part.axes.items():
                share = np.full(len(labels), whole / part.shape[axis])
                np.add.at(saved, self._dependencies.classes[labels], share)
        return saved

    def _elements(self, part: Slices, removed: np.ndarray) -> int:
        shape = list(part.shape)
        for axis, labels in part.axes.items():
            shape[axis] = int(self._dependencies.kept(labels, removed).sum())
        return math.prod(shape)
