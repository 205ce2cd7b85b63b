"""Checks that a student, its teachers and the losses between their layers fit together."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import keras

from tfnas.distillation.batch_checks import same_shape
from tfnas.distillation.feature_losses import Transfer
from tfnas.distillation.forward import ForwardPass, has_layer
from tfnas.distillation.output_kinds import CLASSES, INDEPENDENT, LossFacts
from tfnas.distillation.output_structure import same_outputs
from tfnas.distillation.teachers import Teachers


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
            "features must be a list of FeatureHint, AttentionTransfer, AttentionMapTransfer and "
            f"RelationalTransfer, got {features!r}"
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


def check_not_swapped(
    features: Sequence[Transfer],
    student: keras.Model,
    teacher: keras.Model | Sequence[keras.Model] | None,
) -> None:
    """Raises ValueError where the losses fit if student and teacher change places, and only then.

    Args:
        features: The losses on intermediate activations.
        student: The student.
        teacher: The teacher, a list of teachers, or None.
    """
    teachers = teacher if isinstance(teacher, (list, tuple)) else [teacher]

    def fit(*sides: str) -> bool:
        names = [[getattr(each, side) for side in sides] for each in features]
        return all(
            has_layer(student, ours) and has_layer(teachers[each.of], theirs)
            for each, (ours, theirs) in zip(features, names, strict=True)
        )

    if features and not fit("student", "teacher") and fit("teacher", "student"):
        raise ValueError(
            "features must name the student's layer first, then the teacher's, got "
            f"{features[0]!r}, which fits with student and teacher swapped: "
            "attention_map_transfers(student, teacher) has the student first, Distiller(teacher, "
            "student) the teacher"
        )


def class_family(
    multi_label: bool | None,
    passes: Sequence[ForwardPass],
    outputs: Sequence[int],
    losses: Iterable[LossFacts] = (),
) -> str:
    """Returns whether classes are independent: CLASSES or INDEPENDENT.

    Args:
        multi_label: The caller's argument.
        passes: The student's forward pass and the teachers'.
        outputs: Number of the output in each of them.
        losses: What the losses of the models say, used where no activation does.

    Raises:
        ValueError: The models contradict each other or the argument.
    """
    ends = [one.ends[output] for one, output in zip(passes, outputs, strict=True)]
    values = {end.class_activation == "sigmoid" for end in ends if end.class_activation}
    if ends[0].shape is not None and ends[0].shape[-1] == 1:  # a softmax over one is constant
        values.add(True)
    if multi_label is not None:
        values.add(multi_label)
    if len(values) > 1:
        pairs = zip(passes, ends, strict=True)
        models = ", ".join(f"{m.role} {end.activation or 'logits'} {end.shape}" for m, end in pairs)
        raise ValueError(
            f"multi_label must match the last activations, True for a sigmoid or one unit and "
            f"False for a softmax, got {multi_label} with {models}"
        )
    if not values:
        families = (facts.family for facts in losses)
        return next((one for one in families if one in (CLASSES, INDEPENDENT)), CLASSES)
    return INDEPENDENT if values.pop() else CLASSES


def check_multi_label(multi_label: bool | None) -> None:
    """Raises ValueError unless the argument is True, False or None."""
    if multi_label is not None and not isinstance(multi_label, bool):
        raise ValueError(f"multi_label must be True, False or None, got {multi_label!r}")


def check_models(student: keras.Model, teachers: Teachers, has_loss: bool) -> None:
    """Raises ValueError for a student that can't be trained, or not by these teachers.

    Args:
        student: The student.
        teachers: The teachers.
        has_loss: Whether the distiller was given the student's loss.
    """
    own = [name for name in ("train_step", "compute_loss") if _defines(student, name)]
    if "train_step" in own or (own and not has_loss):
        way = "" if "train_step" in own else "; give its loss as student_loss"
        raise ValueError(
            f"student must be trained by Keras' own train_step and compute_loss, got "
            f"{type(student).__name__} with a {own[0]} of its own, which would not run: the "
            f"distiller has its own{way}"
        )
    if any(model is student for model in teachers):
        raise ValueError("teacher must be another model than the student, got the same")
    teachers.check_inputs(student)


def check_outputs(passes: Sequence[ForwardPass], takes_any_shape: Sequence[bool]) -> None:
    """Raises ValueError if an output of a teacher has another shape than the student's.

    Args:
        passes: The student's forward pass, then the teachers'.
        takes_any_shape: For each output, whether it is compared by a loss of the user's own.
    """
    student, *teachers = passes
    for teacher in teachers:
        positions = same_outputs(student.structure, teacher.structure)
        for number, position in enumerate(positions):
            ours, theirs = student.shapes[number], teacher.shapes[position]
            if ours is None or theirs is None or takes_any_shape[number]:
                continue  # a subclassed model's shape is known once it is called
            if not same_shape(ours, theirs):
                raise ValueError(
                    f"teacher must give outputs of the student's shape {ours}, got "
                    f"{theirs} from {teacher.model.name!r}"
                )


def projections(
    features: Sequence[Transfer], student: ForwardPass, *teachers: ForwardPass
) -> list[keras.layers.Layer | None]:
    """Returns the trainable projection of each feature loss, None where it has none.

    Raises:
        ValueError: The activations of two layers can't be compared.
    """
    layers = []
    for transfer in features:
        shapes = (
            student.shape_of(transfer.student_tap),
            teachers[transfer.of].shape_of(transfer.teacher_tap),
        )
        transfer.check(*shapes)
        layers.append(transfer.projection(*shapes))
    return layers


def _defines(model: keras.Model, name: str) -> bool:
    """Whether a model's class, or the model itself, has a method of its own for training."""
    return name in vars(model) or getattr(type(model), name) is not getattr(keras.Model, name)
