"""The losses of knowledge distillation, as functions of logits.

A student with logits s learns from labels and from a teacher with logits t::

    w * cross_entropy(labels, s) + (1 - w) * T^2 * KL(softmax(t / T) || softmax(s / T))

where w is `student_loss_weight` and T the temperature. The factor T^2 keeps the scale of the
second term's gradients independent of the temperature. Probabilities are turned into logits by
:func:`as_logits`, which takes their logarithm: softmax is invariant to a constant that is added
to all logits.

With `multi_label` the classes are independent: sigmoid, binary cross-entropy and binary
divergence, averaged over the classes as in Keras.

Everything is computed in float32, with classes on the last axis and one value per example.

References:
    Hinton, Vinyals and Dean, "Distilling the Knowledge in a Neural Network", 2015.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
from keras import ops

from tfnas.keras_private import set_mask

if TYPE_CHECKING:
    from tfnas.distillation.tensor_types import Tensor, Tensors

MIN_PROBABILITY = 1e-7  # smaller ones are clipped, as in Keras' own cross-entropy


def distillation_loss(
    labels: Tensor,
    student: Tensor,
    teacher: Tensor,
    student_loss_weight: float = 0.5,
    temperature: float = 1.0,
    *,
    reverse: bool = False,
    multi_label: bool = False,
    label_smoothing: float = 0.0,
) -> Any:
    """Returns the loss of each example; see the module for the formula.

    Example:
        >>> import numpy as np
        >>> student, teacher = np.log([[0.1, 0.2, 0.7]]), np.log([[0.05, 0.15, 0.8]])
        >>> loss = distillation_loss(np.array([2]), student, teacher, reverse=True)
        >>> print(f"{float(loss[0]):.4f}")
        0.1950

    Args:
        labels: As for :func:`cross_entropy`; ignored where student_loss_weight is 0.
        student: Logits, (..., classes).
        teacher: Logits, (..., classes); ignored where student_loss_weight is 1.
        student_loss_weight: Weight of the labels, in [0, 1]; the rest is the teacher's.
        temperature: Divisor of both models' logits in the teacher's part, above 0.
        reverse: KL(student || teacher) instead of KL(teacher || student).
        multi_label: Whether classes are independent (sigmoid, not softmax).
        label_smoothing: Fraction of the label that is spread over all classes, in [0, 1).

    Returns:
        A tensor (...), in nats.

    References:
        Hinton, Vinyals and Dean, "Distilling the Knowledge in a Neural Network", 2015.
    """
    parts = []
    if student_loss_weight > 0:
        losses = cross_entropy(labels, student, label_smoothing, multi_label)
        parts.append((student_loss_weight, losses))
    if student_loss_weight < 1:
        losses = kl_divergence(student, teacher, temperature, reverse, multi_label)
        parts.append(((1 - student_loss_weight) * temperature**2, losses))
    return weighted_sum(parts)


def weighted_sum(parts: Iterable[tuple[float, Any]]) -> Any:
    """Returns the sum of weight * losses.

    Args:
        parts: Pairs of a weight and losses, (batch, ...) or scalars.
    """
    total: Any = 0.0
    for weight, losses in parts:
        total += weight * losses
    return total


def cross_entropy(
    labels: Tensor, logits: Tensor, label_smoothing: float = 0.0, multi_label: bool = False
) -> Any:
    """Returns the cross-entropy of each example with its labels.

    Args:
        labels: Class indices (...) or (..., 1), or one-hot or soft labels (..., classes); for
            `multi_label` 0 or 1 per class.
        logits: (..., classes).
        label_smoothing: Fraction of the label that is spread over all classes, in [0, 1).
        multi_label: Whether classes are independent (sigmoid, not softmax).

    Returns:
        A tensor (...), in nats; for `multi_label` the mean over the classes.
    """
    logits = ops.cast(logits, "float32")
    if multi_label:
        return _binary_cross_entropy(labels, logits, label_smoothing)
    if is_sparse(labels, logits):
        loss = ops.sparse_categorical_crossentropy(labels, logits, from_logits=True)
    else:
        loss = -ops.sum(ops.cast(labels, "float32") * ops.log_softmax(logits), axis=-1)
    if not label_smoothing:
        return loss
    uniform = -ops.mean(ops.log_softmax(logits), axis=-1)
    return (1 - label_smoothing) * loss + label_smoothing * uniform


def kl_divergence(
    student: Tensor,
    teacher: Tensor,
    temperature: float = 1.0,
    reverse: bool = False,
    multi_label: bool = False,
) -> Any:
    """Returns KL(teacher || student) of each example, both softened by the temperature.

    Args:
        student: Logits, (..., classes).
        teacher: Logits, (..., classes).
        temperature: Divisor of both, above 0.
        reverse: KL(student || teacher) instead.
        multi_label: Whether classes are independent (sigmoid, not softmax).

    Returns:
        A tensor (...), in nats; for `multi_label` the mean over the classes.
    """
    pair = [ops.cast(logits, "float32") / temperature for logits in (teacher, student)]
    p, q = reversed(pair) if reverse else pair
    if not multi_label:
        return _relative_entropy(ops.log_softmax(p), ops.log_softmax(q))
    yes = ops.log_sigmoid(p), ops.log_sigmoid(q)
    no = ops.log_sigmoid(-p), ops.log_sigmoid(-q)
    both = [ops.stack(sides, axis=-1) for sides in zip(yes, no, strict=True)]
    return ops.mean(_relative_entropy(*both), axis=-1)


def as_logits(probabilities: Tensor, multi_label: bool = False) -> Any:
    """Returns logits whose softmax or sigmoid are these probabilities.

    Args:
        probabilities: (..., classes), of a softmax, or of a sigmoid for `multi_label`.
        multi_label: Whether classes are independent (sigmoid, not softmax).

    Returns:
        A float32 tensor of the same shape.
    """
    p = ops.maximum(ops.cast(probabilities, "float32"), MIN_PROBABILITY)
    if not multi_label:
        return ops.log(p)
    return ops.log(p) - ops.log(ops.maximum(1 - p, MIN_PROBABILITY))


def averaged(logits: Sequence[Any], weights: Sequence[float], multi_label: bool = False) -> Any:
    """Averages the probabilities of several teachers; returns the average as logits.

    Probabilities are averaged at temperature 1, so that logits cached on disk serve every
    temperature.

    Args:
        logits: One tensor (..., classes) per teacher.
        weights: One number above 0 per teacher; their sum does not matter.
        multi_label: Whether classes are independent (sigmoid, not softmax).

    Returns:
        A float32 tensor (..., classes); for a single teacher its own logits.
    """
    if len(logits) == 1:
        return ops.cast(logits[0], "float32")
    stacked = ops.stack([ops.cast(part, "float32") for part in logits], axis=0)
    fractions = np.asarray(weights, np.float32) / np.sum(weights)
    log_weights = np.log(fractions).reshape(-1, *(1 for _ in stacked.shape[1:]))
    if not multi_label:
        return ops.logsumexp(ops.log_softmax(stacked) + log_weights, axis=0)
    yes = ops.logsumexp(ops.log_sigmoid(stacked) + log_weights, axis=0)
    return yes - ops.logsumexp(ops.log_sigmoid(-stacked) + log_weights, axis=0)


def averaged_values(values: Sequence[Any], weights: Sequence[float]) -> Any:
    """Averages outputs of several teachers that are no classes.

    Args:
        values: One tensor (batch, ...) per teacher.
        weights: One number above 0 per teacher; their sum does not matter.

    Returns:
        A float32 tensor (batch, ...); for a single teacher its own values.
    """
    cast = [ops.cast(part, "float32") for part in values]
    if len(cast) == 1:
        return cast[0]
    fractions = [float(weight) / float(np.sum(weights)) for weight in weights]
    return weighted_sum(zip(fractions, cast, strict=True))


def weighted_mean(
    losses: Tensor, sample_weight: Tensors | None = None, mask: Tensor | None = None
) -> Any:
    """Returns the mean of losses over a batch, with the reduction of Keras' own losses.

    Under a distribution strategy it is divided by the number of replicas, since their
    gradients are added up.

    Args:
        losses: (n, ...).
        sample_weight: One number per example, (n,) or (n, 1), or one per loss; of a tuple the
            first is used.
        mask: Which losses count, of the same shape; None: all. A mask of another rank, as of the
            steps of a sequence that was summed up, is left out.
    """
    if isinstance(sample_weight, (list, tuple)):  # Keras repeats it for labels and outputs
        sample_weight = sample_weight[0]
    if sample_weight is not None:
        sample_weight = _aligned(ops.convert_to_tensor(sample_weight, "float32"), losses)
    if mask is not None and len(mask.shape) == len(losses.shape):
        set_mask(losses, mask)
    return _Average("distillation", dtype="float32")(losses, losses, sample_weight)


def is_sparse(labels: Tensor, logits: Tensor) -> bool:
    """Whether labels are class indices, not one-hot or soft labels."""
    return len(labels.shape) < len(logits.shape) or (
        labels.shape[-1] == 1 and logits.shape[-1] != 1
    )


def _aligned(weight: Any, losses: Any) -> Any:
    """Gives weights as many axes as losses (n, ...), averaging over surplus axes."""
    while len(weight.shape) < len(losses.shape):
        weight = ops.expand_dims(weight, -1)
    while len(weight.shape) > max(len(losses.shape), 1):
        weight = ops.mean(weight, axis=-1)
    return weight


def _binary_cross_entropy(labels: Tensor, logits: Tensor, label_smoothing: float) -> Any:
    labels = ops.cast(labels, "float32")
    if len(labels.shape) < len(logits.shape):  # one class: labels (n,), logits (n, 1)
        labels = ops.expand_dims(labels, -1)
    labels = labels * (1 - label_smoothing) + 0.5 * label_smoothing
    yes, no = ops.log_sigmoid(logits), ops.log_sigmoid(-logits)
    return -ops.mean(labels * yes + (1 - labels) * no, axis=-1)


def _relative_entropy(log_p: Any, log_q: Any) -> Any:
    return ops.sum(ops.exp(log_p) * (log_p - log_q), axis=-1)


class _Average(keras.losses.Loss):
    """Keras' mean over a batch and all replicas, of losses computed beforehand."""

    def call(self, y_true: Any, y_pred: Any) -> Any:
        return y_pred
