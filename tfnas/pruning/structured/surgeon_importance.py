"""Importance of channels by optimal brain surgeon: what the outputs lose once layers are refitted.

A kernel that reads channel j (the columns J of its matrix W, several for a convolution) and is
fitted again without it has its squared output error raised by

    sum over rows r of  a_r * w_rJ (G_JJ)^-1 w_rJ^T ,   G = H^-1,

with the second moments H of its inputs (Hassibi and Stork, for a group of weights). The channels
of a group are eliminated one after the other, the cheapest first, and G and W are updated. So a
channel that others can replace is cheap until these are gone. The error of each kernel is
multiplied by the change of the model's outputs per unit of its error
(:mod:`tfnas.pruning.layer_probes`), so that groups compare. Needs no labels.

References:
    Hassibi and Stork 1992; Luo, Wu and Lin, "ThiNet", ICCV 2017 (greedy choice by the next layer's
    output).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tfnas.data.data_types import ExampleData
from tfnas.data.reading import spread
from tfnas.graph.batchnorm import input_batches
from tfnas.graph.traversal import Visit
from tfnas.pruning.input_moments import InputMoments, quadratic, to_rows, unsupported_reason
from tfnas.pruning.layer_probes import probes, slopes_of
from tfnas.pruning.optimal_brain_surgeon import inverse_of, shrink
from tfnas.pruning.prunable_kernels import PrunableKernel, find_kernels
from tfnas.pruning.reconstruct import output_scale
from tfnas.pruning.structured.channel_groups import Dependencies
from tfnas.pruning.structured.channel_trace import ChannelWeight
from tfnas.pruning.structured.scored_group import (
    Known,
    ScoredGroup,
    input_kernels,
    scored_groups,
)

if TYPE_CHECKING:
    import keras

EXAMPLES = 256  # most that are read
SHRINKAGE = 0.03  # of the moments to their diagonal
STEPS = 64  # of the elimination of a group; each removes the same number of channels
LAST = 1e6  # times the highest score: channels of layers that can't be fitted
MOST_INPUTS = 8192  # of a kernel whose moments are inverted


@dataclasses.dataclass(frozen=True)
class Surgeon:
    """The estimated change of the outputs after the layers that lost a channel are refitted.

    Example:
        >>> Surgeon(np.zeros((8, 4))).comparable
        True

    Args:
        data: Inputs; targets are ignored.
    """

    data: ExampleData
    comparable = True

    def prepared(self, model: keras.Model, dependencies: Dependencies) -> Known:
        """Returns the scores of all channels of a model.

        Args:
            model: The model.
            dependencies: Its channels.
        """
        removable = np.concatenate([np.zeros(0, int), *(g.removable for g in dependencies.groups)])
        roots_of = {
            id(w.variable): w
            for w in input_kernels(dependencies)
            if any(np.isin(dependencies.roots[ids], removable).any() for ids in _read(w))
        }
        readers = [k for k in find_kernels(model)[0] if id(k.variable) in roots_of]
        fitted = [k for k in readers if unsupported_reason(k) is None]
        consumers = _consumers(model, dependencies, fitted, spread(self.data, EXAMPLES))
        scores = np.zeros(len(dependencies.roots))
        for group in scored_groups(dependencies):
            scores[group.roots] = _eliminated(consumers, group.roots)
        known = np.concatenate([c.roots for c in consumers]) if consumers else np.zeros(0, int)
        unfit = {id(w.variable) for w in roots_of.values()} - {id(k.variable) for k in fitted}
        for weight in (w for key, w in roots_of.items() if key in unfit):
            for ids in _read(weight):  # removed last
                scores[dependencies.roots[ids]] = LAST * max(scores[known].max(initial=0.0), 1e-6)
        return Known(scores, comparable=True)

    def __call__(self, group: ScoredGroup) -> np.ndarray:
        """Raises ValueError: the moments are of a whole model."""
        raise ValueError("Surgeon must be prepared for a model, call prepared(model, dependencies)")


@dataclasses.dataclass(frozen=True, eq=False)
class _Consumer:
    """A kernel that reads channels.

    Args:
        roots: The root of each input, (inputs,).
        weights: (rows, inputs).
        inverse: Inverse moments of the inputs, (inputs, inputs).
        factor: Change of the model's outputs per squared error of each row, (rows,).
    """

    roots: np.ndarray
    weights: np.ndarray
    inverse: np.ndarray
    factor: np.ndarray


def _consumers(
    model: Any, dependencies: Dependencies, kernels: Sequence[PrunableKernel], data: Any
) -> list[_Consumer]:
    """The kernels with the moments of their inputs."""
    weights_of = {id(w.variable): w for w in input_kernels(dependencies)}
    batches = input_batches(data, 32)
    found, consumers = [], []
    for probe, moments in probes(model, kernels, batches):
        weight = weights_of[id(probe.kernel.variable)]
        consumers.append(_consumer(weight, probe.place, moments, dependencies))
        found.append(probe)
    slopes = slopes_of(model, found, batches)
    return [
        dataclasses.replace(consumer, factor=consumer.factor * slope)
        for consumer, slope in zip(consumers, slopes, strict=True)
    ]


def _consumer(
    weight: ChannelWeight, place: Visit, moments: InputMoments, dependencies: Dependencies
) -> _Consumer:
    """A kernel with the factor of its relative error, not of the outputs' change yet."""
    (ids,) = _read(weight)
    rows = to_rows(place.layer, place.layer.kernel)
    roots = np.tile(dependencies.roots[ids], rows.shape[1] // len(ids))
    amount = 1.0 if len(roots) > MOST_INPUTS else moments.shrinkage(SHRINKAGE)
    hessian, _ = shrink(rows, moments.hessian, None, amount)
    scale = output_scale(place)
    power = float(scale @ quadratic(rows, hessian))
    return _Consumer(roots, rows, inverse_of(hessian), scale / max(power, 1e-30))


def _read(weight: ChannelWeight) -> list[np.ndarray]:
    """The channels that a kernel reads, by axis."""
    return [ids for axis, ids in weight.axes.items() if axis != weight.output_axis]


def _eliminated(consumers: Sequence[_Consumer], roots: np.ndarray) -> np.ndarray:
    """The cost of each channel when its turn comes, never below that of one before, (channels,)."""
    states = [_State(c, roots) for c in consumers if np.isin(c.roots, roots).any()]
    scores, alive = np.zeros(len(roots)), np.ones(len(roots), bool)
    at_once, highest = max(1, len(roots) // STEPS), 0.0
    while alive.any():
        cost = np.where(alive, sum((s.costs() for s in states), np.zeros(len(roots))), np.inf)
        gone = np.argsort(cost, kind="stable")[: min(at_once, int(alive.sum()))]
        for channel in gone:
            highest = max(highest, float(cost[channel]))
            scores[channel] = highest
        alive[gone] = False
        for state in states:
            state.remove(gone)
    return scores


class _State:
    """The elimination of channels from one kernel.

    Args:
        consumer: The kernel.
        roots: The roots of the channels.
    """

    def __init__(self, consumer: _Consumer, roots: np.ndarray) -> None:
        self._weights, self._inverse = consumer.weights.copy(), consumer.inverse.copy()
        self._factor = consumer.factor
        places = [np.flatnonzero(consumer.roots == root) for root in roots]
        self._places = dict(enumerate(places))
        self._by_size: dict[int, list[int]] = {}
        for channel, place in self._places.items():
            if place.size:
                self._by_size.setdefault(place.size, []).append(channel)

    def costs(self) -> np.ndarray:
        """The rise of the outputs' change by the removal of each channel; 0 for removed ones."""
        found = np.zeros(len(self._places))
        for channels in self._by_size.values():
            index = np.stack([self._places[c] for c in channels])  # (channels, size)
            blocks = self._inverse[index[:, :, None], index[:, None, :]]
            slices = self._weights[:, index].transpose(1, 2, 0)  # (channels, size, rows)
            solved = np.linalg.solve(blocks, slices)
            found[channels] = np.maximum((slices * solved * self._factor).sum(axis=(1, 2)), 0.0)
        return found

    def remove(self, channels: np.ndarray) -> None:
        """Eliminates channels; the weights of the others make up for them."""
        gone = np.concatenate([self._places[int(c)] for c in channels])
        if not gone.size:
            return
        half = np.linalg.solve(self._inverse[np.ix_(gone, gone)], self._inverse[gone])
        self._weights -= self._weights[:, gone] @ half
        self._inverse -= self._inverse[:, gone] @ half
        self._weights[:, gone] = 0.0
        self._inverse[gone] = 0.0
        self._inverse[:, gone] = 0.0
        self._inverse[gone, gone] = 1.0
