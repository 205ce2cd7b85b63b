"""Distances between intermediate activations of a student and of a teacher.

Each function takes a batch of both and returns one float32 value per example. Channels are on
the last axis.

References:
    Romero et al., "FitNets: Hints for Thin Deep Nets", ICLR 2015.
    Zagoruyko and Komodakis, "Paying More Attention to Attention", ICLR 2017.
    Park et al., "Relational Knowledge Distillation", CVPR 2019.
    Sun et al., "MobileBERT: a Compact Task-Agnostic BERT", ACL 2020.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
from keras import ops

if TYPE_CHECKING:
    from tfnas.distillation.tensor_types import Tensor

_EPSILON = 1e-12
# Added to probabilities before their logarithm, by the type of the student's: the gradient, at most
# its inverse, stays in the range of the type.
_LEAST_PROBABILITY = {"float16": 2.0**-14}


def hint_distance(student: Tensor, teacher: Tensor) -> Any:
    """Returns the mean squared difference of each example.

    Args:
        student: (n, ..., channels), projected to the teacher's number of channels.
        teacher: Of the same rank; feature maps (n, height, width, channels) may differ in size.

    Returns:
        A tensor (n,).

    References:
        Romero et al., "FitNets: Hints for Thin Deep Nets", ICLR 2015, equation 3.
    """
    student, teacher = same_size(student, teacher)
    return ops.mean(ops.square(_flat(student) - _flat(teacher)), axis=-1)


def attention_distance(student: Tensor, teacher: Tensor) -> Any:
    """Returns the squared distance between the attention maps of both models, in [0, 2].

    An attention map is the mean of squares over the channels, normalized to length 1 over all
    positions.

    Args:
        student: (n, ..., channels) with at least one spatial or time axis.
        teacher: Of the same rank, with any number of channels; feature maps may differ in size.

    Returns:
        A tensor (n,).

    References:
        Zagoruyko and Komodakis, "Paying More Attention to Attention", ICLR 2017, equation 2.
    """
    maps = [ops.mean(ops.square(_float(f)), axis=-1, keepdims=True) for f in (student, teacher)]
    s, t = (_unit(_flat(attention)) for attention in same_size(*maps))
    return ops.sum(ops.square(s - t), axis=-1)


def map_divergence(student: Tensor, teacher: Tensor) -> Any:
    """Returns the divergence of the student's attention from the teacher's, KL(teacher || student).

    It is the mean over queries, and over heads where both have as many; else the heads of each are
    averaged first, which gives probabilities again. Keys where the student has a probability of 0,
    which its mask leaves out, do not count: the teacher's probabilities of the others are divided
    by their sum. Queries without such a key in one of both, as of padding, do not count either.

    Args:
        student: Probabilities over the keys, (n, heads, queries, keys).
        teacher: (n, other heads, queries, keys).

    Returns:
        A tensor (n,).

    References:
        Sun et al., "MobileBERT", ACL 2020, section 3.4 (attention transfer).
    """
    least = _LEAST_PROBABILITY.get(keras.backend.standardize_dtype(student.dtype), _EPSILON)
    maps = [_float(student), _float(teacher)]
    if maps[0].shape[1] != maps[1].shape[1]:
        maps = [ops.mean(each, axis=1, keepdims=True) for each in maps]
    seen = ops.cast(maps[0] > 0, "float32")
    maps = [each * seen for each in maps]
    sums = [ops.sum(each, axis=-1, keepdims=True) for each in maps]
    s, t = (
        each / ops.maximum(total, _EPSILON) + least for each, total in zip(maps, sums, strict=True)
    )
    divergence = ops.sum(t * (ops.log(t) - ops.log(s)), axis=-1)
    counts = ops.cast((sums[0] > 0) & (sums[1] > 0), "float32")[..., 0]
    added, rows = (ops.sum(each, axis=(1, 2)) for each in (divergence * counts, counts))
    return added / ops.maximum(rows, 1.0)


def distance_relations(student: Tensor, teacher: Tensor) -> Any:
    """Compares the distances between the examples of a batch in both models.

    All distances are divided by their mean over the batch.

    Args:
        student: (n, ...) with any number of features.
        teacher: (n, ...) with any number of features.

    Returns:
        A tensor (n,): the mean Huber loss over the n - 1 other examples; 0 for a batch of one.

    References:
        Park et al., "Relational Knowledge Distillation", CVPR 2019, equation 7.
    """
    off_diagonal = 1 - ops.eye(ops.shape(student)[0], dtype="float32")
    pairs = ops.sum(off_diagonal)
    relative = []
    for features in (student, teacher):
        distances = _distances(_gram(features)) * off_diagonal
        mean = ops.divide_no_nan(ops.sum(distances), pairs)
        relative.append(ops.divide_no_nan(distances, mean))
    losses = _huber(relative[0] - relative[1]) * off_diagonal
    return ops.divide_no_nan(ops.sum(losses, axis=1), ops.sum(off_diagonal, axis=1))


def angle_relations(student: Tensor, teacher: Tensor) -> Any:
    """Compares the angles between the examples of a batch in both models.

    Memory grows with the cube of the batch size: with 128 examples each intermediate result
    takes 8 MB.

    Args:
        student: (n, ...) with any number of features.
        teacher: (n, ...) with any number of features.

    Returns:
        A tensor (n,): the mean Huber loss over the cosines of all angles whose vertex is the
        example; 0 for a batch of less than three.

    References:
        Park et al., "Relational Knowledge Distillation", CVPR 2019, equation 9.
    """
    differ = 1 - ops.eye(ops.shape(student)[0], dtype="float32")
    distinct = differ[:, :, None] * differ[:, None, :] * differ[None, :, :]
    losses = _huber(_cosines(student) - _cosines(teacher)) * distinct
    return ops.divide_no_nan(ops.sum(losses, axis=(1, 2)), ops.sum(distinct, axis=(1, 2)))


def same_size(a: Tensor, b: Tensor) -> tuple[Any, Any]:
    """Returns two batches of feature maps in float32, both downsampled to the smaller size."""
    if len(a.shape) != 4 or a.shape[1:3] == b.shape[1:3]:
        return _float(a), _float(b)
    size = [min(m, n) for m, n in zip(a.shape[1:3], b.shape[1:3], strict=True)]
    return area_downsample(a, size), area_downsample(b, size)


def area_downsample(maps: Tensor, size: Sequence[int]) -> Any:
    """Downsamples feature maps by averaging over areas; returns float32.

    Uses two matrix products, since XLA has no area interpolation.

    Args:
        maps: (n, height, width, channels) of known size.
        size: Height and width, at most those of `maps`.
    """
    maps = _float(maps)
    for axis, equation in ((0, "Hh,nhwc->nHwc"), (1, "Ww,nhwc->nhWc")):
        length = maps.shape[axis + 1]
        if length != size[axis]:
            maps = ops.einsum(equation, _area_weights(length, size[axis]), maps)
    return maps


def _area_weights(old: int, new: int) -> np.ndarray:
    """(new, old): the weight of each old cell in the average of each new cell."""
    edges = np.arange(new + 1) * old / new
    low, high = edges[:-1, None], edges[1:, None]
    cells = np.arange(old)
    overlap = np.minimum(high, cells + 1) - np.maximum(low, cells)
    return (np.maximum(overlap, 0) * new / old).astype(np.float32)


def _float(tensor: Any) -> Any:
    return ops.cast(tensor, "float32")


def _flat(tensor: Any) -> Any:
    """Flattens to (n, features) in float32."""
    return ops.reshape(_float(tensor), (ops.shape(tensor)[0], -1))


def _unit(rows: Any) -> Any:
    return rows / ops.sqrt(ops.maximum(ops.sum(ops.square(rows), axis=-1, keepdims=True), _EPSILON))


def _gram(features: Any) -> Any:
    """Dot products of all pairs of examples, centered, which keeps precision."""
    rows = _flat(features)
    rows = rows - ops.mean(rows, axis=0, keepdims=True)
    return ops.matmul(rows, ops.transpose(rows))


def _distances(gram: Any) -> Any:
    norms = ops.diagonal(gram)
    squares = norms[:, None] + norms[None, :] - 2 * gram
    positive = squares > _EPSILON  # the square root has no gradient at 0
    return ops.where(positive, ops.sqrt(ops.where(positive, squares, 1.0)), 0.0)


def _cosines(features: Any) -> Any:
    """[j, i, k]: the cosine of the angle at example j between i and k."""
    gram = _gram(features)
    distances, norms = _distances(gram), ops.diagonal(gram)
    products = gram[None] - gram[:, :, None] - gram[:, None, :] + norms[:, None, None]
    return ops.divide_no_nan(products, distances[:, :, None] * distances[:, None, :])


def _huber(error: Any) -> Any:
    size = ops.abs(error)
    return ops.where(size < 1.0, 0.5 * ops.square(error), size - 0.5)
