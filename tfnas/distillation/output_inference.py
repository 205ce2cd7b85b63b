"""Decides how each output is trained: from arguments, losses and last activations.

:mod:`tfnas.distillation.output_kinds` has the order in which they count.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import keras

from tfnas.distillation.compatibility_checks import check_multi_label, class_family
from tfnas.distillation.feature_losses import Transfer
from tfnas.distillation.forward import ForwardPass, own_structure
from tfnas.distillation.output_checks import check_number
from tfnas.distillation.output_kinds import (
    CLASSES,
    CROSSENTROPY,
    INDEPENDENT,
    KINDS,
    PROBABILITIES,
    VALUES,
    LossFacts,
    check_kind,
    compiled_losses,
    family_by_evidence,
    kind_name,
    loss_facts,
    losses_by_output,
)
from tfnas.distillation.output_losses import OutputLoss, as_loss
from tfnas.distillation.output_structure import (
    OutputStructure,
    given_by_output,
    subclassed_structure,
)
from tfnas.distillation.teachers import Teachers

if TYPE_CHECKING:
    from tfnas.distillation.tensor_types import LossesLike


@dataclasses.dataclass(frozen=True, eq=False)
class OutputArguments:
    """What the caller said of the outputs.

    Args:
        structure: The student's outputs.
        outputs: For each output a kind, a loss, an :class:`OutputLoss`, or None.
        losses: For each output the student's own loss, or None.
        compiled: For each output the loss that the student was compiled with, or None.
        multi_label: Whether classes are independent; None: to be found.
        gives: What the student's outputs and the teacher's are; None where nothing is said.
        label_smoothing: Fraction of the label that is spread; None: that of the student's loss.
        weights: For each output its factor in the sum, or None.
    """

    structure: OutputStructure
    outputs: Sequence[Any]
    losses: Sequence[Any]
    compiled: Sequence[Any]
    multi_label: bool | None = None
    gives: tuple[str | None, str | None] = (None, None)
    label_smoothing: float | None = None
    weights: Sequence[float | None] = ()

    def loss(self, output: int) -> Any:
        """Returns the student's loss of an output."""
        given = self.losses[output]
        return self.compiled[output] if given is None else given

    def student_gives(self) -> list[str | None]:
        """Returns what each of the student's outputs is, as far as the arguments say it."""
        found: list[str | None] = []
        for given in self.outputs:
            kind = given.kind if isinstance(given, OutputLoss) else given
            if isinstance(kind, str) and KINDS.get(kind) in (CLASSES, INDEPENDENT):
                found.append("probabilities" if kind in PROBABILITIES else "logits")
            else:
                found.append(self.gives[0])
        return found


def output_arguments(
    student: keras.Model,
    outputs: LossesLike | None,
    student_loss: LossesLike | None,
    multi_label: bool | None,
    gives: tuple[str | None, str | None],
    label_smoothing: float | None,
) -> OutputArguments:
    """Returns the caller's arguments by output, after checking them.

    Args:
        student: The student.
        outputs: A kind or loss, or one for each output.
        student_loss: A loss, or one for each output.
        multi_label: Whether classes are independent.
        gives: `student_gives` and `teacher_gives`.
        label_smoothing: Fraction of the label that is spread.

    Raises:
        ValueError: One is invalid, or two contradict each other.
    """
    if label_smoothing is not None:
        check_number("label_smoothing", label_smoothing, low=0.0, high=1.0, excluded={1.0})
    check_multi_label(multi_label)
    structure = own_structure(student, "student") or subclassed_structure(outputs)
    kinds = given_by_output(outputs, structure, "outputs")
    for kind in kinds:
        _check_output_argument(kind)
    if len(structure) > 1 and (multi_label is not None or gives[0] is not None):
        argument = "multi_label" if multi_label is not None else "student_gives"
        raise ValueError(
            f"{argument} must be left out where the student has several outputs, "
            f"{', '.join(structure.names)}: use outputs, a kind for each"
        )
    losses = given_by_output(student_loss, structure, "student_loss")
    for loss in losses:
        if loss is not None and not (isinstance(loss, str) and loss.lower() in CROSSENTROPY):
            as_loss(loss, "student_loss")
    arguments = OutputArguments(
        structure,
        kinds,
        losses,
        compiled_losses(student, structure),
        multi_label,
        gives,
        label_smoothing,
        _compiled_weights(student, structure),
    )
    for kind, found in zip(kinds, arguments.student_gives(), strict=True):
        if gives[0] is not None and isinstance(kind, str) and found != gives[0]:
            raise ValueError(
                f"student_gives must match outputs, got {gives[0]!r} with outputs {kind!r}"
            )
    return arguments


def student_forward(
    student: keras.Model, arguments: OutputArguments, features: Sequence[Transfer]
) -> ForwardPass:
    """Returns the student's forward pass.

    Args:
        student: The student.
        arguments: What the caller said of its outputs.
        features: The losses that need intermediate activations of it.
    """
    structure = arguments.structure
    facts = [loss_facts(arguments.loss(number)) for number in range(len(structure))]
    taps = [transfer.student_tap for transfer in features]
    return ForwardPass(student, "student", taps, arguments.student_gives(), facts, structure)


def inferred_outputs(
    arguments: OutputArguments, student: ForwardPass, teachers: Teachers
) -> list[OutputLoss]:
    """Returns how each output is trained; kinds that only targets can say are None.

    Args:
        arguments: What the caller said.
        student: The student's forward pass.
        teachers: The teachers.

    Raises:
        ValueError: Arguments, student and teachers contradict each other.
    """
    return [_output(n, arguments, student, teachers) for n in range(len(student.structure))]


def teacher_kinds(
    teachers: Teachers, outputs: LossesLike | None, multi_label: bool | None
) -> list[OutputLoss]:
    """Returns how the outputs of teachers are averaged and whether they become logits.

    Args:
        teachers: The teachers.
        outputs: A kind or loss, or one for each output; None: inferred.
        multi_label: Whether classes are independent; None: inferred.

    Raises:
        ValueError: The kind of several teachers' outputs is unknown, or contradictory.
    """
    first = teachers.forward_passes[0]
    found = []
    for number, given in enumerate(given_by_output(outputs, first.structure, "outputs")):
        _check_output_argument(given)
        name = first.structure.names[number]
        if given is not None and given not in KINDS:
            found.append(OutputLoss(name))  # by a loss: outputs as they are
            continue
        facts = _teacher_facts(number, teachers)
        stated = multi_label is not None or teachers.gives is not None
        kind = given or _inferred_kind(number, None, teachers, facts, multi_label, stated)
        if kind != "regression":
            _check_forms(number, teachers.forward_passes, teachers.positions)
        if kind is None and len(teachers) > 1:
            raise ValueError(
                f"outputs must say the kind of the output {name!r} of several linear teachers, got "
                "None: without a loss that they were compiled with it may be logits, of which "
                "probabilities are averaged, or a regression. Give outputs='logits', "
                "'sigmoid_logits' or 'regression'"
            )
        found.append(OutputLoss(name, kind))
    return found


def _output(
    number: int, arguments: OutputArguments, student: ForwardPass, teachers: Teachers
) -> OutputLoss:
    given = arguments.outputs[number]
    if isinstance(given, OutputLoss):
        return given
    kind, distance = _kind_and_distance(number, arguments, student, teachers)
    user, facts = arguments.loss(number), _student_facts(number, arguments, student)
    if arguments.losses[number] is None and kind and facts.family not in (None, KINDS[kind]):
        user, facts = None, LossFacts()  # an argument or the activation says another kind
    output = OutputLoss(
        student.structure.names[number],
        kind,
        distillation_loss=distance,
        label_smoothing=arguments.label_smoothing or 0.0,
        weight=arguments.weights[number] if arguments.weights else None,
    )
    if kind == "regression":
        return _regression(output, user, facts, teachers.loss_of(number))
    if output.is_of_classes and facts.plain_family == output.family:
        smoothing = arguments.label_smoothing
        smoothing = facts.label_smoothing if smoothing is None else smoothing
        return dataclasses.replace(output, label_smoothing=smoothing)
    if user is not None:
        return dataclasses.replace(output, student_loss=as_loss(user, "student_loss"))
    if kind is None and distance is not None:
        raise ValueError(
            f"student_loss must be given for the output {output.name!r}, since outputs gives a "
            "loss for the teacher's outputs alone and the model was not compiled with one, got None"
        )
    return output


def _kind_and_distance(
    number: int, arguments: OutputArguments, student: ForwardPass, teachers: Teachers
) -> tuple[str | None, keras.losses.Loss | None]:
    """The kind of an output, and the loss between teacher and student where one was given."""
    given = arguments.outputs[number]
    facts = [_student_facts(number, arguments, student), *_teacher_facts(number, teachers)]
    passes = [student, *teachers.forward_passes]
    positions = [list(range(len(student.structure))), *teachers.positions]
    is_kind = isinstance(given, str) and given in KINDS
    multi_label = arguments.multi_label
    if is_kind:
        kind: str | None = given
        _check_given_kind(number, given, multi_label, passes, positions)
    else:
        alone = len(student.structure) == 1
        stated = alone and (multi_label is not None or any(arguments.gives))
        kind = _inferred_kind(number, student, teachers, facts, multi_label, stated)
    distance = None if given is None or is_kind else as_loss(given, "outputs")
    if kind is None and distance is not None and loss_facts(given).family == VALUES:
        kind = "regression"
    if kind != "regression":
        compared = len(passes) if distance is None else int(kind is not None)
        _check_forms(number, passes[:compared], positions)
    return kind, distance


def _inferred_kind(
    number: int,
    student: ForwardPass | None,
    teachers: Teachers,
    facts: Sequence[LossFacts],
    multi_label: bool | None,
    stated: bool,
) -> str | None:
    """The kind that arguments, losses and activations say; None: they say nothing."""
    own = [] if student is None else [student]
    passes = [*own, *teachers.forward_passes]
    outputs = [*(number for _ in own), *(one[number] for one in teachers.positions)]
    ends = [one.ends[output] for one, output in zip(passes, outputs, strict=True)]
    family = family_by_evidence(facts, [end.class_activation for end in ends])
    if stated or family in (CLASSES, INDEPENDENT):
        family = class_family(multi_label, passes, outputs, facts)
    return None if family is None else kind_name(family, bool(ends[0].probabilities))


def _check_given_kind(
    number: int,
    kind: str,
    multi_label: bool | None,
    passes: Sequence[ForwardPass],
    positions: Sequence[Sequence[int]],
) -> None:
    family = KINDS[kind]
    if family == VALUES:
        if multi_label is not None:
            raise ValueError(
                f"multi_label must be left out for a regression, got {multi_label!r} with outputs "
                f"{kind!r}"
            )
        return
    if multi_label is not None and multi_label != (family == INDEPENDENT):
        raise ValueError(f"multi_label must match outputs, got {multi_label} with {kind!r}")
    class_family(family == INDEPENDENT, passes, [one[number] for one in positions])
    if kind in PROBABILITIES and passes[0].ends[number].linear:
        name = passes[0].structure.names[number]
        logits = "logits" if family == CLASSES else "sigmoid_logits"
        raise ValueError(
            f"outputs must be {logits!r} for the output {name!r}, which ends in a linear layer, "
            f"got {kind!r}"
        )


def _check_forms(
    number: int, passes: Sequence[ForwardPass], positions: Sequence[Sequence[int]]
) -> None:
    """Raises ValueError where it is unknown whether a subclassed model gives probabilities."""
    for one, outputs in zip(passes, positions, strict=False):
        if one.ends[outputs[number]].probabilities is None:
            raise ValueError(
                f"{one.role}_gives must be 'logits' or 'probabilities' where {one.role} is not a "
                f"functional or Sequential model, got None for {one.model.name!r}; where it is a "
                f"regression, outputs='regression' says it"
            )


def _regression(
    output: OutputLoss, user: Any, facts: LossFacts, teacher_losses: Sequence[Any]
) -> OutputLoss:
    """Returns a regression with its losses: the user's own, else mean squared error."""
    theirs = [loss for loss in teacher_losses if loss_facts(loss).family == VALUES]
    given = output.distillation_loss
    student_loss: Any = user
    if user is None:
        known = given if loss_facts(given).family == VALUES else None
        student_loss = known or next(iter(theirs), "mean_squared_error")
    if given is None:
        own = user if facts.family == VALUES else None
        given = as_loss(own or next(iter(theirs), "mean_squared_error"), "student_loss")
    return dataclasses.replace(
        output, student_loss=as_loss(student_loss, "student_loss"), distillation_loss=given
    )


def _student_facts(number: int, arguments: OutputArguments, student: ForwardPass) -> LossFacts:
    return loss_facts(arguments.loss(number), _units(student, number))


def _teacher_facts(number: int, teachers: Teachers) -> list[LossFacts]:
    units = [end.shape[-1] if end.shape else None for end in teachers.ends(number)]
    return [loss_facts(*pair) for pair in zip(teachers.loss_of(number), units, strict=True)]


def _units(one: ForwardPass, output: int) -> int | None:
    shape = one.shapes[output]
    return shape[-1] if shape else None


def _check_output_argument(given: Any) -> None:
    if given is None or isinstance(given, (OutputLoss, keras.losses.Loss)):
        return
    if isinstance(given, str):
        check_kind(given)
    elif not callable(given):
        raise ValueError(
            f"outputs must be one of {', '.join(KINDS)}, or a loss of teacher's and student's "
            f"outputs, got {given!r}"
        )


def _compiled_weights(student: keras.Model, structure: OutputStructure) -> list[float | None]:
    """The weight of each output's loss that the student was compiled with."""
    if len(structure) == 1 or not getattr(student, "compiled", False):
        return [None] * len(structure)
    config = student.get_compile_config() or {}
    return losses_by_output(config.get("loss_weights"), structure)
