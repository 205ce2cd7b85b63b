"""The losses of knowledge distillation as functions of logits.

A student with logits s learns from labels and from a teacher with logits t::

    w * cross_entropy(labels, s) + (1 - w) * T^2 * KL(softmax(t / T) || softmax(s / T))

where w is `student_loss_weight` and T the temperature. T^2 keeps the gradients of the second
term as large as those of the first, whatever the temperature. Probabilities come in through
:func:`as_logits`: their logarithm serves as logits, since softmax forgets what is added to all
of them.

With `multi_label` every class is a yes or no of its own: sigmoids, binary cross-entropy and
binary divergence, averaged over the classes, as Keras does.

Everything is computed in float32, classes on the last axis, one value an example.

References:
    Hinton, Vinyals and Dean, "Distilling the Knowledge in a Neural Network", 2015.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

LEAST = 1e-7  # probabilities below count as it, as in Keras' own cross-entropy


def distillation_loss(
    labels: Any,
    student: Any,
    teacher: Any,
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
        labels: As for :func:`cross_entropy`; not looked at where student_loss_weight is 0.
        student: Logits, (..., classes).
        teacher: Logits, (..., classes); not looked at where student_loss_weight is 1.
        student_loss_weight: Weight of the labels, in [0, 1]; the rest is the teacher's.
        temperature: What both logits are divided by for the teacher's part, above 0.
        reverse: KL(student || teacher) instead of KL(teacher || student).
        multi_label: Whether each class is decided on its own.
        label_smoothing: Share of the labels that is spread over all classes, in [0, 1).

    Returns:
        A tensor (...), in nats.

    References:
        Hinton, Vinyals and Dean, "Distilling the Knowledge in a Neural Network", 2015.
    """
    loss: Any = 0.0
    if student_loss_weight > 0:
        loss += student_loss_weight * cross_entropy(labels, student, label_smoothing, multi_label)
    if student_loss_weight < 1:
        far = kl_divergence(student, teacher, temperature, reverse, multi_label)
        loss += (1 - student_loss_weight) * temperature**2 * far
    return loss


def cross_entropy(
    labels: Any, logits: Any, label_smoothing: float = 0.0, multi_label: bool = False
) -> Any:
    """Returns the cross-entropy of each example with its labels.

    Args:
        labels: Class numbers (...) or (..., 1), or a share a class (..., classes); for
            `multi_label` 0 or 1 a class.
        logits: (..., classes).
        label_smoothing: Share of the labels that is spread over all classes, in [0, 1).
        multi_label: Whether each class is decided on its own.

    Returns:
        A tensor (...), in nats; for `multi_label` the mean over the classes.
    """
    logits = ops.cast(logits, "float32")
    if multi_label:
        return _binary_cross_entropy(labels, logits, label_smoothing)
    if is_sparse(labels, logits):
        hard = ops.sparse_categorical_crossentropy(labels, logits, from_logits=True)
    else:
        hard = -ops.sum(ops.cast(labels, "float32") * ops.log_softmax(logits), axis=-1)
    if not label_smoothing:
        return hard
    spread = -ops.mean(ops.log_softmax(logits), axis=-1)
    return (1 - label_smoothing) * hard + label_smoothing * spread


def kl_divergence(
    student: Any,
    teacher: Any,
    temperature: float = 1.0,
    reverse: bool = False,
    multi_label: bool = False,
) -> Any:
    """Returns KL(teacher || student) of each example, both softened by the temperature.

    Args:
        student: Logits, (..., classes).
        teacher: Logits, (..., classes).
        temperature: What both are divided by, above 0.
        reverse: KL(student || teacher) instead.
        multi_label: Whether each class is decided on its own.

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


def as_logits(probabilities: Any, multi_label: bool = False) -> Any:
    """Returns logits that give these probabilities.

    Args:
        probabilities: (..., classes), of a softmax, or of sigmoids for `multi_label`.
        multi_label: Whether each class is decided on its own.

    Returns:
        A float32 tensor of the same shape.
    """
    p = ops.maximum(ops.cast(probabilities, "float32"), LEAST)
    if not multi_label:
        return ops.log(p)
    return ops.log(p) - ops.log(ops.maximum(1 - p, LEAST))


def averaged(logits: Sequence[Any], weights: Sequence[float], multi_label: bool = False) -> Any:
    """Returns the logits of the average of what several logits stand for.

    Probabilities are averaged as they are, at temperature 1, so that what is kept on disk
    serves every temperature.

    Args:
        logits: One tensor (..., classes) a teacher.
        weights: One number above 0 a teacher; their sum does not matter.
        multi_label: Whether each class is decided on its own.

    Returns:
        A float32 tensor (..., classes); of a single teacher its own logits.
    """
    if len(logits) == 1:
        return ops.cast(logits[0], "float32")
    stacked = ops.stack([ops.cast(part, "float32") for part in logits], axis=0)
    shares = np.asarray(weights, np.float32) / np.sum(weights)
    shares = np.log(shares).reshape(-1, *(1 for _ in stacked.shape[1:]))
    if not multi_label:
        return ops.logsumexp(ops.log_softmax(stacked) + shares, axis=0)
    yes = ops.logsumexp(ops.log_sigmoid(stacked) + shares, axis=0)
    return yes - ops.logsumexp(ops.log_sigmoid(-stacked) + shares, axis=0)


def weighted_mean(losses: Any, sample_weight: Any = None, mask: Any = None) -> Any:
    """Returns the mean of losses over a batch, reduced as Keras reduces its own.

    Under a distribution strategy it is divided by the number of replicas, whose gradients
    are added up.

    Args:
        losses: (n, ...).
        sample_weight: One number an example, (n,) or (n, 1), or one a loss; or a tuple
            whose first one counts.
        mask: Which losses count, of their shape; None: all.
    """
    if isinstance(sample_weight, (list, tuple)):  # Keras repeats it for labels and outputs
        sample_weight = sample_weight[0]
    if sample_weight is not None:
        sample_weight = _aligned(ops.convert_to_tensor(sample_weight, "float32"), losses)
    if mask is not None:
        losses._keras_mask = mask
    return _Average("distillation", dtype="float32")(losses, losses, sample_weight)


def is_sparse(labels: Any, logits: Any) -> bool:
    """Whether labels are class numbers and not a share a class."""
    return len(labels.shape) < len(logits.shape) or (
        labels.shape[-1] == 1 and logits.shape[-1] != 1
    )


def _aligned(weight: Any, losses: Any) -> Any:
    """Weights with as many axes as losses (n, ...); of parts of an example their mean."""
    while len(weight.shape) < len(losses.shape):
        weight = ops.expand_dims(weight, -1)
    while len(weight.shape) > max(len(losses.shape), 1):
        weight = ops.mean(weight, axis=-1)
    return weight


def _binary_cross_entropy(labels: Any, logits: Any, label_smoothing: float) -> Any:
    labels = ops.cast(labels, "float32")
    if len(labels.shape) < len(logits.shape):  # one class: (n,) beside (n, 1)
        labels = ops.expand_dims(labels, -1)
    labels = labels * (1 - label_smoothing) + 0.5 * label_smoothing
    yes, no = ops.log_sigmoid(logits), ops.log_sigmoid(-logits)
    return -ops.mean(labels * yes + (1 - labels) * no, axis=-1)


def _relative_entropy(log_p: Any, log_q: Any) -> Any:
    return ops.sum(ops.exp(log_p) * (log_p - log_q), axis=-1)


class _Average(keras.losses.Loss):
    """Keras' own mean over a batch and all replicas, of losses that are there already."""

    def call(self, y_true: Any, y_pred: Any) -> Any:
        return y_pred
