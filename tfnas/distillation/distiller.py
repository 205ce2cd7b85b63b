"""A Keras model that trains a student on labels and on a teacher's outputs.

`fit` minimizes the losses of each output (:mod:`tfnas.distillation.output_losses`), plus the
weighted distances of intermediate activations (:mod:`tfnas.distillation.feature_losses`), plus
the student's own regularizers, in float32. The student and each teacher run once per step.

`evaluate` and `predict` use the student alone: `evaluate` returns its loss on the labels and its
metrics. So validation is cheap, and `val_loss` means the same with and without a teacher.

Callbacks (pruning, checkpoints, early stopping) see the student's layers and weights: the teachers
are not among them (see :mod:`tfnas.distillation.teachers`).
"""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from tfnas.distillation import compatibility_checks, output_inference
from tfnas.distillation.feature_losses import Transfer
from tfnas.distillation.fit_checks import fit_arguments
from tfnas.distillation.loss_trackers import LossTrackers
from tfnas.distillation.output_checks import check_model, check_number
from tfnas.distillation.output_losses import Settings
from tfnas.distillation.output_structure import given_by_output
from tfnas.distillation.teachers import Preprocess, Teachers, serialized
from tfnas.distillation.training_objective import TrainingObjective, forward_result
from tfnas.keras_private import compiled_metrics

if TYPE_CHECKING:
    from tfnas.distillation.tensor_types import LossesLike, Tensors

_FILE = "teachers.npz"


@keras.saving.register_keras_serializable("tfnas")
class Distiller(keras.Model):
    """Trains a student on labels and on a teacher's outputs; the result is `distiller.student`.

    Example:
        >>> import keras, numpy as np, tfnas
        >>> def model(units):
        ...     return keras.Sequential(
        ...         [keras.Input((8,)), keras.layers.Dense(units, "relu"), keras.layers.Dense(3)]
        ...     )
        >>> distiller = tfnas.Distiller(model(64), model(4), student_loss_weight=0.3, temperature=2)
        >>> distiller.compile("adam", metrics=["accuracy"])
        >>> x, y = np.random.default_rng(0).normal(size=(64, 8)), np.zeros(64, int)
        >>> history = distiller.fit(x, y, epochs=2, verbose=0)
        >>> sorted(history.history)
        ['accuracy', 'distillation_loss', 'loss', 'student_loss']

    What an output means is inferred where it can be: from the loss that student or teacher was
    compiled with, then from a softmax or sigmoid at the end, then from labels that are class
    indices or one-hot rows. `outputs` says it, for several outputs by name::

        distiller = tfnas.Distiller(
            teacher,
            student,
            outputs={"class": "softmax", "depth": keras.losses.Huber()},
        )
        distiller.compile("adam", loss_weights={"class": 1.0, "depth": 0.1})

    A teacher's logits can be computed once, before training (:func:`tfnas.teacher_outputs`). The
    teacher then does not run in training. Targets are the pair (labels, teacher's logits)::

        teacher_logits = tfnas.teacher_outputs(teacher, x, file="teacher_logits.npz")
        distiller = tfnas.Distiller(None, student)
        distiller.compile("adam", metrics=["accuracy"])
        distiller.fit(x, (y, teacher_logits), validation_data=(x_val, y_val))

    Args:
        teacher: A built Keras 3 model with one output, (batch, ..., classes), or a list or
            dictionary of outputs; or a list of such models, whose outputs are averaged, of classes
            their probabilities. A teacher runs in inference mode and is not changed. None: no
            teacher runs; targets are the pair (labels, teacher's outputs).
        student: A built Keras 3 model with outputs of the same shapes. It is trained in place.
        student_loss_weight: Weight of the loss on the labels, in [0, 1]. The loss on the
            teacher's outputs has the weight `1 - student_loss_weight`. With 0, labels are not
            needed in training; metrics are then computed in validation alone.
        temperature: A number above 0. The teacher's loss divides the logits of both models by
            it, as in `keras.distillation.Distiller`.
        outputs: What the student's output is: "softmax" or "logits" (one of several classes, on
            the last axis), "sigmoid" or "sigmoid_logits" (a yes or no for each class), or
            "regression"; or a loss of (teacher's output, student's output): a Keras loss, its name
            or a function. A dictionary by output name, or a list, for several outputs. None:
            inferred.
        student_loss: The student's own loss on the labels: a Keras loss, its name or a function;
            a dictionary or list for several outputs. None: the loss that the student was compiled
            with, else cross-entropy, for a regression the teacher's loss or mean squared error.
        features: Losses on intermediate activations: a list of
            :class:`tfnas.FeatureHint`, :class:`tfnas.AttentionTransfer` and
            :class:`tfnas.RelationalTransfer`.
        reverse: Whether the teacher's loss is KL(student || teacher) instead of
            KL(teacher || student).
        label_smoothing: Fraction of the label that is spread over all classes, in [0, 1); None:
            that of the student's loss, else 0.
        multi_label: Whether classes are independent; None: True where the models end in a
            sigmoid or in one unit.
        student_gives: Whether the student's outputs are "logits" or "probabilities" of classes;
            None: inferred from its last activation, else from its loss.
        teacher_gives: The same for the teacher. With `teacher=None`, None means logits, as
            :func:`tfnas.teacher_outputs` returns them.
        teacher_weights: One number above 0 per teacher, for the average; None: equal weights.
        preprocess: Turns the student's inputs into the teacher's: a callable or a Keras layer,
            or a list of one (or None) per teacher. Images are then resized to the teacher's
            resolution.
        name: Name of the model.

    Raises:
        ValueError: An argument is invalid, student and teacher do not fit together, or the
            student has a `train_step` of its own, which would not run.

    References:
        Hinton, Vinyals and Dean, "Distilling the Knowledge in a Neural Network", 2015.
    """

    def __init__(
        self,
        teacher: keras.Model | Sequence[keras.Model] | None,
        student: keras.Model,
        student_loss_weight: float = 0.5,
        temperature: float = 4.0,
        *,
        outputs: LossesLike | None = None,
        student_loss: LossesLike | None = None,
        features: Sequence[Transfer] = (),
        reverse: bool = False,
        label_smoothing: float | None = None,
        multi_label: bool | None = None,
        student_gives: str | None = None,
        teacher_gives: str | None = None,
        teacher_weights: Sequence[float] | None = None,
        preprocess: Preprocess = None,
        name: str = "distiller",
    ) -> None:
        check_model("student", student)
        check_number("student_loss_weight", student_loss_weight, low=0.0, high=1.0)
        check_number("temperature", temperature, low=0.0, excluded={0.0})
        # No autocast: the student casts its own inputs, and the teacher needs them uncast.
        super().__init__(name=name, dtype=student.dtype_policy, autocast=False)
        self.student = student
        self.student_loss_weight, self.temperature = float(student_loss_weight), float(temperature)
        self.reverse, self.label_smoothing = bool(reverse), label_smoothing
        self.features = compatibility_checks.checked_features(features, teacher)
        compatibility_checks.check_not_swapped(self.features, student, teacher)
        self._stated = {"multi_label": multi_label, "student_gives": student_gives}
        gives = (student_gives, teacher_gives)
        arguments = output_inference.output_arguments(
            student, outputs, student_loss, multi_label, gives, label_smoothing
        )
        student_pass = output_inference.student_forward(student, arguments, self.features)
        preparation = (teacher_weights, preprocess, teacher_gives, self.features)
        self.teachers = Teachers(teacher, *preparation, student_pass.structure)
        compatibility_checks.check_models(student, self.teachers, student_loss is not None)
        found = output_inference.inferred_outputs(arguments, student_pass, self.teachers)
        passes = (student_pass, *self.teachers.forward_passes)
        compatibility_checks.check_outputs(passes, [one.takes_any_shape for one in found])
        self.projections = compatibility_checks.projections(self.features, *passes)
        self.supports_jit = self.teachers.supports_jit()
        settings = Settings(self.student_loss_weight, self.temperature, self.reverse)
        layers = (self.features, self.projections)
        self._objective = TrainingObjective(student_pass, self.teachers, found, settings, *layers)
        self._trackers: LossTrackers | None = None
        self.built = True

    @property
    def multi_label(self) -> bool:
        """Returns whether the classes of all outputs are independent."""
        return all(output.multi_label for output in self._objective.outputs)

    @property
    def output_names(self) -> list[str]:
        """Returns the names of the student's outputs, as `metrics` and `loss_weights` use them."""
        return list(self._objective.structure.names)

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        """Returns the student's metrics, the mean loss, and the means of its parts."""
        return [*super().metrics, *(self._trackers or ())]

    def call(self, inputs: Tensors, training: bool | None = None) -> Any:
        """Returns the student's outputs.

        Example:
            >>> import keras, numpy as np, tfnas
            >>> teacher, student = (keras.Sequential([keras.Input((8,)), keras.layers.Dense(3)])
            ...     for _ in range(2))
            >>> distiller = tfnas.Distiller(teacher, student)
            >>> distiller(np.zeros((5, 8))).shape == (5, 3)
            True

        Args:
            inputs: The student's inputs, (batch, ...), or a list or dictionary of them.
            training: As in `keras.layers.Layer.__call__`.

        Returns:
            A tensor (batch, ..., classes), or a list or dictionary of tensors.
        """
        return self._objective.forward(inputs, training)

    def compile(
        self,
        optimizer: str | keras.optimizers.Optimizer = "adam",
        loss: None = None,
        loss_weights: Mapping[str, float] | Sequence[float] | None = None,
        **kwargs: Any,
    ) -> None:
        """Configures training as Keras does; `metrics` are the student's.

        Args:
            optimizer: As in `keras.Model.compile`.
            loss: Must be None: the distiller has its own.
            loss_weights: Factor of each output's loss, where there are several; a dictionary by
                output name or a list. None: those that the student was compiled with, else 1.
            kwargs: As in `keras.Model.compile`: `metrics`, `jit_compile`, `steps_per_execution`...

        Raises:
            ValueError: `loss` is given, or `loss_weights` names no output.
        """
        if loss is not None:
            raise ValueError(
                f"loss must be left out, since the distiller has its own, got {loss!r}: see "
                f"outputs and student_loss"
            )
        structure = self._objective.structure
        self._objective.set_loss_weights(given_by_output(loss_weights, structure, "loss_weights"))
        super().compile(optimizer=optimizer, loss=None, loss_weights=loss_weights, **kwargs)
        with self.distribute_strategy.scope():
            self._trackers = LossTrackers(structure.names)

    def compile_from_config(self, config: dict[str, Any]) -> None:
        """Compiles with the arguments of the saved distiller.

        Args:
            config: What `get_compile_config` returns.
        """
        self.compile(**keras.saving.deserialize_keras_object(config))
        self.optimizer.build(self.trainable_variables)

    def fit(self, x: Any = None, y: Any = None, *args: Any, **kwargs: Any) -> Any:
        """Trains as Keras does, after checking targets.

        Args:
            x: As in `keras.Model.fit`.
            y: Labels, in the structure of the student's outputs; without a teacher (labels,
                teacher's outputs); None where `student_loss_weight` is 0.
            args: As in `keras.Model.fit`.
            kwargs: As in `keras.Model.fit`: `epochs`, `callbacks`... `sample_weight` holds one
                number for each example, or for each position of a sequence or picture; a
                dictionary or list has one array for each output.

        Returns:
            The `keras.callbacks.History`.

        Raises:
            ValueError: Nothing says what an output means; targets do not fit the outputs, such
                as a class index that is not one of the student's, or hold NaN; or `class_weight`
                comes with several outputs, a regression, or targets that are not arrays.
        """
        return super().fit(**fit_arguments(self._objective, x, y, args, kwargs))

    def compute_loss(
        self,
        x: Tensors | None = None,
        y: Tensors | None = None,
        y_pred: Tensors | None = None,
        sample_weight: Tensors | None = None,
        training: bool = True,
    ) -> Any:
        """Returns the loss of a batch.

        Args:
            x: Inputs.
            y: Labels: class indices (batch,) or (batch, 1), one-hot or soft (batch, classes), or
                numbers of a regression; for several outputs a dictionary or list; without a
                teacher (labels, teacher's outputs).
            y_pred: The distiller's outputs for `x`; None: computed here.
            sample_weight: One number per example or position, for all parts of its loss; or one
                array for each output.
            training: If False, the loss is the student's loss on the labels alone.

        Returns:
            A float32 scalar.

        Raises:
            ValueError: Labels or a teacher's outputs are missing, or have the wrong shape.
        """
        if y_pred is None or forward_result(y_pred) is None:  # None, or a changed tensor
            y_pred = self(x, training=training)
        value = self._objective.value(x, y, y_pred, sample_weight, training)
        if self._trackers is not None:
            self._trackers.update(value.examples, value.parts, value.by_output)
        # Of the losses that layers add, such as regularizers.
        added = super().compute_loss(x, None, y_pred, None, training) if self.losses else None
        return value.total if added is None else value.total + added

    def compute_metrics(
        self, x: Tensors, y: Tensors | None, y_pred: Tensors, sample_weight: Tensors | None = None
    ) -> dict[str, Any]:
        """Updates and returns the student's metrics on the labels, and the mean loss.

        Args:
            x: Inputs, (batch, ...).
            y: Labels, or (labels, teacher's outputs); as in :meth:`compute_loss`.
            y_pred: The distiller's outputs for `x`, (batch, ..., classes).
            sample_weight: One number per example, (batch,).

        Returns:
            Metric name -> value.
        """
        structure = self._objective.structure
        labels, _ = self._objective.split(y)
        if any(label is None for label in labels):  # student_loss_weight is 0
            own = compiled_metrics(self)
            return self._results(lambda metric: metric is not own)
        if sample_weight is not None:
            sample_weight = structure.packed(self._objective.weights_by_output(sample_weight, y))
        return super().compute_metrics(x, structure.packed(labels), y_pred, sample_weight)

    def get_metrics_result(self) -> dict[str, Any]:
        """Returns the metrics so far; those that compare with labels only once there were any.

        Returns:
            Metric name -> value.
        """
        return self._results(lambda metric: getattr(metric, "built", True))

    def _results(self, include: Callable[[Any], bool]) -> dict[str, Any]:
        results: dict[str, Any] = {}
        for metric in filter(include, self.metrics):
            if self._trackers is None or self._trackers.has_values(metric):
                result = metric.result()
                results.update(result if isinstance(result, dict) else {metric.name: result})
        return results

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments, serialized, with student and teacher.

        Example:
            >>> import keras, numpy as np, tfnas
            >>> teacher, student = (keras.Sequential([keras.Input((8,)), keras.layers.Dense(3)])
            ...     for _ in range(2))
            >>> distiller = tfnas.Distiller(teacher, student)
            >>> distiller.get_config()["temperature"]
            4.0

        Returns:
            What :meth:`from_config` takes.
        """
        return {
            "name": self.name,
            "student": serialized(self.student),
            **self.teachers.get_config(),
            "student_loss_weight": self.student_loss_weight,
            "temperature": self.temperature,
            "features": [keras.saving.serialize_keras_object(f) for f in self.features],
            "reverse": self.reverse,
            "label_smoothing": self.label_smoothing,
            "outputs": self._objective.get_config(),
            **self._stated,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> Distiller:
        """Returns a distiller with these arguments.

        Args:
            config: What :meth:`get_config` returns.
            custom_objects: Name -> class or function, as in Keras' deserialization.

        Returns:
            A distiller with new models.
        """
        config = dict(config)
        for name in ("student", "teacher", "features", "preprocess", "outputs"):
            if name in config:  # older files have no outputs
                config[name] = keras.saving.deserialize_keras_object(config[name], custom_objects)
        return cls(**config)

    def save_assets(self, folder: str) -> None:
        """Writes the teachers' weights into a `.keras` file; `.weights.h5` files omit them.

        Args:
            folder: Folder to write to; Keras calls this in `model.save`.
        """
        np.savez(pathlib.Path(folder, _FILE), *self.teachers.get_weights())

    def load_assets(self, folder: str) -> None:
        """Reads the teachers' weights that :meth:`save_assets` wrote.

        Args:
            folder: Folder to read from; Keras calls this in `load_model`.
        """
        with np.load(pathlib.Path(folder, _FILE), allow_pickle=False) as file:
            self.teachers.set_weights([file[name] for name in file.files])
