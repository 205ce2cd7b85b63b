"""Checks that a student, its teachers, labels and cached teacher logits fit together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from tfnas.distillation.feature_losses import Transfer
from tfnas.distillation.forward import ForwardPass
from tfnas.distillation.losses import is_sparse


def checked_features(
    features: Sequence[Transfer],
    teacher: keras.Model | Sequence[keras.Model] | None,
) -> tuple[Transfer, ...]:
    """Returns the argument `features` as a tuple, after checking it.

    Args:
        features: The losses on intermediate activations.
        teacher: The teacher, a list of teachers, or None.

    Raises:
        ValueError: It is not a list of such losses, or one refers to a missing teacher.
    """
    if not isinstance(features, (list, tuple)) or not all(
        isinstance(transfer, Transfer) for transfer in features
    ):
        raise ValueError(
            f"features must be a list of FeatureHint, AttentionTransfer and RelationalTransfer, "
            f"got {features!r}"
        )
    teachers = len(teacher) if isinstance(teacher, (list, tuple)) else int(teacher is not None)
    if features and not teachers:
        raise ValueError(
            f"features must be left out where teacher is None, got {features!r}: they compare with "
            "layers inside a teacher, of which cached logits hold nothing"
        )
    for transfer in features:
        if transfer.of >= teachers:
            raise ValueError(
                f"features must refer to one of {teachers} teachers, numbered from 0, got "
                f"{transfer!r}"
            )
    return tuple(features)


def resolved_multi_label(multi_label: bool | None, models: Sequence[ForwardPass]) -> bool:
    """Returns `multi_label`, or infers it from the models where it is None.

    Args:
        multi_label: The caller's argument.
        models: The student's forward pass and the teachers'.

    Raises:
        ValueError: The models contradict each other or the argument.
    """
    if multi_label is not None and not isinstance(multi_label, bool):
        raise ValueError(f"multi_label must be True, False or None, got {multi_label!r}")
    shape = models[0].shape
    values = {model.multi_label for model in models if model.multi_label is not None}
    if shape is not None and shape[-1] == 1:  # a softmax over one class is constant
        values.add(True)
    if multi_label is not None:
        values.add(multi_label)
    if len(values) > 1:
        ends = ", ".join(f"{m.role} {m.activation or 'logits'} {m.shape}" for m in models)
        raise ValueError(
            f"multi_label must match the last activations, True for a sigmoid or one unit and "
            f"False for a softmax, got {multi_label} with {ends}"
        )
    return values.pop() if values else False


def check_outputs(student: ForwardPass, teachers: Iterable[ForwardPass]) -> None:
    """Raises ValueError if a teacher's output shape differs from the student's."""
    for teacher in teachers:
        if student.shape is None or teacher.shape is None:
            continue  # a subclassed model's shape is known once it is called
        if not same_shape(student.shape, teacher.shape):
            raise ValueError(
                f"teacher must give outputs of the student's shape {student.shape}, got "
                f"{teacher.shape} from {teacher.model.name!r}"
            )


def projections(
    features: Sequence[Transfer], student: ForwardPass, teachers: Sequence[ForwardPass]
) -> list[keras.layers.Layer | None]:
    """Returns the trainable projection of each feature loss, None where it has none.

    Raises:
        ValueError: The activations of two layers can't be compared.
    """
    layers = []
    for transfer in features:
        shapes = (
            student.shape_of(transfer.student),
            teachers[transfer.of].shape_of(transfer.teacher),
        )
        transfer.check(*shapes)
        layers.append(transfer.projection(*shapes))
    return layers


def split_targets(y: Any, with_teacher_logits: bool) -> tuple[Any, Any]:
    """Splits a batch's targets into (labels, teacher's outputs); None for a missing part.

    Args:
        y: The targets.
        with_teacher_logits: Whether they may hold cached outputs of a teacher.

    Raises:
        ValueError: They are neither one array of labels nor an allowed pair.
    """
    if with_teacher_logits and isinstance(y, (list, tuple)) and len(y) == 2:
        return y[0], y[1]
    if isinstance(y, (list, tuple)) and len(y) == 2 and all(hasattr(part, "shape") for part in y):
        raise ValueError(
            f"y must be one array of labels, got a {type(y).__name__} of two: (labels, teacher's "
            "outputs) is for a Distiller whose teacher is left out"
        )
    if y is not None and not hasattr(y, "shape"):
        pair = " or (labels, teacher's outputs)" if with_teacher_logits else ""
        raise ValueError(f"y must be one array of labels{pair}, got a {type(y).__name__}")
    return y, None


def check_labels(labels: Any, logits: Any, multi_label: bool) -> None:
    """Raises ValueError if labels are missing or their shape does not match the logits."""
    if labels is None:
        raise ValueError(
            "y must be given where labels count (student_loss_weight above 0, or evaluation)"
        )
    shape, expected = tuple(labels.shape), tuple(logits.shape)
    if multi_label:
        single = expected[-1] == 1 and same_shape(shape, expected[:-1])
        fits = single or same_shape(shape, expected)
    elif is_sparse(labels, logits):
        fits = same_shape(shape[: len(expected) - 1], expected[:-1])
    else:
        fits = same_shape(shape, expected)
    if not fits:
        kinds = "0 or 1 per class" if multi_label else "class indices, or one-hot or soft labels"
        raise ValueError(f"y must be {kinds}, for outputs {expected}, got labels {shape}")


def check_class_indices(labels: Any, shape: Sequence[int | None] | None) -> None:
    """Raises ValueError if an array of class indices holds one that the student does not have.

    This is checked before training: within a step TensorFlow's error would only name an operation
    of its graph.

    Args:
        labels: Labels of any kind; only NumPy arrays are checked.
        shape: The student's output shape; None: unknown.
    """
    if not isinstance(labels, np.ndarray) or shape is None or shape[-1] is None:
        return
    outputs = np.empty((0,) * (len(shape) - 1) + (shape[-1],))
    if labels.size == 0 or labels.dtype.kind not in "iuf" or not is_sparse(labels, outputs):
        return
    low, high = labels.min(), labels.max()
    if not 0 <= low <= high < shape[-1]:
        raise ValueError(
            f"y must hold class indices from 0 to {shape[-1] - 1} for a student of {shape[-1]} "
            f"classes, got {low} to {high}"
        )


def check_multi_labels(labels: Any) -> None:
    """Raises ValueError if an array of labels for independent classes is not within [0, 1]."""
    if not isinstance(labels, np.ndarray) or labels.size == 0 or labels.dtype.kind not in "iuf":
        return
    low, high = labels.min(), labels.max()
    if not 0 <= low <= high <= 1:
        raise ValueError(
            "y must hold numbers from 0 to 1 where classes are independent (one unit or a "
            f"sigmoid), got {low} to {high}"
        )


def check_teacher_logits(teacher_logits: Any, logits: Any) -> None:
    """Raises ValueError if a teacher's logits are missing or differ in shape from the student's."""
    if teacher_logits is None:
        raise ValueError("y must be (labels, teacher's outputs) where teacher is None, got labels")
    if not same_shape(teacher_logits.shape, logits.shape):
        raise ValueError(
            f"teacher must give outputs of the student's shape {tuple(logits.shape)}, got "
            f"{tuple(teacher_logits.shape)}"
        )


def same_shape(a: Sequence[int | None], b: Sequence[int | None]) -> bool:
    """Whether two shapes are compatible; None is an unknown dimension."""
    return len(a) == len(b) and all(
        None in pair or pair[0] == pair[1] for pair in zip(a, b, strict=True)
    )


def example_weights(
    x: Any, y: Any, class_weight: Mapping[int, float], fit_arguments: Mapping[str, Any]
) -> np.ndarray:
    """Turns `class_weight` into one weight per example, for targets (labels, teacher's outputs).

    Keras itself refuses `class_weight` together with such a pair.

    Args:
        x: Argument of `fit`.
        y: Argument of `fit`.
        class_weight: Class index -> weight.
        fit_arguments: The other arguments of `fit`.

    Raises:
        ValueError: `y` is not a pair of arrays, or there are sample weights already.
    """
    pair = isinstance(y, (list, tuple)) and len(y) == 2
    if not pair or not hasattr(y[0], "shape"):
        raise ValueError(
            "class_weight must come with arrays of (labels, outputs) where teacher is None, got "
            f"{type(y if y is not None else x).__name__}: use sample_weight, one per example"
        )
    if fit_arguments.get("sample_weight") is not None:
        raise ValueError("class_weight must come without sample_weight, got both")
    labels = np.asarray(y[0])
    sparse = labels.ndim == 1 or labels.shape[-1] == 1
    classes = labels.reshape(-1) if sparse else labels.argmax(-1)
    return np.array([class_weight.get(int(index), 1.0) for index in classes], np.float32)
