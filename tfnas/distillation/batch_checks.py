"""Checks of the labels and the teacher's outputs of a batch, by their shapes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tfnas.distillation.losses import is_sparse

if TYPE_CHECKING:
    from tfnas.distillation.tensor_types import Tensor


def check_given(labels: Tensor | None) -> None:
    """Raises ValueError if labels are missing."""
    if labels is None:
        raise ValueError(
            "y must be given where labels count (student_loss_weight above 0, or evaluation)"
        )


def check_values(labels: Tensor, outputs: Tensor, name: str) -> None:
    """Raises ValueError if the targets of a regression do not have the shape of its output.

    Args:
        labels: The targets, (batch, ...).
        outputs: The student's output.
        name: The output's name.
    """
    shape, expected = tuple(labels.shape), tuple(outputs.shape)
    forms = {expected, expected[:-1] if expected[-1:] == (1,) else expected, (*expected, 1)}
    if not any(same_shape(shape, form) for form in forms):
        raise ValueError(
            f"y must be numbers of the shape of the output {name!r}, {expected}, where it is a "
            f"regression, got targets {shape}"
        )


def check_labels(labels: Tensor, logits: Tensor, multi_label: bool) -> None:
    """Raises ValueError if the shape of labels does not match the logits."""
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


def check_teacher(teacher: Tensor | None, student: Tensor, takes_any_shape: bool) -> None:
    """Raises ValueError if a teacher's output is missing or differs in shape from the student's.

    Args:
        teacher: The teacher's output.
        student: The student's output.
        takes_any_shape: Whether they are compared by a loss of the user's own.
    """
    if teacher is None:
        raise ValueError("y must be (labels, teacher's outputs) where teacher is None, got labels")
    if not takes_any_shape and not same_shape(teacher.shape, student.shape):
        raise ValueError(
            f"teacher must give outputs of the student's shape {tuple(student.shape)}, got "
            f"{tuple(teacher.shape)}"
        )


def same_shape(a: Sequence[int | None], b: Sequence[int | None]) -> bool:
    """Whether two shapes are compatible; None is an unknown dimension."""
    return len(a) == len(b) and all(
        None in pair or pair[0] == pair[1] for pair in zip(a, b, strict=True)
    )
