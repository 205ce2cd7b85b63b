"""The task of any model by what `Model.compile` takes: a loss and a metric, on data of any kind."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tfnas.data.examples import Batches, Data, Examples, ExampleSet, leaves
from tfnas.graph.output_activation import output_activations
from tfnas.graph.output_names import by_output, name_outputs, output_names
from tfnas.keras_private import compiled_losses, compiled_metric_arguments, own_training_step
from tfnas.measure.agreement import Agreement, class_agreement
from tfnas.tasks.assessment import Metric
from tfnas.tasks.data_checks import check_inputs, check_one_target, check_targets
from tfnas.tasks.metrics import OutputForm, metric_of, metrics_by_output
from tfnas.tasks.output_movement import output_movement
from tfnas.tasks.task import Distillation, Task, as_tensors
from tfnas.tasks.training_checks import check_fit, check_loss

if TYPE_CHECKING:
    import keras

    from tfnas.measure.output_agreement import OutputAgreement
    from tfnas.tasks.metrics import MetricLike
    from tfnas.tflite.artifact import Artifact

Fit = Callable[..., Any]  # (model, epochs, callbacks), perhaps with initial_epoch
CACHED = 2**30  # bytes of a teacher's outputs that are cached at most
TEMPERATURE = 1.0  # a compressed model learns less from softened logits: docs/decisions


class CompiledTask(Task):
    """The task of any model: the loss and the metrics that `Model.compile` takes.

    `tfnas.compress` and the other jobs make one from their arguments `loss=`, `metric=` and
    `fit=`, and from what the model was compiled with. Make one yourself to decode outputs before
    they are judged: override `postprocess`.

    Example:
        >>> import numpy as np
        >>> task = CompiledTask("mse", "mae")
        >>> targets, outputs = np.array([[1.0], [2.0]]), np.array([[1.0], [2.5]])
        >>> task.assess(targets, outputs).score.value
        0.25

    Args:
        loss: What `Model.compile` takes as `loss`: a Keras loss, its name, a function of
            (targets, outputs), or a list or dictionary of these by output. None: the model trains
            by a `train_step` of its own, or by `fit`.
        metric: What quality is measured by; see :func:`tfnas.tasks.metrics.metric_of`. Of several
            outputs a dictionary from output to metric, of which the first decides.
        loss_weights: What `Model.compile` takes as `loss_weights`.
        fit: Your own training, `fit(model, epochs, callbacks)`: it trains the model in place for
            so many epochs and calls the callbacks, as `Model.fit` does. The model is compiled.
            Where it also takes `initial_epoch`, a training that was stopped goes on from there.
        forms: What is known of each output, by name; needed where there are several. None: the
            loss alone.

    Raises:
        ValueError: The loss or the metric is unknown, or the metric's direction is, or `fit` takes
            other arguments.
    """

    def __init__(
        self,
        loss: Any,
        metric: MetricLike | Mapping[str, MetricLike],
        *,
        loss_weights: Any = None,
        fit: Fit | None = None,
        forms: Mapping[str, OutputForm] | None = None,
    ) -> None:
        check_loss(loss)
        check_fit(fit)
        self._loss, self.loss_weights, self._fit = loss, loss_weights, fit
        self._train_step = ""
        self._output_names: list[str] = []
        forms = dict(forms or {})
        names = [*forms] or ["output"]
        self._form = next(iter(forms.values())) if len(forms) == 1 else OutputForm()
        if isinstance(metric, Mapping):
            first, *others = metrics_by_output(metric, names, forms=forms).items()
            self.metric, self.more_metrics = first[1], dict(others)
            return
        form = next(iter(forms.values()), OutputForm(loss=loss if len(names) == 1 else None))
        if len(forms) > 1 and not (isinstance(metric, Metric) or metric is None):
            raise ValueError(
                f"metric must be a dictionary from output to metric for the outputs "
                f"{', '.join(names)}, got {metric!r}"
            )
        self.metric = metric_of(metric, form.shape, form.activation, form.loss)

    @classmethod
    def of(
        cls,
        model: keras.Model,
        loss: Any = None,
        metric: MetricLike | Mapping[str, MetricLike] | None = None,
        fit: Fit | None = None,
    ) -> CompiledTask:
        """Returns the task of a model: its own loss and metric where none are given.

        Example:
            >>> import keras
            >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
            >>> model.compile("adam", "mse", metrics=["mae"])
            >>> CompiledTask.of(model).metric.name
            'mae'

        Args:
            model: The model.
            loss: As for the class; None: what the model was compiled with.
            metric: As for the class; None: the first metric that the model was compiled with,
                else the metric that goes with the loss.
            fit: As for the class.

        Raises:
            ValueError: The model was not compiled and `loss` is missing, or there is no metric.
        """
        own_loss, own_weights = compiled_losses(model)
        step, weights = own_training_step(model), own_weights if loss is None else None
        loss = own_loss if loss is None else loss
        if loss is None and not step and fit is None:
            raise ValueError(
                "loss must be given for a model that was not compiled with one, got None"
            )
        check_loss(loss)
        forms = output_forms(model, loss)
        if metric is None:
            metric = _first_metrics(compiled_metric_arguments(model), [*forms])
        if metric is None and loss is None:
            raise ValueError(
                "metric must be given for a model that was compiled without one, got None"
            )
        if metric is None and len(forms) > 1:
            metric = {name: None for name, form in forms.items() if form.loss is not None}
        task = cls(loss, metric, loss_weights=weights, fit=fit, forms=forms)
        task._train_step = step
        task._output_names = output_names(model)
        return task

    def check(self, model: keras.Model, data: Data) -> None:
        """Checks that inputs and targets fit the model, on a few examples of each part.

        Args:
            model: The model.
            data: The data.

        Raises:
            ValueError: They don't.
        """
        for part in ("train", "validation", "test"):
            examples: ExampleSet = getattr(data, part)
            if not len(examples):
                raise ValueError(f"the {part} part of the data must hold examples, got none")
            check_inputs(model, examples.first(2), part)
            check_targets(losses_by_output(model, self._loss), model, examples, part)
        if self._loss is not None and not self._train_step:
            self._check_loss(model, data.train.first(2))

    def _check_loss(self, model: keras.Model, few: Examples) -> None:
        try:
            outputs = model(as_tensors(few.x), training=False)
            value = float(self.criterion_loss(model)(few.y, outputs))
        except Exception as error:
            check_one_target(few.y, model)
            shapes = ", ".join(str(np.shape(leaf)[1:]) for leaf in leaves(few.y))
            own = ", ".join(str(tuple(each.shape[1:])) for each in model.outputs)
            raise ValueError(
                f"targets must fit loss and outputs: targets of an example are {shapes}, outputs "
                f"{own}, and the loss {_described(self._loss)} fails: {error}"
            ) from error
        if not np.isfinite(value):
            raise ValueError(
                f"loss must be finite on the training data, got {value} from "
                f"{_described(self._loss)}"
            )

    def loss(self, model: keras.Model) -> Any:
        """Returns the loss, in the form that it was given in.

        Args:
            model: The model.

        Raises:
            ValueError: There is none.
        """
        if self._loss is None:
            raise ValueError(
                f"loss must be given, got None: the model trains by its own "
                f"{self._train_step or 'fit'}"
            )
        return self._loss

    @property
    def has_loss(self) -> bool:  # type: ignore[override]
        """Whether the loss is known, not hidden in a `train_step` or in `fit`."""
        return self._loss is not None

    def criterion_loss(self, model: keras.Model) -> Callable[[Any, Any], Any]:
        """Returns the loss of targets and outputs; how far outputs move where it is unknown.

        Args:
            model: The model.
        """
        return super().criterion_loss(model) if self.has_loss else output_movement

    @property
    def distills(self) -> bool:  # type: ignore[override]
        """Whether models can be distilled: by a loss, not by a training of their own."""
        return self._loss is not None and self._fit is None and not self._train_step

    @property
    def resumes(self) -> bool:  # type: ignore[override]
        """Whether a training that was stopped goes on from its last epoch."""
        return self._fit is None or "initial_epoch" in inspect.signature(self._fit).parameters

    def identity(self) -> dict[str, Any]:
        """Returns what makes a task the same: metrics, loss and training, by their names."""
        more = {name: metric.identity() for name, metric in self.more_metrics.items()}
        fields = {
            "loss": _described(self._loss),
            "loss_weights": _described(self.loss_weights),
            "fit": _described(self._fit),
            "more_metrics": more,
        }
        return {**super().identity(), "fields": fields}

    def agreement(
        self,
        files: tuple[Artifact, Artifact],
        data: Data,
        models: tuple[keras.Model, keras.Model],
    ) -> Agreement | OutputAgreement | None:
        """Compares the classes of two files where the one output gives them, else the numbers.

        Args:
            files: The original file and the compressed one.
            data: The data; its test part is used.
            models: The Keras models behind the files.
        """
        if not self._form.gives_classes:
            return super().agreement(files, data, models)
        names = getattr(data, "class_names", ()) or getattr(data, "target_names", ())
        logits = self._form.from_logits and not self._form.activation
        return class_agreement(*files, data.test, names, from_logits=logits)

    def trainer(
        self,
        model: keras.Model,
        optimizer: keras.optimizers.Optimizer,
        distillation: Distillation | None = None,
    ) -> keras.Model:
        """Returns the compiled model, or its distiller.

        Args:
            model: The model to train.
            optimizer: A new optimizer.
            distillation: What it learns from its teacher; None: nothing.
        """
        name_outputs(model, self._output_names)
        if distillation is not None:
            return super().trainer(model, optimizer, distillation)
        arguments = {"loss": self._loss, "loss_weights": self.loss_weights, "jit_compile": False}
        # A class with a `compile` of its own may know fewer arguments.
        model.compile(optimizer=optimizer, **{k: v for k, v in arguments.items() if v is not None})
        return model

    def train(
        self,
        trainer: keras.Model,
        batches: Batches,
        epochs: int,
        initial_epoch: int,
        callbacks: Sequence[keras.callbacks.Callback],
    ) -> None:
        """Trains by `fit` where it was given, else as Keras does.

        Args:
            trainer: The compiled model.
            batches: The batches of the training.
            epochs: Number of the last epoch.
            initial_epoch: Number of epochs that were trained before.
            callbacks: The callbacks.

        Raises:
            ValueError: `fit` left the weights as they were.
        """
        if self._fit is None:
            super().train(trainer, batches, epochs, initial_epoch, callbacks)
            return
        before = [np.array(value) for value in trainer.trainable_variables]
        more = {"initial_epoch": initial_epoch} if self.resumes else {}
        self._fit(trainer, epochs, list(callbacks), **more)
        after = trainer.trainable_variables
        if epochs > initial_epoch and all(
            np.array_equal(old, new) for old, new in zip(before, after, strict=True)
        ):
            raise ValueError(
                "fit must train the model that it is given, in place, got unchanged weights"
            )

    def check_distillation(self, model: keras.Model) -> None:
        """Checks that the kind of each output is known, so that a teacher's can be compared.

        Args:
            model: The model.

        Raises:
            ValueError: An output has no loss, or its kind can't be inferred from its loss and its
                activation.
        """
        names, losses = output_names(model), losses_by_output(model, self._loss)
        if without := [name for name in names if name not in losses]:
            raise ValueError(
                f"loss must name every output of a model that is distilled, got none for "
                f"{', '.join(map(repr, without))}"
            )
        self.distiller(model, Distillation(None, 0.5, outputs=()))

    def distiller(self, model: keras.Model, distillation: Distillation) -> keras.Model:
        """Returns a :class:`tfnas.Distiller` with the task's loss on the targets.

        Args:
            model: The student.
            distillation: The teacher.
        """
        from tfnas.distillation.distiller import Distiller

        teacher = None if distillation.outputs is not None else distillation.teacher
        return Distiller(
            teacher,
            model,
            1 - distillation.weight,
            TEMPERATURE,
            student_loss=self._loss,
            features=distillation.hints,
        )

    def teacher_outputs(
        self, teacher: keras.Model, examples: ExampleSet, augment: Sequence[str], weight: float
    ) -> list[np.ndarray] | None:
        """Returns the outputs of a teacher with one output, where they fit into memory.

        Args:
            teacher: The teacher.
            examples: The training examples.
            augment: Must be empty.
            weight: Fraction of the loss that is the teacher's.
        """
        from tfnas.distillation.cached_teacher import teacher_outputs

        if not isinstance(examples, Examples) or len(teacher.outputs) != 1:
            return None
        shape = teacher.outputs[0].shape[1:]
        if None in shape or 4 * len(examples) * int(np.prod(shape)) > CACHED:
            return None
        return [teacher_outputs(teacher, examples.x)]


def output_forms(model: keras.Model, loss: Any) -> dict[str, OutputForm]:
    """Returns what is known of each output of a model, by name.

    Args:
        model: A built model.
        loss: What `Model.compile` takes.
    """
    losses = losses_by_output(model, loss)
    try:
        activations = output_activations(model)
    except ValueError:  # a subclassed model has no graph
        activations = [""] * len(model.outputs)
    return {
        name: OutputForm(tuple(output.shape), activation, losses.get(name))
        for name, output, activation in zip(
            output_names(model), model.outputs, activations, strict=True
        )
    }


def losses_by_output(model: keras.Model, loss: Any) -> dict[str, Any]:
    """Returns the loss of each output that has one.

    Args:
        model: The model.
        loss: What `Model.compile` takes.
    """
    names = output_names(model)
    if loss is None:
        return {}
    if len(names) > 1 and not isinstance(loss, dict | list | tuple):
        return dict.fromkeys(names, loss)
    return {name: own for name, own in by_output(loss, names, "loss").items() if own is not None}


def _first_metrics(metrics: Any, names: Sequence[str]) -> Any:
    """Returns the first compiled metric of each output; None where there is none."""
    if not metrics:
        return None
    if len(names) == 1:
        while isinstance(metrics, dict | list | tuple):
            values = list(metrics.values()) if isinstance(metrics, dict) else list(metrics)
            if not values:
                return None
            metrics = values[0]
        return metrics
    by_name = by_output(metrics, names, "metrics")
    firsts = {
        name: each[0] if isinstance(each, list | tuple) else each
        for name, each in by_name.items()
        if each
    }
    return firsts or None


def _described(spec: Any) -> str:
    """Returns a loss or a function by its name and settings, the same in another process."""
    if isinstance(spec, dict):
        return ", ".join(f"{key}: {_described(value)}" for key, value in spec.items())
    if isinstance(spec, list | tuple):
        return ", ".join(map(_described, spec))
    if hasattr(spec, "get_config"):
        return f"{type(spec).__name__} {spec.get_config()}"
    name = getattr(spec, "__qualname__", None)
    return f"{spec.__module__}.{name}" if name else str(spec)
