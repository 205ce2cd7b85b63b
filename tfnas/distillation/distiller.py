"""A Keras model that trains a student on labels and on a teacher's outputs.

`fit` minimizes the loss of :mod:`tfnas.distillation.losses`, plus the weighted distances of
intermediate activations (:mod:`tfnas.distillation.feature_losses`), plus the student's own
regularizers. The student and each teacher run once per step. All losses are computed in float32.

`evaluate` and `predict` use the student alone: `evaluate` returns its cross-entropy with the
labels and its metrics. So validation is cheap, and `val_loss` means the same with and without a
teacher.

Callbacks (pruning, checkpoints, early stopping) see the student's layers and weights: the teachers
are not among them (see :mod:`tfnas.distillation.teachers`).
"""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import numpy as np

from tfnas.distillation import compatibility_checks
from tfnas.distillation.feature_losses import Transfer
from tfnas.distillation.forward import ForwardPass
from tfnas.distillation.losses import as_logits, distillation_loss, weighted_mean
from tfnas.distillation.output_checks import check_model, check_number
from tfnas.distillation.teachers import Preprocess, Teachers, serialized
from tfnas.keras_private import attach, attached, compiled_metrics, mask_of

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
        ['accuracy', 'loss']

    A teacher's logits can be computed once, before training (:func:`tfnas.teacher_outputs`). The
    teacher then does not run in training. Targets are the pair (labels, teacher's logits)::

        teacher_logits = tfnas.teacher_outputs(teacher, x, file="teacher_logits.npz")
        distiller = tfnas.Distiller(None, student)
        distiller.compile("adam", metrics=["accuracy"])
        distiller.fit(x, (y, teacher_logits), validation_data=(x_val, y_val))

    Args:
        teacher: A built Keras 3 model with one output, (batch, ..., classes), or a list of such
            models, whose probabilities are averaged. A teacher runs in inference mode and is not
            changed. None: no teacher runs; targets are the pair (labels, teacher's outputs).
        student: A built Keras 3 model with one output of the same shape. It is trained in place.
        student_loss_weight: Weight of the loss on the labels, in [0, 1]. The loss on the
            teacher's outputs has the weight `1 - student_loss_weight`. With 0, labels are not
            needed in training; metrics are then computed in validation alone.
        temperature: A number above 0. The teacher's loss divides the logits of both models by
            it, as in `keras.distillation.Distiller`.
        features: Losses on intermediate activations: a list of
            :class:`tfnas.FeatureHint`, :class:`tfnas.AttentionTransfer` and
            :class:`tfnas.RelationalTransfer`.
        reverse: Whether the teacher's loss is KL(student || teacher) instead of
            KL(teacher || student).
        label_smoothing: Fraction of the label that is spread over all classes, in [0, 1).
        multi_label: Whether classes are independent; None: True where the models end in a
            sigmoid or in one unit.
        student_gives: Whether the student's outputs are "logits" or "probabilities"; None:
            inferred from its last activation.
        teacher_gives: The same for the teacher. With `teacher=None`, None means logits, as
            :func:`tfnas.teacher_outputs` returns them.
        teacher_weights: One number above 0 per teacher, for the average; None: equal weights.
        preprocess: Turns the student's inputs into the teacher's: a callable or a Keras layer,
            or a list of one (or None) per teacher. Images are then resized to the teacher's
            resolution.
        name: Name of the model.

    Raises:
        ValueError: An argument is invalid, or student and teacher do not fit together.

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
        features: Sequence[Transfer] = (),
        reverse: bool = False,
        label_smoothing: float = 0.0,
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
        check_number("label_smoothing", label_smoothing, low=0.0, high=1.0, excluded={1.0})
        # No autocast: the student casts its own inputs, and the teacher needs them uncast.
        super().__init__(name=name, dtype=student.dtype_policy, autocast=False)
        self.student = student
        self.student_loss_weight, self.temperature = float(student_loss_weight), float(temperature)
        self.reverse, self.label_smoothing = bool(reverse), float(label_smoothing)
        self.features = compatibility_checks.checked_features(features, teacher)
        self.teachers = Teachers(teacher, teacher_weights, preprocess, teacher_gives, self.features)
        if any(model is student for model in self.teachers):
            raise ValueError("teacher must be another model than the student, got the same")
        layers = [transfer.student for transfer in self.features]
        self._student_pass = ForwardPass(student, "student", layers, student_gives)
        teacher_passes = self.teachers.forward_passes
        self._inferred_arguments = {"multi_label": multi_label, "student_gives": student_gives}
        self.multi_label = compatibility_checks.resolved_multi_label(
            multi_label, [self._student_pass, *teacher_passes]
        )
        compatibility_checks.check_outputs(self._student_pass, teacher_passes)
        self.teachers.check_inputs(student)
        self.projections = compatibility_checks.projections(
            self.features, self._student_pass, teacher_passes
        )
        self.supports_jit = self.teachers.supports_jit()
        self.built = True

    def call(self, inputs: Any, training: bool | None = None) -> Any:
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
            A tensor (batch, ..., classes).
        """
        result = self._student_pass.run(inputs, training, self.multi_label)
        # `compute_loss` needs more of this pass: it is attached to the outputs, as Keras does
        # with masks. As an attribute of the model it would mix up replicas.
        attach(result.outputs, "forward", (result.logits, result.features))
        return result.outputs

    def compile(self, optimizer: Any = "adam", loss: Any = None, **kwargs: Any) -> None:
        """Configures training as Keras does; `metrics` are the student's.

        Args:
            optimizer: As in `keras.Model.compile`.
            loss: Must be None: the distiller has its own.
            kwargs: As in `keras.Model.compile`: `metrics`, `jit_compile`, `steps_per_execution`...

        Raises:
            ValueError: `loss` is given.
        """
        if loss is not None:
            raise ValueError(
                f"loss must be left out, since the distiller has its own, got {loss!r}: see "
                f"student_loss_weight, label_smoothing and multi_label"
            )
        super().compile(optimizer=optimizer, loss=None, **kwargs)

    def compile_from_config(self, config: dict[str, Any]) -> None:
        """Compiles with the arguments of the saved distiller.

        Args:
            config: What `get_compile_config` returns.
        """
        self.compile(**keras.saving.deserialize_keras_object(config))
        self.optimizer.build(self.trainable_variables)

    def fit(self, x: Any = None, y: Any = None, *args: Any, **kwargs: Any) -> Any:
        """Trains as Keras does, after checking labels that are arrays.

        Args:
            x: As in `keras.Model.fit`.
            y: Labels; without a teacher (labels, teacher's outputs); None where
                `student_loss_weight` is 0.
            args: As in `keras.Model.fit`.
            kwargs: As in `keras.Model.fit`: `epochs`, `callbacks`, `validation_data`...

        Returns:
            The `keras.callbacks.History`.

        Raises:
            ValueError: A class index is not one of the student's, a label of independent classes
                is not within [0, 1], or `class_weight` comes with targets (labels, teacher's
                outputs) that are not arrays.
        """
        validation = kwargs.get("validation_data")
        validation_labels = validation[1:2] if isinstance(validation, tuple) else ()
        for labels in (y, *validation_labels):
            if not self.teachers and isinstance(labels, (list, tuple)) and len(labels) == 2:
                labels = labels[0]
            if self.multi_label:
                compatibility_checks.check_multi_labels(labels)
            else:
                compatibility_checks.check_class_indices(labels, self._student_pass.shape)
        if kwargs.get("class_weight") is not None and not self.teachers:
            weights = compatibility_checks.example_weights(x, y, kwargs.pop("class_weight"), kwargs)
            kwargs["sample_weight"] = weights
        return super().fit(x, y, *args, **kwargs)

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Any:
        """Returns the loss of a batch.

        Args:
            x: Inputs.
            y: Labels: class indices (n,) or (n, 1), one-hot or soft (n, classes); without a
                teacher (labels, teacher's outputs).
            y_pred: The distiller's outputs for `x`; None: computed here.
            sample_weight: One number per example, for all parts of its loss.
            training: If False, the loss is the student's cross-entropy with the labels alone.

        Returns:
            A float32 scalar.

        Raises:
            ValueError: Labels or a teacher's outputs are missing, or have the wrong shape.
        """
        if attached(y_pred, "forward") is None:  # missing, or a changed tensor
            y_pred = self(x, training=training)
        logits, features = attached(y_pred, "forward")
        student_loss_weight = self.student_loss_weight if training else 1.0
        labels, cached = compatibility_checks.split_targets(y, not self.teachers)
        teacher_logits, teacher_features = self._teacher_outputs(
            x, cached, student_loss_weight, training
        )
        if student_loss_weight > 0:
            compatibility_checks.check_labels(labels, logits, self.multi_label)
        if student_loss_weight < 1:
            compatibility_checks.check_teacher_logits(teacher_logits, logits)
        losses = distillation_loss(
            labels,
            logits,
            teacher_logits,
            student_loss_weight,
            self.temperature,
            reverse=self.reverse,
            multi_label=self.multi_label,
            label_smoothing=self.label_smoothing,
        )
        total = weighted_mean(losses, sample_weight, mask_of(y_pred))
        for distance, weight in self._distances(features, teacher_features):
            total += weight * weighted_mean(distance, sample_weight)
        if self.losses:  # regularizers
            total += super().compute_loss(x, None, y_pred, None, training)
        return total

    def compute_metrics(self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        """Updates and returns the student's metrics on the labels, and the mean loss.

        Args:
            x: Inputs, (batch, ...).
            y: Labels, or (labels, teacher's outputs); as in :meth:`compute_loss`.
            y_pred: The distiller's outputs for `x`, (batch, ..., classes).
            sample_weight: One number per example, (batch,).

        Returns:
            Metric name -> value.
        """
        labels, teacher_logits = compatibility_checks.split_targets(y, not self.teachers)
        if labels is None:  # student_loss_weight is 0: metrics have no labels to compare with
            own = compiled_metrics(self)
            return self._results(lambda metric: metric is not own)
        if teacher_logits is not None and isinstance(sample_weight, (list, tuple)):
            sample_weight = sample_weight[0]  # Keras repeats it for labels and outputs
        return super().compute_metrics(x, labels, y_pred, sample_weight)

    def get_metrics_result(self) -> dict[str, Any]:
        """Returns the metrics so far; those that compare with labels only once there were any.

        Returns:
            Metric name -> value.
        """
        return self._results(lambda metric: getattr(metric, "built", True))

    def _results(self, include: Callable[[Any], bool]) -> dict[str, Any]:
        results: dict[str, Any] = {}
        for metric in filter(include, self.metrics):
            result = metric.result()
            results.update(result if isinstance(result, dict) else {metric.name: result})
        return results

    def _teacher_outputs(
        self, x: Any, cached: Any, student_loss_weight: float, training: bool
    ) -> tuple[Any, list[dict[str, Any]]]:
        """The teachers' logits and features; (None, []) where the loss does not need them."""
        if not training or (student_loss_weight == 1 and not self.features):
            return None, []
        if self.teachers:
            return self.teachers.logits_and_features(x, self.multi_label)
        if cached is not None and self.teachers.gives == "probabilities":
            cached = as_logits(cached, self.multi_label)
        return cached, []

    def _distances(
        self, features: dict[str, Any], teacher_features: list[dict[str, Any]]
    ) -> Iterator[tuple[Any, float]]:
        """Yields the distances (n,) and the weight of each pair of layers."""
        if not teacher_features:
            return
        for transfer, projection in zip(self.features, self.projections, strict=True):
            student = features[transfer.student]
            student = student if projection is None else projection(student)
            teacher = teacher_features[transfer.of][transfer.teacher]
            yield transfer.distance(student, teacher), transfer.weight

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
            **self._inferred_arguments,
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
        for name in ("student", "teacher", "features", "preprocess"):
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
