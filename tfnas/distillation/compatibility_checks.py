"""Whether a student, its teachers, labels and kept outputs go together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from tfnas.distillation.feature_losses import Transfer
from tfnas.distillation.forward import Reader
from tfnas.distillation.losses import is_sparse


def checked_features(features: Any, teacher: Any) -> tuple[Transfer, ...]:
    """Returns the transfers of a list.

    Args:
        features: What the caller gave.
        teacher: The teacher, a list of them, or None.

    Raises:
        ValueError: It is no list of transfers, or one names a teacher that is not there.
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
            "layers inside a teacher, of which kept outputs tell nothing"
        )
    for transfer in features:
        if transfer.of >= teachers:
            raise ValueError(
                f"features must compare with one of {teachers} teachers, numbered from 0, got "
                f"{transfer!r}"
            )
    return tuple(features)


def resolved_multi_label(stated: bool | None, readers: Sequence[Reader]) -> bool:
    """Whether each class is decided on its own, as stated or as the models show.

    Args:
        stated: What the caller says; None: nothing.
        readers: The student's and the teachers'.

    Raises:
        ValueError: The models differ from each other or from what is stated.
    """
    if stated is not None and not isinstance(stated, bool):
        raise ValueError(f"multi_label must be True, False or None, got {stated!r}")
    shape = readers[0].shape
    single = shape is not None and shape[-1] == 1  # a softmax over one class says nothing
    found = {r.multi_label for r in readers if r.multi_label is not None} | ({True} & {single})
    found |= set() if stated is None else {stated}
    if len(found) > 1:
        ends = ", ".join(f"{r.role} {r.activation or 'logits'} {r.shape}" for r in readers)
        raise ValueError(
            f"multi_label must go with the last activations, sigmoid or one unit for True and "
            f"softmax for False, got {stated} with {ends}"
        )
    return found.pop() if found else False


def check_outputs(student: Reader, teachers: Iterable[Reader]) -> None:
    """Raises ValueError where a teacher's output shape is not the student's."""
    for teacher in teachers:
        if student.shape is None or teacher.shape is None:
            continue  # a subclassed model's shape shows when it is called
        if not same_shape(student.shape, teacher.shape):
            raise ValueError(
                f"teacher must give outputs of the student's shape {student.shape}, got "
                f"{teacher.shape} from {teacher.model.name!r}"
            )


def projections(
    features: Sequence[Transfer], student: Reader, teachers: Sequence[Reader]
) -> list[Any]:
    """Returns the trained projection of each transfer, None where it has none.

    Raises:
        ValueError: Two layers can't be compared.
    """
    made = []
    for transfer in features:
        shapes = (
            student.shape_of(transfer.student),
            teachers[transfer.of].shape_of(transfer.teacher),
        )
        transfer.check(*shapes)
        made.append(transfer.projection(*shapes))
    return made


def split_targets(y: Any, kept: bool) -> tuple[Any, Any]:
    """Returns (labels, a teacher's outputs) of a batch's targets, None where they are not.

    Args:
        y: The targets.
        kept: Whether a teacher's outputs may be among them.
    """
    if kept and isinstance(y, (list, tuple)) and len(y) == 2:
        return y[0], y[1]
    if isinstance(y, (list, tuple)) and len(y) == 2 and all(hasattr(part, "shape") for part in y):
        raise ValueError(
            f"y must be one array of labels, got a {type(y).__name__} of two: (labels, teacher's "
            "outputs) is for a Distiller whose teacher is left out"
        )
    if y is not None and not hasattr(y, "shape"):
        pair = " or (labels, teacher's outputs)" if kept else ""
        raise ValueError(f"y must be one array of labels{pair}, got a {type(y).__name__}")
    return y, None


def check_labels(labels: Any, logits: Any, multi_label: bool) -> None:
    """Raises ValueError where labels are missing, or are not those of these logits."""
    if labels is None:
        raise ValueError("y must be given where labels count (alpha above 0, or evaluation)")
    shape, wanted = tuple(labels.shape), tuple(logits.shape)
    if multi_label:
        fits = same_shape(shape, wanted) or (wanted[-1] == 1 and same_shape(shape, wanted[:-1]))
    elif is_sparse(labels, logits):
        fits = same_shape(shape[: len(wanted) - 1], wanted[:-1])
    else:
        fits = same_shape(shape, wanted)
    if not fits:
        kinds = "0 or 1 a class" if multi_label else "class numbers, or a share a class"
        raise ValueError(f"y must be {kinds}, for outputs {wanted}, got labels {shape}")


def check_classes(labels: Any, shape: Sequence[int | None] | None) -> None:
    """Raises ValueError where class numbers given as an array are none of the student's classes.

    In the step itself they are not known: there TensorFlow stops with the place in its graph.

    Args:
        labels: Labels as the caller gives them; what is no NumPy array is not looked at.
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
            f"y must hold class numbers from 0 to {shape[-1] - 1} for a student of {shape[-1]} "
            f"classes, got {low} to {high}"
        )


def check_shares(labels: Any) -> None:
    """Raises ValueError where labels of single classes, given as an array, are not from 0 to 1."""
    if not isinstance(labels, np.ndarray) or labels.size == 0 or labels.dtype.kind not in "iuf":
        return
    low, high = labels.min(), labels.max()
    if not 0 <= low <= high <= 1:
        raise ValueError(
            "y must hold numbers from 0 to 1 where each class is decided on its own, as one unit "
            f"or a sigmoid does, got {low} to {high}"
        )


def check_told(told: Any, logits: Any) -> None:
    """Raises ValueError where a teacher's outputs are missing, or of another shape."""
    if told is None:
        raise ValueError("y must be (labels, teacher's outputs) where teacher is None, got labels")
    if not same_shape(told.shape, logits.shape):
        raise ValueError(
            f"teacher must give outputs of the student's shape {tuple(logits.shape)}, got "
            f"{tuple(told.shape)}"
        )


def same_shape(a: Sequence[int | None], b: Sequence[int | None]) -> bool:
    """Whether two shapes can be of one tensor; None is an open dimension."""
    return len(a) == len(b) and all(
        None in pair or pair[0] == pair[1] for pair in zip(a, b, strict=True)
    )


def example_weights(x: Any, y: Any, by_class: Any, given: Mapping[str, Any]) -> np.ndarray:
    """Returns a weight an example, where `fit` has kept outputs, which Keras' own way refuses.

    Args:
        x: What `fit` was given.
        y: (labels, outputs), or something else.
        by_class: Class number -> weight.
        given: The other arguments of `fit`.

    Raises:
        ValueError: There are no arrays of labels to weigh, or there are weights already.
    """
    pair = isinstance(y, (list, tuple)) and len(y) == 2
    if not pair or not hasattr(y[0], "shape"):
        raise ValueError(
            "class_weight must come with arrays of (labels, outputs) where outputs are kept, got "
            f"{type(y if y is not None else x).__name__}: give sample_weight, one an example"
        )
    if given.get("sample_weight") is not None:
        raise ValueError("class_weight must come without sample_weight, got both")
    labels = np.asarray(y[0])
    sparse = labels.ndim == 1 or labels.shape[-1] == 1
    classes = labels.reshape(-1) if sparse else labels.argmax(-1)
    return np.array([by_class.get(int(number), 1.0) for number in classes], np.float32)
