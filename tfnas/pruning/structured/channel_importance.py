"""Importance of channels: objects that score the channels of one group.

An importance takes a :class:`ScoredGroup` and returns a score for each of its channels, the higher
the more important. Anything callable is one; :class:`Importance` is the protocol. Those of tfnas:

    Norm(1), Norm(2)    "l1", "l2": the norm of the channels' slice of each kernel that they enter
                        or leave, relative to the mean norm of that kernel's slices, averaged over
                        kernels
    Scale()             "scale": |gamma| of the normalizations of the channels, likewise; groups
                        without a normalization are scored by Norm(2)
    Taylor(data, loss)  "taylor": mean over batches of (sum of w dL/dw over the slices that the
                        channels enter)^2. As outputs are linear in these slices, the sum is the
                        derivative of the loss with respect to a gate on the channel at the input
                        of the next layers.
    Random(seed)        "random": a baseline

The scores of a group are divided by their mean, which makes groups comparable. Not those of an
importance whose `comparable` is True, as of Taylor: they are squared changes of the loss.

References:
    Li et al., "Pruning Filters for Efficient ConvNets", ICLR 2017 (norms). Liu et al.,
    "Learning Efficient Convolutional Networks through Network Slimming", ICCV 2017 (scales).
    Molchanov et al., "Importance Estimation for Neural Network Pruning", CVPR 2019 (Taylor,
    equation 8). Fang et al. 2023 (the mean over dependent layers).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from tfnas.data.data_types import ExampleData
from tfnas.pruning.gradients import LossGradients
from tfnas.pruning.structured.channel_groups import Dependencies
from tfnas.pruning.structured.channel_trace import ChannelWeight
from tfnas.pruning.structured.scored_group import ScoredGroup, WeightSlices, scored_groups

if TYPE_CHECKING:
    import keras

CRITERIA = ("l1", "l2", "scale", "taylor", "random")


class Importance(Protocol):
    """Scores the channels of a group; any function of a :class:`ScoredGroup` is one.

    It may also have `comparable = True`, if scores of different groups are in one unit, and a
    method `prepared(model, dependencies)` that returns the importance to use for a model, after
    a look at the whole of it.

    Example:
        >>> import keras, numpy as np, tfnas
        >>> def largest_weight(group):
        ...     kernels = [each for each in group.slices if each.role == "kernel"]
        ...     return sum(each.per_channel(np.abs(each.values).max(axis=1)) for each in kernels)
        >>> layers = [keras.layers.Dense(8, name="a"), keras.layers.Dense(2)]
        >>> model = keras.Sequential([keras.Input((4,)), *layers])
        >>> smaller, _ = tfnas.prune_channels(model, 0.5, criterion=largest_weight)
        >>> smaller.get_layer("a").units
        4
    """

    def __call__(self, group: ScoredGroup) -> np.ndarray:
        """Returns the score of each channel, (channels,), at least 0.

        Args:
            group: The channels and their weights.
        """


@dataclasses.dataclass(frozen=True)
class Norm:
    """The norm of the channels' weights.

    Example:
        >>> Norm(2)
        Norm(power=2, role='kernel')

    Args:
        power: 1 for the sum of the absolute values, 2 for the Euclidean norm.
        role: The weights that count: "kernel" or "scale".
    """

    power: int = 2
    role: str = "kernel"

    def __call__(self, group: ScoredGroup) -> np.ndarray:
        """Returns the mean over the kernels of the norm relative to the kernel's mean."""
        total, counts = np.zeros(group.channels), np.zeros(group.channels)
        for each in group.slices:
            if each.role != self.role:
                continue
            norms = self._norm(each.values)
            mean = each.mean_over_all(norms)
            if mean > 0:
                total += each.per_channel(norms) / mean
                counts += each.present
        return total / np.maximum(counts, 1)

    def _norm(self, values: np.ndarray) -> np.ndarray:
        norm: np.ndarray = (np.abs(values) ** self.power).sum(axis=1) ** (1 / self.power)
        return norm


@dataclasses.dataclass(frozen=True)
class Scale:
    """The scale of the channels' normalizations; their norm where there is none.

    Example:
        >>> Scale()
        Scale()
    """

    def __call__(self, group: ScoredGroup) -> np.ndarray:
        """Returns |gamma|, relative to the mean of the layer."""
        found = Norm(1, "scale")(group)
        return found if found.any() else Norm(2)(group)


@dataclasses.dataclass(frozen=True)
class Random:
    """Random scores, as a baseline.

    Example:
        >>> Random(seed=1)
        Random(seed=1)

    Args:
        seed: The seed.
    """

    seed: int = 0

    def prepared(self, model: keras.Model, dependencies: Dependencies) -> Known:
        """Returns the scores of all channels of a model.

        Args:
            model: The model.
            dependencies: Its channels.
        """
        return Known(np.random.default_rng(self.seed).random(len(dependencies.roots)))

    def __call__(self, group: ScoredGroup) -> np.ndarray:
        """Returns random numbers."""
        return np.random.default_rng(self.seed).random(group.channels)


@dataclasses.dataclass(frozen=True)
class Taylor:
    """The estimated change of the loss, by the gradients of examples.

    Example:
        >>> import numpy as np
        >>> importance = Taylor((np.zeros((8, 4)), np.zeros((8, 2))), "mse")
        >>> importance.comparable
        True

    Args:
        data: Inputs and targets.
        loss: A Keras loss, or its name; None: the loss that the model is compiled with.
    """

    data: ExampleData
    loss: str | Callable[..., Any] | None = None
    comparable = True

    def prepared(self, model: keras.Model, dependencies: Dependencies) -> Known:
        """Returns the scores of all channels, from one pass over the data.

        Args:
            model: The model.
            dependencies: Its channels.
        """
        kernels = input_kernels(dependencies)
        each = (g for _, g in LossGradients(model, kernels, self.loss).each(self.data))
        return Known(gate_scores(dependencies, each), comparable=True)

    def __call__(self, group: ScoredGroup) -> np.ndarray:
        """Raises ValueError: the gradients are of a whole model."""
        raise ValueError("Taylor must be prepared for a model, call prepared(model, dependencies)")


@dataclasses.dataclass(frozen=True, eq=False)
class Known:
    """Scores that are known already.

    Args:
        scores: The score of each root, (channel ids,).
        comparable: Whether those of different groups are in one unit.
    """

    scores: np.ndarray
    comparable: bool = False

    def __call__(self, group: ScoredGroup) -> np.ndarray:
        """Returns the scores of the group's channels."""
        return self.scores[group.roots]


def importance_of(
    criterion: str | Importance,
    *,
    data: ExampleData | None = None,
    loss: str | Callable[..., Any] | None = None,
    seed: int = 0,
) -> Importance:
    """Returns the importance of a name; an importance itself is returned as it is.

    Example:
        >>> importance_of("l1")
        Norm(power=1, role='kernel')

    Args:
        criterion: One of :data:`CRITERIA`, or an importance.
        data: Inputs and targets of "taylor".
        loss: Loss of "taylor".
        seed: Seed of "random".

    Raises:
        ValueError: The name is unknown, or it is neither a name nor callable.
    """
    named: dict[str, Callable[[], Importance]] = {
        "l1": lambda: Norm(1),
        "l2": lambda: Norm(2),
        "scale": Scale,
        "random": lambda: Random(seed),
    }
    if criterion == "taylor":
        if data is None:
            raise ValueError("data must hold inputs and targets for criterion 'taylor', got None")
        return Taylor(data, loss)
    if isinstance(criterion, str) and criterion in named:
        return named[criterion]()
    if isinstance(criterion, str | type) or not callable(criterion):
        raise ValueError(
            f"criterion must be one of {', '.join(CRITERIA)} or a function of a group that "
            f"returns its scores, got {criterion!r}"
        )
    return criterion


def is_comparable(importance: Importance) -> bool:
    """Returns whether scores of different groups are in one unit.

    Args:
        importance: The importance.
    """
    return bool(getattr(importance, "comparable", False))


def scores(dependencies: Dependencies, importance: Importance) -> np.ndarray:
    """Returns the score of each root, (channel ids,); 0 for other channel ids.

    Args:
        dependencies: The traced model.
        importance: The importance, prepared for the model if it has to be.

    Raises:
        ValueError: The importance returned no score, or a bad one, for a channel.
    """
    result = np.zeros(len(dependencies.roots))
    for group in scored_groups(dependencies):
        result[group.roots] = _checked(importance(group), group)
    if is_comparable(importance):
        return result / result.max() if result.max() > 0 else result
    for found in dependencies.groups:
        if len(found.removable):
            mean = float(result[found.removable].mean())
            result[found.removable] = result[found.removable] / mean if mean > 0 else 1.0
    return result


def _checked(found: Any, group: ScoredGroup) -> np.ndarray:
    array = np.asarray(found, np.float64)
    if array.shape != (group.channels,):
        raise ValueError(
            f"criterion must return one score for each of the {group.channels} channels of "
            f"{group.name!r}, got an array of shape {array.shape}"
        )
    if not (np.isfinite(array).all() and (array >= 0).all()):
        raise ValueError(
            f"criterion must return finite scores of at least 0, got {array.min()} to "
            f"{array.max()} for {group.name!r}"
        )
    return array


def input_kernels(dependencies: Dependencies) -> list[ChannelWeight]:
    """Returns the kernels that combine input channels into output channels.

    Zeros in the slice of an input channel have the effect of removing that channel.

    Args:
        dependencies: The traced model.
    """
    weights = (weight for layer in dependencies.layers.values() for weight in layer.weights)
    return [w for w in weights if w.role == "kernel" and w.output_axis is not None]


def gate_scores(
    dependencies: Dependencies, gradients: Iterable[Sequence[np.ndarray]]
) -> np.ndarray:
    """Returns the mean squared derivative of the loss by a gate on each channel, (channel ids,).

    Args:
        dependencies: The traced model.
        gradients: For each batch, dL/dw of each of :func:`input_kernels`.
    """
    size = len(dependencies.roots)
    total, count = np.zeros(size), 0
    kernels = input_kernels(dependencies)
    for batch in gradients:
        gate = np.zeros(size)
        for kernel, gradient in zip(kernels, batch, strict=True):
            product = np.asarray(kernel.variable, np.float64) * gradient
            for axis, ids in kernel.axes.items():
                if axis != kernel.output_axis:
                    slices = WeightSlices.rows(product, axis)
                    np.add.at(gate, dependencies.roots[ids], slices.sum(axis=1))
        total += gate**2
        count += 1
    return total / max(count, 1)
