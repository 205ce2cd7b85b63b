"""The losses of one output: on its labels and on the teacher's output.

Cross-entropies on labels and divergences from a teacher's classes are computed from logits, example
by example (:mod:`tfnas.distillation.losses`), and averaged together. Other losses are Keras'
own, or the user's; each is averaged as it says itself.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import keras
from keras import ops

from tfnas.distillation import batch_checks
from tfnas.distillation.losses import cross_entropy, kl_divergence, weighted_mean, weighted_sum
from tfnas.distillation.output_kinds import CLASSES, INDEPENDENT, VALUES, family_of
from tfnas.keras_private import loss_options, mask_of

if TYPE_CHECKING:
    from tfnas.distillation.tensor_types import LossLike, Tensor


@keras.saving.register_keras_serializable("tfnas")
@dataclasses.dataclass(frozen=True, eq=False)
class OutputLoss:
    """How one output of the student is trained.

    Args:
        name: Name of the output.
        kind: One of `output_kinds.KINDS`; None: known once there are targets, or not needed.
        student_loss: Loss of (labels, student's output); None: the cross-entropy of the kind.
        distillation_loss: Loss of (teacher's output, student's output); None: the divergence of
            the kind.
        label_smoothing: Fraction of the label that is spread over all classes, in [0, 1).
        weight: Factor of the output's loss where there are several; None: 1.
    """

    name: str
    kind: str | None = None
    student_loss: keras.losses.Loss | None = None
    distillation_loss: keras.losses.Loss | None = None
    label_smoothing: float = 0.0
    weight: float | None = None

    @property
    def family(self) -> str | None:
        """CLASSES, INDEPENDENT or VALUES; None: unknown."""
        return family_of(self.kind)

    @property
    def multi_label(self) -> bool:
        """Whether its classes are independent."""
        return self.family == INDEPENDENT

    @property
    def is_of_classes(self) -> bool:
        """Whether it holds logits or probabilities."""
        return self.family in (CLASSES, INDEPENDENT)

    @property
    def compares_logits(self) -> bool:
        """Whether the teacher's output is compared as logits."""
        return self.is_of_classes and self.distillation_loss is None

    @property
    def takes_any_shape(self) -> bool:
        """Whether the user's own loss compares it with the teacher's, whatever both are."""
        return self.kind is None and self.distillation_loss is not None

    @property
    def is_known(self) -> bool:
        """Whether both losses can be computed without a look at targets."""
        both = self.student_loss is not None and self.distillation_loss is not None
        return self.kind is not None or both

    def with_kind(self, kind: str) -> OutputLoss:
        """Returns the same with a kind."""
        return dataclasses.replace(self, kind=kind)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments, serialized."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        for name in ("student_loss", "distillation_loss"):
            if fields[name] is not None:
                fields[name] = serialized_loss(fields[name])
        return fields

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> OutputLoss:
        """Returns an object with these arguments."""
        return cls(**{k: keras.saving.deserialize_keras_object(v) for k, v in config.items()})


@dataclasses.dataclass(frozen=True, eq=False)
class Settings:
    """How the two losses of each output are put together.

    Args:
        student_loss_weight: Weight of the labels, in [0, 1]; the rest is the teacher's.
        temperature: Divisor of both models' logits in the teacher's part, above 0.
        reverse: KL(student || teacher) instead of KL(teacher || student).
    """

    student_loss_weight: float
    temperature: float
    reverse: bool


@dataclasses.dataclass(frozen=True, eq=False)
class BatchLoss:
    """The loss of a batch and its parts, as scalars.

    Args:
        total: What is minimized.
        student: The loss on labels, without its weight; None where it is not needed.
        distillation: The loss on the teacher's output, without its weight; None as before.
    """

    total: Any
    student: Any = None
    distillation: Any = None


def batch_loss(
    output: OutputLoss,
    labels: Tensor | None,
    student: tuple[Tensor, Tensor | None],
    teacher: Tensor | None,
    settings: Settings,
    sample_weight: Tensor | None = None,
) -> BatchLoss:
    """Returns the loss of one output for a batch.

    Args:
        output: The output.
        labels: Its labels; ignored where student_loss_weight is 0.
        student: The pair of the student's output and its logits, (batch, ..., classes); the
            logits may be None where the output is not of classes.
        teacher: Logits (batch, ..., classes) or, where they are not compared, the output itself;
            ignored where student_loss_weight is 1.
        settings: Weights and temperature.
        sample_weight: One number for each example or position; None: all 1.

    Raises:
        ValueError: Labels or a teacher's outputs are missing, or have the wrong shape.
    """
    raw, logits = student
    share = settings.student_loss_weight
    _check(output, labels, student, teacher, share)
    mask = mask_of(raw)
    combines = output.is_of_classes and output.student_loss is None and output.compares_logits
    by_example: list[tuple[float, Any]] = []  # weight, losses
    parts: dict[str, Any] = {}
    if share > 0:
        if output.student_loss is None:
            losses = cross_entropy(labels, logits, output.label_smoothing, output.multi_label)
            by_example.append((share, losses))
            parts["student"] = weighted_mean(losses, sample_weight, mask)
        else:
            parts["student"] = _reduced(output.student_loss, labels, raw, sample_weight)
    if share < 1:
        if output.compares_logits:
            losses = kl_divergence(
                logits, teacher, settings.temperature, settings.reverse, output.multi_label
            )
            factor = settings.temperature**2
            by_example.append(((1 - share) * factor, losses))
            parts["distillation"] = factor * weighted_mean(losses, sample_weight, mask)
        else:
            assert output.distillation_loss is not None
            parts["distillation"] = _reduced(output.distillation_loss, teacher, raw, sample_weight)
    if combines:  # one mean over both
        return BatchLoss(weighted_mean(weighted_sum(by_example), sample_weight, mask), **parts)
    weights = {"student": share, "distillation": 1 - share}
    return BatchLoss(weighted_sum([(weights[name], loss) for name, loss in parts.items()]), **parts)


def as_loss(loss: LossLike, argument: str) -> keras.losses.Loss:
    """Returns a loss as a Keras object.

    Args:
        loss: A Keras loss, its name, or a function of (targets, outputs).
        argument: Name of the argument, for the error message.

    Raises:
        ValueError: It is none of these.
    """
    try:
        found = keras.losses.get(loss)
    except ValueError:
        found = None
    if isinstance(found, keras.losses.Loss):
        return found
    if not callable(found):
        raise ValueError(
            f"{argument} must be a Keras loss, its name, or a function of (targets, outputs), got "
            f"{loss!r}"
        )
    return LossOfFunction(found)


def serialized_loss(loss: keras.losses.Loss) -> dict[str, Any]:
    """Returns a loss's configuration with all of its options, some of which Keras leaves out.

    Args:
        loss: The loss.
    """
    found: dict[str, Any] = keras.saving.serialize_keras_object(loss)
    accepted = inspect.signature(type(loss).__init__).parameters
    for name, value in loss_options(loss).items():
        if name in accepted:
            found["config"].setdefault(name, value)
    return found


@keras.saving.register_keras_serializable("tfnas")
class LossOfFunction(keras.losses.Loss):
    """The mean of a function's values.

    Args:
        function: Takes (targets, outputs) and returns one number for each example.
        name: Name of the loss.
        reduction: As in `keras.losses.Loss`.
    """

    def __init__(
        self,
        function: Callable[[Any, Any], Any],
        name: str | None = None,
        reduction: str = "sum_over_batch_size",
    ) -> None:
        super().__init__(name or getattr(function, "__name__", None), reduction)
        self.function = function

    def call(self, y_true: Tensor, y_pred: Tensor) -> Any:
        """Returns the values, (batch, ...)."""
        if len(y_true.shape) + 1 == len(y_pred.shape) and y_pred.shape[-1] == 1:
            y_true = ops.expand_dims(y_true, -1)  # labels (batch,) of one unit
        return self.function(y_true, y_pred)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments, serialized."""
        function = keras.saving.serialize_keras_object(self.function)
        return {**super().get_config(), "function": function}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> LossOfFunction:
        """Returns a loss with these arguments."""
        return cls(**keras.saving.deserialize_keras_object(config))


def _reduced(loss: keras.losses.Loss, targets: Any, outputs: Any, sample_weight: Any) -> Any:
    """Returns the loss of a batch, with a weight for each example or position."""
    if sample_weight is not None:
        sample_weight = ops.convert_to_tensor(sample_weight, "float32")
        while 1 < len(outputs.shape) - 1 > len(sample_weight.shape):
            sample_weight = ops.expand_dims(sample_weight, -1)
    return ops.cast(loss(targets, outputs, sample_weight), "float32")


def _check(output: OutputLoss, labels: Any, student: Any, teacher: Any, share: float) -> None:
    raw, logits = student
    if share > 0:
        batch_checks.check_given(labels)
        if output.student_loss is None:
            batch_checks.check_labels(labels, logits, output.multi_label)
        elif output.family == VALUES:
            batch_checks.check_values(labels, raw, output.name)
    if share < 1:
        batch_checks.check_teacher(teacher, raw, output.takes_any_shape)
