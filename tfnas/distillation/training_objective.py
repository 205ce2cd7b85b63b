"""The loss of a batch: over all outputs, and over pairs of intermediate activations."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import keras
from keras import ops

from tfnas.distillation import batch_checks, target_checks
from tfnas.distillation.attention_taps import ActivationTap
from tfnas.distillation.feature_losses import Transfer
from tfnas.distillation.forward import ForwardPass, ForwardResult
from tfnas.distillation.loss_trackers import DISTILLATION, FEATURES, STUDENT
from tfnas.distillation.losses import as_logits, weighted_mean, weighted_sum
from tfnas.distillation.output_checks import check_number
from tfnas.distillation.output_losses import BatchLoss, OutputLoss, Settings, batch_loss
from tfnas.distillation.output_structure import OutputStructure
from tfnas.distillation.teachers import Teachers
from tfnas.keras_private import attach, attached

if TYPE_CHECKING:
    from tfnas.distillation.tensor_types import Tensors


@dataclasses.dataclass(frozen=True, eq=False)
class ObjectiveValue:
    """The loss of a batch and its parts.

    Args:
        total: What is minimized, a float32 scalar.
        examples: Number of examples.
        parts: Name of a part, such as "student_loss" -> its value over all outputs.
        by_output: Name of an output -> its own parts.
    """

    total: Any
    examples: Any
    parts: dict[str, Any]
    by_output: dict[str, dict[str, Any]]


class TrainingObjective:
    """Computes the loss of a batch from the student's pass and the teachers.

    Args:
        student: The student's forward pass.
        teachers: The teachers; none where targets hold their outputs.
        outputs: How each output is trained.
        settings: Weights and temperature.
        features: Losses on intermediate activations.
        projections: The layer of each of them, or None.
    """

    def __init__(
        self,
        student: ForwardPass,
        teachers: Teachers,
        outputs: Sequence[OutputLoss],
        settings: Settings,
        features: Sequence[Transfer],
        projections: Sequence[keras.layers.Layer | None],
    ) -> None:
        self.student, self.teachers = student, teachers
        self.declared = tuple(outputs)  # before targets said more
        self.outputs = self.declared
        self.settings = settings
        self.features, self.projections = features, projections
        self.set_loss_weights([None] * len(self.outputs))

    @property
    def structure(self) -> OutputStructure:
        """The student's outputs."""
        return self.student.structure

    def set_loss_weights(self, weights: Sequence[float | None]) -> None:
        """Sets the factor of each output's loss; None: as the student was compiled, else 1."""
        for weight in weights:
            if weight is not None:
                check_number("loss_weights", weight, low=0.0)
        pairs = zip(weights, self.outputs, strict=True)
        self._weights = [out.weight if weight is None else weight for weight, out in pairs]

    def forward(self, inputs: Tensors, training: bool | None) -> Any:
        """Runs the student and returns its outputs, from which the loss is computed.

        Args:
            inputs: The student's inputs.
            training: As in `keras.Model.call`.
        """
        result = self.student.run(inputs, training)
        # The loss needs more of this pass: it is attached to the outputs, as Keras does with
        # masks. As an attribute of the model it would mix up replicas.
        attach(result.tensors[0], "forward", result)
        return result.outputs

    def get_config(self) -> Any:
        """Returns how each output is trained, serialized, in the structure of the outputs."""
        return self.structure.packed([keras.saving.serialize_keras_object(o) for o in self.outputs])

    def split(self, y: Tensors | None) -> tuple[list[Any], list[Any]]:
        """Returns labels and cached teacher's outputs, by output; None for what is missing."""
        return target_checks.split_targets(y, self.structure, not self.teachers)

    def holds_pairs(self, y: Tensors | None) -> bool:
        """Whether targets are (labels, teacher's outputs)."""
        return not self.teachers and target_checks.is_pair(y, self.structure)

    def weights_by_output(self, sample_weight: Tensors | None, y: Tensors | None) -> list[Any]:
        """Returns the sample weights of each output; None where all are 1.

        Args:
            sample_weight: Of a batch, or of `fit`.
            y: The targets that they come with.
        """
        pairs = self.holds_pairs(y)
        return target_checks.weights_by_output(sample_weight, self.structure, pairs)

    def value(
        self,
        x: Tensors,
        y: Tensors | None,
        y_pred: Tensors,
        sample_weight: Tensors | None,
        training: bool,
    ) -> ObjectiveValue:
        """Returns the loss of a batch.

        Args:
            x: Inputs.
            y: Targets.
            y_pred: What :meth:`forward` returned for `x`.
            sample_weight: One number for each example or position; or one array for each output.
            training: If False, the loss is the student's loss on the labels alone.

        Raises:
            ValueError: Labels or a teacher's outputs are missing, or have the wrong shape.
        """
        result = forward_result(y_pred)
        assert result is not None
        settings = self.settings
        if not training:
            settings = dataclasses.replace(settings, student_loss_weight=1.0)
        labels, cached = self.split(y)
        if settings.student_loss_weight > 0:
            for label in labels:
                batch_checks.check_given(label)
        shapes = [tensor.shape for tensor in result.tensors]
        outputs = target_checks.resolved(self.outputs, shapes, labels)
        teacher, teacher_features = self._teacher_values(x, cached, outputs, training)
        weights = self.weights_by_output(sample_weight, y)
        losses = [
            batch_loss(output, label, self._student_values(result, n, output), taught, settings, w)
            for n, (output, label, taught, w) in enumerate(
                zip(outputs, labels, teacher, weights, strict=True)
            )
        ]
        total = self._summed([loss.total for loss in losses])
        by_part = _parts(losses)
        parts = {name: self._summed(values) for name, values in by_part.items()}
        if self.features and teacher_features:
            shared = target_checks.shared_weight(weights)
            added: Any = 0.0
            for distance, weight in self._distances(result.features, teacher_features):
                term = weight * weighted_mean(distance, shared)
                total, added = total + term, added + term
            parts[FEATURES] = added
        names = enumerate(self.structure.names)
        own = {name: {part: by_part[part][n] for part in by_part} for n, name in names}
        examples = ops.shape(result.tensors[0])[0]
        return ObjectiveValue(total, examples, parts if training else {}, own)

    def _student_values(
        self, result: ForwardResult, number: int, output: OutputLoss
    ) -> tuple[Any, Any]:
        """The student's output and its logits; None for logits that are not needed."""
        logits = None
        if output.is_of_classes:
            logits = self.student.logits(result, number, output.multi_label)
        return result.tensors[number], logits

    def _teacher_values(
        self, x: Any, cached: Sequence[Any], outputs: Sequence[OutputLoss], training: bool
    ) -> tuple[Sequence[Any], list[dict[ActivationTap, Any]]]:
        """The teachers' outputs and features; Nones and [] where the loss does not need them."""
        labels_alone = self.settings.student_loss_weight == 1 and not self.features
        if not training or labels_alone:
            return [None] * len(outputs), []
        if self.teachers:
            return self.teachers.outputs_and_features(x, outputs)
        if self.teachers.gives == "probabilities":
            cached = [
                as_logits(part, output.multi_label)
                if part is not None and output.compares_logits
                else part
                for part, output in zip(cached, outputs, strict=True)
            ]
        return cached, []

    def _summed(self, losses: Sequence[Any]) -> Any:
        """The sum over outputs, with their weights."""
        if len(losses) == 1 and self._weights[0] is None:
            return losses[0]
        weights = [1.0 if weight is None else weight for weight in self._weights]
        return weighted_sum(zip(weights, losses, strict=True))

    def _distances(
        self, features: dict[ActivationTap, Any], teacher_features: list[dict[ActivationTap, Any]]
    ) -> Iterator[tuple[Any, float]]:
        """Yields the distances (batch,) and the weight of each pair of layers."""
        for transfer, projection in zip(self.features, self.projections, strict=True):
            student = features[transfer.student_tap]
            student = student if projection is None else projection(student)
            teacher = teacher_features[transfer.of][transfer.teacher_tap]
            yield transfer.distance(student, teacher), transfer.weight


def forward_result(outputs: Tensors | None) -> ForwardResult | None:
    """Returns what a student's pass left with its outputs; None where they are other tensors."""
    tensors = keras.tree.flatten(outputs)
    return attached(tensors[0], "forward") if tensors else None


def _parts(losses: Sequence[BatchLoss]) -> dict[str, list[Any]]:
    """The parts of each output's loss, of those that are needed."""
    found = {
        STUDENT: [loss.student for loss in losses],
        DISTILLATION: [loss.distillation for loss in losses],
    }
    return {name: values for name, values in found.items() if values[0] is not None}
