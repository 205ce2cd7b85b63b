"""A Keras model that trains a student by its labels and by a teacher.

`fit` minimizes the loss of :mod:`tfnas.distillation.losses`, plus the weighted distances of
inner activations (:mod:`tfnas.distillation.feature_losses`), plus the student's own regularizers.
The student runs once a step, whatever is asked for, and so does every teacher. All losses are
computed in float32.

`evaluate` and `predict` are the student's: `evaluate` gives its cross-entropy with the labels
and its metrics, and runs no teacher. So validation is cheap, and `val_loss` means the same
with and without a teacher.

To callbacks (pruning, checkpoints, early stopping) the distiller is the student: teachers are
no part of its layers and weights (see :mod:`tfnas.distillation.teachers`).
"""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np

from tfnas.distillation import compatibility_checks
from tfnas.distillation.feature_losses import Transfer
from tfnas.distillation.forward import Reader
from tfnas.distillation.losses import as_logits, distillation_loss, weighted_mean
from tfnas.distillation.output_checks import check_model, check_number
from tfnas.distillation.teachers import Teachers, serialized

_FILE = "teachers.npz"


@keras.saving.register_keras_serializable("tfnas")
class Distiller(keras.Model):
    """Trains a student by labels and by a teacher; `distiller.student` is what is kept.

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

    With a teacher's outputs computed beforehand (:func:`tfnas.teacher_outputs`) there is none
    in the step, and the targets are a pair::

        told = tfnas.teacher_outputs(teacher, x, file="told.npz")
        distiller = tfnas.Distiller(None, student)
        distiller.compile("adam", metrics=["accuracy"])
        distiller.fit(x, (y, told), validation_data=(x_val, y_val))

    Args:
        teacher: A built Keras 3 model with one output, (n, ..., classes), or a list of such
            models, whose probabilities are averaged. They run in inference mode and stay as
            they are. None: targets are (labels, teacher's outputs).
        student: The same kind of model. It is trained in place.
        student_loss_weight: Weight of the labels, in [0, 1]; the rest is the teacher's. At 0
            labels may be left out; metrics are then those of the validation alone.
        temperature: What both models' logits are divided by for the teacher's part, above 0.
        features: What the student learns of the teacher's inside: a list of
            :class:`tfnas.FeatureHint`, :class:`tfnas.AttentionTransfer` and
            :class:`tfnas.RelationalTransfer`.
        reverse: KL(student || teacher) instead of KL(teacher || student).
        label_smoothing: Share of the labels that is spread over all classes, in [0, 1).
        multi_label: Whether each class is a yes or no of its own; None: where the models end
            in a sigmoid, or in one unit.
        student_gives: "logits" or "probabilities"; None: by its last activation.
        teacher_gives: The same of the teacher; None without one: logits, which is what
            :func:`tfnas.teacher_outputs` gives.
        teacher_weights: One number above 0 a teacher, for the average; None: all count alike.
        preprocess: What a teacher wants done to the student's inputs: a callable or a Keras
            layer, or a list of one (or None) a teacher. Images are then resized to the
            teacher's resolution.
        name: Name of the model.

    Raises:
        ValueError: An argument is outside its rule, or student and teacher do not go together.

    References:
        Hinton, Vinyals and Dean, "Distilling the Knowledge in a Neural Network", 2015.
    """

    def __init__(
        self,
        teacher: Any,
        student: Any,
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
        preprocess: Any = None,
        name: str = "distiller",
    ) -> None:
        check_model("student", student)
        check_number("student_loss_weight", student_loss_weight, low=0.0, high=1.0)
        check_number("temperature", temperature, low=0.0, outside={0.0})
        check_number("label_smoothing", label_smoothing, low=0.0, high=1.0, outside={1.0})
        # The student casts its own inputs, and the teacher wants them as they came.
        super().__init__(name=name, dtype=student.dtype_policy, autocast=False)
        self.student = student
        self.student_loss_weight, self.temperature = float(student_loss_weight), float(temperature)
        self.reverse, self.label_smoothing = bool(reverse), float(label_smoothing)
        self.features = compatibility_checks.checked_features(features, teacher)
        self.teachers = Teachers(teacher, teacher_weights, preprocess, teacher_gives, self.features)
        if any(model is student for model in self.teachers):
            raise ValueError("teacher must be another model than the student, got the same")
        wanted = [transfer.student for transfer in self.features]
        self._reader = Reader(student, "student", wanted, student_gives)
        readers = self.teachers.readers
        self._stated = {"multi_label": multi_label, "student_gives": student_gives}
        self.multi_label = compatibility_checks.resolved_multi_label(
            multi_label, [self._reader, *readers]
        )
        compatibility_checks.check_outputs(self._reader, readers)
        self.teachers.check_inputs(student)
        self.projections = compatibility_checks.projections(self.features, self._reader, readers)
        self.supports_jit = self.teachers.supports_jit()
        self.built = True

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """Returns the student's outputs."""
        reading = self._reader.read(inputs, training, self.multi_label)
        # What `compute_loss` needs of this pass goes along with its outputs, as Keras' own
        # masks do; kept in the model it would mix up replicas.
        reading.outputs._tfnas_reading = reading.logits, reading.features
        return reading.outputs

    def compile(self, optimizer: Any = "adam", loss: Any = None, **kwargs: Any) -> None:
        """Configures training as Keras does; `metrics` are the student's.

        Args:
            optimizer: As Keras takes it.
            loss: None: the distiller has its own.
            kwargs: As Keras takes them: `metrics`, `jit_compile`, `steps_per_execution`...

        Raises:
            ValueError: There is a loss.
        """
        if loss is not None:
            raise ValueError(
                f"loss must be left out, since the distiller has its own, got {loss!r}: see "
                f"student_loss_weight, label_smoothing and multi_label"
            )
        super().compile(optimizer=optimizer, loss=None, **kwargs)

    def compile_from_config(self, config: dict[str, Any]) -> None:
        """Compiles as the saved distiller was."""
        self.compile(**keras.saving.deserialize_keras_object(config))
        self.optimizer.build(self.trainable_variables)

    def fit(self, x: Any = None, y: Any = None, *args: Any, **kwargs: Any) -> Any:
        """Trains as Keras does; class numbers in arrays are checked beforehand.

        Args:
            x: As Keras takes it.
            y: Labels; without a teacher (labels, teacher's outputs); None where
                `student_loss_weight` is 0.
            args: As Keras takes them.
            kwargs: As Keras takes them: `epochs`, `callbacks`, `validation_data`...

        Returns:
            Keras' History.

        Raises:
            ValueError: A class number is none of the student's, a label of single classes is not
                from 0 to 1, or `class_weight` comes with kept outputs that are no arrays.
        """
        held = kwargs.get("validation_data")
        seen = held[1:2] if isinstance(held, tuple) else ()
        for labels in (y, *seen):
            if not self.teachers and isinstance(labels, (list, tuple)) and len(labels) == 2:
                labels = labels[0]
            if self.multi_label:
                compatibility_checks.check_shares(labels)
            else:
                compatibility_checks.check_classes(labels, self._reader.shape)
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
            y: Labels: class numbers (n,) or (n, 1), one-hot or soft (n, classes); without a
                teacher (labels, teacher's outputs).
            y_pred: What the distiller gave for `x`; None: it is called.
            sample_weight: One number an example; it weighs all parts of the example's loss.
            training: False: the student's cross-entropy with the labels alone.

        Returns:
            A float32 scalar.

        Raises:
            ValueError: Labels or a teacher's outputs are missing, or do not fit.
        """
        if not hasattr(y_pred, "_tfnas_reading"):  # it went through other hands
            y_pred = self(x, training=training)
        logits, seen = y_pred._tfnas_reading
        student_loss_weight = self.student_loss_weight if training else 1.0
        labels, told = compatibility_checks.split_targets(y, kept=not self.teachers)
        told, taught = self._told(x, told, student_loss_weight, training)
        if student_loss_weight > 0:
            compatibility_checks.check_labels(labels, logits, self.multi_label)
        if student_loss_weight < 1:
            compatibility_checks.check_told(told, logits)
        losses = distillation_loss(
            *(labels, logits, told, student_loss_weight, self.temperature),
            reverse=self.reverse,
            multi_label=self.multi_label,
            label_smoothing=self.label_smoothing,
        )
        total = weighted_mean(losses, sample_weight, getattr(y_pred, "_keras_mask", None))
        for far, weight in self._distances(seen, taught):
            total += weight * weighted_mean(far, sample_weight)
        if self.losses:  # regularizers
            total += super().compute_loss(x, None, y_pred, None, training)
        return total

    def compute_metrics(self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        """Returns the metrics of the student with the labels, and the mean of the loss."""
        labels, told = compatibility_checks.split_targets(y, kept=not self.teachers)
        if labels is None:  # no weight on labels: nothing to hold the metrics against
            return self._results(known=lambda metric: metric is not self._compile_metrics)
        if told is not None and isinstance(sample_weight, (list, tuple)):
            sample_weight = sample_weight[0]  # Keras repeats it for labels and outputs
        return super().compute_metrics(x, labels, y_pred, sample_weight)

    def get_metrics_result(self) -> dict[str, Any]:
        """Returns the metrics so far; those of the labels once there were any."""
        return self._results(known=lambda metric: getattr(metric, "built", True))

    def _results(self, known: Callable[[Any], bool]) -> dict[str, Any]:
        results: dict[str, Any] = {}
        for metric in filter(known, self.metrics):
            result = metric.result()
            results.update(result if isinstance(result, dict) else {metric.name: result})
        return results

    def _told(
        self, x: Any, given: Any, student_loss_weight: float, training: bool
    ) -> tuple[Any, Any]:
        """(the teachers' logits, their inner activations); None where nothing asks for them."""
        if not training or (student_loss_weight == 1 and not self.features):
            return None, []
        if self.teachers:
            return self.teachers.told(x, self.multi_label)
        if given is not None and self.teachers.gives == "probabilities":
            given = as_logits(given, self.multi_label)
        return given, []

    def _distances(self, seen: dict[str, Any], taught: list[dict[str, Any]]) -> Any:
        """Yields (distance of each example, weight) of every pair of layers."""
        if not taught:
            return
        for transfer, projection in zip(self.features, self.projections, strict=True):
            own = seen[transfer.student]
            own = own if projection is None else projection(own)
            yield transfer.distance(own, taught[transfer.of][transfer.teacher]), transfer.weight

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments, serialized, with student and teacher."""
        return {
            "name": self.name,
            "student": serialized(self.student),
            **self.teachers.get_config(),
            "student_loss_weight": self.student_loss_weight,
            "temperature": self.temperature,
            "features": [keras.saving.serialize_keras_object(f) for f in self.features],
            "reverse": self.reverse,
            "label_smoothing": self.label_smoothing,
            **self._stated,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> Distiller:
        """Returns a distiller with these arguments."""
        config = dict(config)
        for name in ("student", "teacher", "features", "preprocess"):
            config[name] = keras.saving.deserialize_keras_object(config[name], custom_objects)
        return cls(**config)

    def save_assets(self, folder: str) -> None:
        """Writes the teachers' weights: into a `.keras` file, not into files of weights."""
        np.savez(pathlib.Path(folder, _FILE), *self.teachers.get_weights())

    def load_assets(self, folder: str) -> None:
        """Reads the teachers' weights."""
        with np.load(pathlib.Path(folder, _FILE), allow_pickle=False) as file:
            self.teachers.set_weights([file[name] for name in file.files])
