"""What a channel is worth, from its weights or from what the loss would say.

A score belongs to a class of channels that go together. Every kernel that makes or takes the
class's channels has a say:

    l1, l2      the norm of the class's slice of each kernel, over the mean norm of that
                kernel's slices, averaged over kernels
    scale       |gamma| of the normalizations that the class passes, likewise; groups
                without one are scored by l2
    taylor      mean over batches of (sum of w dL/dw over the slices that take the class)^2.
                As outputs are linear in these slices, the sum is the derivative of the loss
                by a gate on the channel where it enters its consumers.
    random      a control

Scores of a group are divided by their mean, so that groups compare; but not Taylor's, which
are squared changes of the loss and compare as they are.

References:
    Li et al., "Pruning Filters for Efficient ConvNets", ICLR 2017 (norms). Liu et al.,
    "Learning Efficient Convolutional Networks through Network Slimming", ICCV 2017 (scales).
    Molchanov et al., "Importance Estimation for Neural Network Pruning", CVPR 2019 (Taylor,
    equation 8). Fang et al. 2023 (the mean over dependent layers).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np

from tfnas.pruning.structured.channel_groups import Dependencies, Slices

CRITERIA = ("l1", "l2", "scale", "taylor", "random")


def scores(
    dependencies: Dependencies,
    criterion: str,
    *,
    gradients: Iterable[Sequence[np.ndarray]] | None = None,
    seed: int = 0,
) -> np.ndarray:
    """Returns a score a class, by the class's number; 0 where it has none.

    Args:
        dependencies: The traced model.
        criterion: One of :data:`CRITERIA`.
        gradients: For "taylor": batch by batch dL/dw of each of :func:`takers`.
        seed: Seed of "random".
    """
    size = len(dependencies.classes)
    if criterion == "random":
        raw = np.random.default_rng(seed).random(size)
    elif criterion == "taylor":
        raw = _taylor(dependencies, gradients or ())
    elif criterion == "scale":
        raw = _mean_of(dependencies, "scale", _norm(1))
        plain = _mean_of(dependencies, "kernel", _norm(2))
        for group in dependencies.groups:
            if not raw[group.classes].any():
                raw[group.classes] = plain[group.classes]
    else:
        raw = _mean_of(dependencies, "kernel", _norm(1 if criterion == "l1" else 2))
    if criterion == "taylor":
        return raw / raw.max() if raw.max() > 0 else raw
    result = np.zeros(size)
    for group in dependencies.groups:
        if len(group.classes):
            mean = float(raw[group.classes].mean())
            result[group.classes] = raw[group.classes] / mean if mean > 0 else 1.0
    return result


def _norm(power: int) -> Callable[[np.ndarray], np.ndarray]:
    def norm(slices: np.ndarray) -> np.ndarray:
        return (np.abs(slices) ** power).sum(axis=1) ** (1 / power)

    return norm


def _rows(array: np.ndarray, axis: int) -> np.ndarray:
    """(positions of an axis, all else)."""
    return np.moveaxis(array, axis, 0).reshape(array.shape[axis], -1)


def _mean_of(
    dependencies: Dependencies, role: str, norm: Callable[[np.ndarray], np.ndarray]
) -> np.ndarray:
    """Each weight's say about each class it meets, relative to its mean, averaged."""
    size = len(dependencies.classes)
    total, voices = np.zeros(size), np.zeros(size)
    for part in _parts(dependencies, role):
        array = np.asarray(part.variable, np.float64)
        for axis, labels in part.axes.items():
            classes = dependencies.classes[labels]
            own = np.zeros(size)
            np.add.at(own, classes, norm(_rows(array, axis)))
            met = np.unique(classes)
            mean = own[met].mean()
            if mean > 0:
                total[met] += own[met] / mean
                voices[met] += 1
    return total / np.maximum(voices, 1)


def _parts(dependencies: Dependencies, role: str) -> Iterable[Slices]:
    for unit in dependencies.units.values():
        yield from (part for part in unit.slices if part.role == role)


def takers(dependencies: Dependencies) -> list[Slices]:
    """Returns the kernels that mix channels: those whose slices are gates on what enters."""
    return [part for part in _parts(dependencies, "kernel") if part.makes is not None]


def _taylor(dependencies: Dependencies, gradients: Iterable[Sequence[np.ndarray]]) -> np.ndarray:
    size = len(dependencies.classes)
    total, count = np.zeros(size), 0
    parts = takers(dependencies)
    for batch in gradients:
        gate = np.zeros(size)
        for part, slope in zip(parts, batch, strict=True):
            product = np.asarray(part.variable, np.float64) * slope
            for axis, labels in part.axes.items():
                if axis != part.makes:
                    np.add.at(gate, dependencies.classes[labels], _rows(product, axis).sum(axis=1))
        total += gate**2
        count += 1
    return total / max(count, 1)
