"""The weights of a group of channels, as an importance reads them."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator

import numpy as np

from tfnas.pruning.structured.channel_groups import Dependencies
from tfnas.pruning.structured.channel_trace import ChannelWeight


@dataclasses.dataclass(frozen=True, eq=False)
class WeightSlices:
    """One axis of a weight, cut into the slices of channels.

    Args:
        weight: Path of the weight, such as "conv/kernel".
        role: "kernel", "scale" (gamma of a normalization) or "other".
        enters: Whether the channels enter the layer here; else they leave it.
        values: The slices, (positions of the axis, elements of a slice).
        channel: Number of the group's channel at each position, (positions,); -1 where it is a
            channel of another group, or one that has to stay.
        channels: Number of channels of the group.
        everything: The root of each position, (positions,), also of other groups.
    """

    weight: str
    role: str
    enters: bool
    values: np.ndarray
    channel: np.ndarray
    channels: int
    everything: np.ndarray

    @staticmethod
    def rows(array: np.ndarray, axis: int) -> np.ndarray:
        """Returns an array as (positions of an axis, all other elements).

        Args:
            array: The array.
            axis: The axis.
        """
        return np.moveaxis(array, axis, 0).reshape(array.shape[axis], -1)

    @property
    def present(self) -> np.ndarray:
        """Whether each channel has a position here, (channels,)."""
        return np.isin(np.arange(self.channels), self.channel)

    def per_channel(self, of_positions: np.ndarray) -> np.ndarray:
        """Returns the sum over the positions of each channel, (channels,).

        Args:
            of_positions: A number for each position, (positions,).
        """
        own = self.channel >= 0
        return np.bincount(self.channel[own], of_positions[own], minlength=self.channels)

    def mean_over_all(self, of_positions: np.ndarray) -> float:
        """Returns the mean over the channels of all groups at this axis.

        Args:
            of_positions: A number for each position, (positions,).
        """
        _, number = np.unique(self.everything, return_inverse=True)
        return float(np.bincount(number, of_positions).mean())


@dataclasses.dataclass(frozen=True, eq=False)
class ScoredGroup:
    """The removable channels of a group, with their weights.

    Args:
        name: Path of the first layer whose output channels these are.
        makers: Paths of all layers whose output channels these are.
        roots: The roots of the channels, (channels,).
    """

    name: str
    makers: tuple[str, ...]
    roots: np.ndarray
    _find: Callable[[np.ndarray], tuple[WeightSlices, ...]] = dataclasses.field(repr=False)

    @property
    def channels(self) -> int:
        """The number of channels."""
        return len(self.roots)

    @functools.cached_property
    def slices(self) -> tuple[WeightSlices, ...]:
        """The axes of weights that these channels enter or leave."""
        return self._find(self.roots)


@dataclasses.dataclass(frozen=True, eq=False)
class _Axis:
    """An axis of a weight, whose values are read when they are needed."""

    weight: ChannelWeight
    axis: int
    roots: np.ndarray

    @functools.cached_property
    def values(self) -> np.ndarray:
        return WeightSlices.rows(np.asarray(self.weight.variable, np.float64), self.axis)


def scored_groups(dependencies: Dependencies) -> Iterator[ScoredGroup]:
    """Yields the groups that have removable channels.

    Args:
        dependencies: The traced model.
    """
    axes = [
        _Axis(weight, axis, dependencies.roots[ids])
        for layer in dependencies.layers.values()
        for weight in layer.weights
        for axis, ids in weight.axes.items()
    ]
    at_root: dict[int, list[int]] = {}
    for index, each in enumerate(axes):
        for root in np.unique(each.roots).tolist():
            at_root.setdefault(root, []).append(index)

    def slices_of(roots: np.ndarray) -> tuple[WeightSlices, ...]:
        number = np.full(len(dependencies.roots), -1)
        number[roots] = np.arange(len(roots))
        indices = sorted({index for root in roots.tolist() for index in at_root.get(root, ())})
        return tuple(_slices(axes[index], number, len(roots)) for index in indices)

    for group in dependencies.groups:
        if len(group.removable):
            yield ScoredGroup(group.name, group.makers, group.removable, slices_of)


def _slices(each: _Axis, number: np.ndarray, channels: int) -> WeightSlices:
    weight = each.weight
    return WeightSlices(
        weight=weight.name,
        role=weight.role,
        enters=each.axis != weight.output_axis and weight.role == "kernel",
        values=each.values,
        channel=number[each.roots],
        channels=channels,
        everything=each.roots,
    )
