"""Distances between a student's inner activations and a teacher's.

Each function takes a batch of both and returns one float32 value an example. Channels are on
the last axis.

References:
    Romero et al., "FitNets: Hints for Thin Deep Nets", ICLR 2015.
    Zagoruyko and Komodakis, "Paying More Attention to Attention", ICLR 2017.
    Park et al., "Relational Knowledge Distillation", CVPR 2019.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from keras import ops

_TINY = 1e-12


def hint_distance(student: Any, teacher: Any) -> Any:
    """Returns the mean squared difference of each example.

    Args:
        student: (n, ..., channels), projected to as many channels as the teacher's.
        teacher: The same; maps (n, height, width, channels) may differ in size.

    Returns:
        A tensor (n,).

    References:
        Romero et al., "FitNets: Hints for Thin Deep Nets", ICLR 2015, equation 3.
    """
    student, teacher = same_size(student, teacher)
    return ops.mean(ops.square(_flat(student) - _flat(teacher)), axis=-1)


def attention_distance(student: Any, teacher: Any) -> Any:
    """Returns how far apart the places lie that both models look at.

    Attention is the mean of squares over the channels, brought to length 1 over all places;
    the distance is the squared one, in [0, 2].

    Args:
        student: (n, ..., channels) with at least one axis of places.
        teacher: The same, with channels of its own; maps may differ in size.

    Returns:
        A tensor (n,).

    References:
        Zagoruyko and Komodakis, "Paying More Attention to Attention", ICLR 2017, equation 2.
    """
    maps = [ops.mean(ops.square(_float(f)), axis=-1, keepdims=True) for f in (student, teacher)]
    s, t = (_unit(_flat(attention)) for attention in same_size(*maps))
    return ops.sum(ops.square(s - t), axis=-1)


def distance_relations(student: Any, teacher: Any) -> Any:
    """Returns how differently both models see the distances between the batch's examples.

    All distances are taken relative to their mean over the batch.

    Args:
        student: (n, ...) of any width.
        teacher: (n, ...) of any width.

    Returns:
        A tensor (n,): the mean Huber loss over an example's n - 1 partners; 0 for a
        batch of one.

    References:
        Park et al., "Relational Knowledge Distillation", CVPR 2019, equation 7.
    """
    apart = 1 - ops.eye(ops.shape(student)[0], dtype="float32")
    pairs = ops.sum(apart)
    relative = []
    for features in (student, teacher):
        distances = _distances(_gram(features)) * apart
        mean = ops.divide_no_nan(ops.sum(distances), pairs)
        relative.append(ops.divide_no_nan(distances, mean))
    far = _huber(relative[0] - relative[1]) * apart
    return ops.divide_no_nan(ops.sum(far, axis=1), ops.sum(apart, axis=1))


def angle_relations(student: Any, teacher: Any) -> Any:
    """Returns how differently both models see the angles between the batch's examples.

    Memory grows with the cube of the batch: 128 examples take 8 MB an intermediate result.

    Args:
        student: (n, ...) of any width.
        teacher: (n, ...) of any width.

    Returns:
        A tensor (n,): the mean Huber loss over the cosines of all angles whose corner is
        the example; 0 for a batch of less than three.

    References:
        Park et al., "Relational Knowledge Distillation", CVPR 2019, equation 9.
    """
    apart = 1 - ops.eye(ops.shape(student)[0], dtype="float32")
    distinct = apart[:, :, None] * apart[:, None, :] * apart[None, :, :]
    far = _huber(_cosines(student) - _cosines(teacher)) * distinct
    return ops.divide_no_nan(ops.sum(far, axis=(1, 2)), ops.sum(distinct, axis=(1, 2)))


def same_size(a: Any, b: Any) -> tuple[Any, Any]:
    """Returns two batches of maps in float32, both as large as the smaller one."""
    if len(a.shape) != 4 or a.shape[1:3] == b.shape[1:3]:
        return _float(a), _float(b)
    size = [min(m, n) for m, n in zip(a.shape[1:3], b.shape[1:3], strict=True)]
    return shrunk(a, size), shrunk(b, size)


def shrunk(maps: Any, size: Sequence[int]) -> Any:
    """Returns maps in float32 whose cells are averages over the area of those given.

    By two matrix products, which XLA compiles; it has no interpolation that averages.

    Args:
        maps: (n, height, width, channels) of known size.
        size: Height and width, at most as large.
    """
    maps = _float(maps)
    for axis, equation in ((0, "Hh,nhwc->nHwc"), (1, "Ww,nhwc->nhWc")):
        given = maps.shape[axis + 1]
        if given != size[axis]:
            maps = ops.einsum(equation, _areas(given, size[axis]), maps)
    return maps


def _areas(given: int, wanted: int) -> np.ndarray:
    """(wanted, given): the share of each given cell in each of fewer cells."""
    ends = np.arange(wanted + 1) * given / wanted
    low, high = ends[:-1, None], ends[1:, None]
    cells = np.arange(given)
    shared = np.minimum(high, cells + 1) - np.maximum(low, cells)
    return (np.maximum(shared, 0) * wanted / given).astype(np.float32)


def _float(tensor: Any) -> Any:
    return ops.cast(tensor, "float32")


def _flat(tensor: Any) -> Any:
    """(n, everything else) in float32."""
    return ops.reshape(_float(tensor), (ops.shape(tensor)[0], -1))


def _unit(rows: Any) -> Any:
    return rows / ops.sqrt(ops.maximum(ops.sum(ops.square(rows), axis=-1, keepdims=True), _TINY))


def _gram(features: Any) -> Any:
    """Products of all pairs of examples, around their mean, which keeps digits."""
    rows = _flat(features)
    rows = rows - ops.mean(rows, axis=0, keepdims=True)
    return ops.matmul(rows, ops.transpose(rows))


def _distances(gram: Any) -> Any:
    own = ops.diagonal(gram)
    squares = own[:, None] + own[None, :] - 2 * gram
    positive = squares > _TINY  # the root has no gradient at 0
    return ops.where(positive, ops.sqrt(ops.where(positive, squares, 1.0)), 0.0)


def _cosines(features: Any) -> Any:
    """[j, i, k]: the cosine of the angle at example j between i and k."""
    gram = _gram(features)
    distances, own = _distances(gram), ops.diagonal(gram)
    between = gram[None] - gram[:, :, None] - gram[:, None, :] + own[:, None, None]
    return ops.divide_no_nan(between, distances[:, :, None] * distances[:, None, :])


def _huber(error: Any) -> Any:
    size = ops.abs(error)
    return ops.where(size < 1.0, 0.5 * ops.square(error), size - 0.5)
