"""The task of image classifiers: one label an image, cross-entropy, accuracy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import keras
import numpy as np

from tfnas.data.augmentation import AUGMENTATIONS, AugmentedImages
from tfnas.data.examples import Batches, Examples, ExampleSet
from tfnas.data.model_inputs import fits
from tfnas.distillation.cached_teacher import teacher_outputs
from tfnas.distillation.distiller import Distiller
from tfnas.graph.output_activation import gives_probabilities, last_activation
from tfnas.measure.accuracy import correct
from tfnas.measure.agreement import Agreement, agreement
from tfnas.tasks.assessment import ACCURACY
from tfnas.tasks.task import Distillation, Task

if TYPE_CHECKING:
    from tfnas.data.datasets import DataSplit
    from tfnas.tflite.artifact import Artifact

LITTLE = 0.5  # of the loss: up to here moved images reuse the teacher's logits of the unmoved
CACHED = 2**30  # bytes of a teacher's logits that are cached at most
TEMPERATURE = 1.0  # a compressed model learns less from softened logits: docs/decisions


class ImageClasses(Task):
    """Images with one label each; the model gives logits or probabilities of the classes."""

    metric = ACCURACY
    noun = "images"
    distills = True
    augmentations = tuple(AUGMENTATIONS)

    def check(self, model: keras.Model, data: DataSplit) -> None:  # type: ignore[override]
        """Checks that a classifier fits the images and the classes of a data split.

        Args:
            model: The classifier.
            data: The data.

        Raises:
            ValueError: Its input or its output does not fit.
        """
        if not hasattr(data, "class_names"):
            raise ValueError(
                f"task must be given for data that is no tfnas.data.DataSplit, got {data!r}"
            )
        if len(model.inputs) != 1 or len(model.outputs) != 1:
            raise ValueError(
                f"model must have one input and one output, got {len(model.inputs)} and "
                f"{len(model.outputs)}"
            )
        input_shape = tuple(model.inputs[0].shape[1:])
        if not fits(data.input_shape, input_shape):
            raise ValueError(
                f"model must take the images of {data.name!r}, {data.input_shape}, got "
                f"{input_shape}"
            )
        self._check_output(model, data)

    def _check_output(self, model: keras.Model, data: DataSplit) -> None:
        shape = tuple(model.outputs[0].shape[1:])
        binary = data.num_classes == 2 and shape == (1,)
        if binary and not gives_probabilities(model):
            raise ValueError("model must end in a sigmoid where it has one unit, got logits")
        if not binary and (len(shape) != 1 or shape[0] < data.num_classes):
            raise ValueError(
                f"model must give one value for each of the {data.num_classes} classes of "
                f"{data.name!r}, got {shape}"
            )

    def check_for_compress(self, model: keras.Model) -> None:
        """Refuses a classifier of independent classes.

        Args:
            model: The classifier.

        Raises:
            ValueError: It ends in several sigmoids.
        """
        if model.outputs[0].shape[-1] > 1 and last_activation(model) == "sigmoid":
            raise ValueError(
                "model must end in a softmax or in logits, of which one class is true, got a "
                f"sigmoid of {model.outputs[0].shape[-1]} units"
            )

    def loss(self, model: keras.Model) -> keras.losses.Loss:
        """Returns the cross-entropy that fits the model's output, logits or probabilities.

        Args:
            model: The classifier.
        """
        logits = not gives_probabilities(model)
        if model.outputs[0].shape[-1] == 1:
            return keras.losses.BinaryCrossentropy(from_logits=logits)
        return keras.losses.SparseCategoricalCrossentropy(from_logits=logits)

    @property
    def keras_metrics(self) -> list[str]:
        """The accuracy."""
        return ["accuracy"]

    def example_values(self, y: np.ndarray, predictions: np.ndarray) -> np.ndarray:
        """Returns whether each image's class is the right one, (examples,) of bool."""
        return correct(y, predictions)

    def changed(self, before: np.ndarray, after: np.ndarray) -> np.ndarray:
        """Returns whether the class of each image changed, (examples,) of bool."""
        return _classes(before) != _classes(after)

    def agreement(
        self,
        files: tuple[Artifact, Artifact],
        data: DataSplit,  # type: ignore[override]
        models: tuple[keras.Model, keras.Model],
    ) -> Agreement:
        """Compares the classes of two files on plain, corrupted and adversarial images."""
        examples = data.test
        return agreement(*files, examples.x, examples.y, data.class_names, models)

    def distiller(self, model: keras.Model, distillation: Distillation) -> keras.Model:
        """Returns a :class:`tfnas.Distiller` of a classifier.

        Args:
            model: The student.
            distillation: The teacher.
        """
        teacher = None if distillation.outputs is not None else distillation.teacher
        linear = "logits" if model.outputs[0].shape[-1] > 1 else "sigmoid_logits"
        return Distiller(
            teacher,
            model,
            1 - distillation.weight,
            TEMPERATURE,
            # The task knows both; the model may be compiled with another loss, such as "mse".
            outputs=last_activation(model) or linear,
            student_loss=self.loss(model),
            features=distillation.hints,
        )

    def teacher_outputs(
        self, teacher: keras.Model, examples: ExampleSet, augment: Sequence[str], weight: float
    ) -> list[np.ndarray] | None:
        """Returns a teacher's logits of the images, computed once for all epochs.

        Images that augmentation shifts reuse the logits of the unshifted image, which is good
        enough where distillation is at most half of the loss
        (docs/decisions/0014-distillation-in-one-pass.md).

        Args:
            teacher: The teacher.
            examples: The training images.
            augment: Random changes of the images.
            weight: Fraction of the loss that is the teacher's.

        Returns:
            Logits of the images, (examples, classes), and, where training mirrors them, of their
            mirror images; None where they would take too much memory, or where the teacher must
            run in every step.
        """
        if not isinstance(examples, Examples):
            return None
        flipped = "flip" in augment
        size = 4 * len(examples) * teacher.outputs[0].shape[-1] * (1 + flipped)
        if ("shift" in augment and weight > LITTLE) or size > CACHED:
            return None
        images = examples.x
        return [teacher_outputs(teacher, x) for x in (images, images[:, :, ::-1])[: 1 + flipped]]

    def batches(
        self,
        examples: ExampleSet,
        batch_size: int,
        seed: int,
        augment: Sequence[str] = (),
        teacher_outputs: Sequence[np.ndarray] | None = None,
    ) -> Batches:
        """Returns the batches of a training, with augmented images where that is chosen."""
        if not augment:
            return super().batches(examples, batch_size, seed, (), teacher_outputs)
        if not isinstance(examples, Examples):
            raise ValueError(f"augment must be empty for data in batches, got {', '.join(augment)}")
        return AugmentedImages(examples.x, examples.y, augment, batch_size, seed, teacher_outputs)


def _classes(outputs: np.ndarray) -> np.ndarray:
    return outputs[:, 0] > 0.5 if outputs.shape[-1] == 1 else outputs.argmax(-1)
