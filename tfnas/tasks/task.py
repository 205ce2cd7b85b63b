"""A task: what a model is for.

The engine (techniques, fine-tuning, the planner, searches and reports) asks a :class:`Task` for
everything that depends on the kind of a model's inputs and outputs: its loss, its metric, how
outputs become predictions, how it is fitted and distilled.
:class:`tfnas.tasks.image_classes.ImageClasses` is the task of image classifiers.
"""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tfnas.data.examples import Batches, Data, ExampleSet, Nested, leaves, mapped
from tfnas.graph.output_names import by_output, output_names
from tfnas.measure.output_agreement import OutputAgreement, output_agreement
from tfnas.tasks.assessment import Assessment, Metric
from tfnas.tasks.judging import judged, judged_values

if TYPE_CHECKING:
    import keras

    from tfnas.distillation.feature_losses import FeatureHint
    from tfnas.measure.agreement import Agreement
    from tfnas.tflite.artifact import Artifact


@dataclasses.dataclass(frozen=True, eq=False)
class Distillation:
    """What a model learns from its teacher.

    Args:
        teacher: The teacher; None where `outputs` were computed before.
        weight: Fraction of the loss that is the teacher's, in (0, 1].
        outputs: The teacher's outputs for the training examples, and for their mirror images
            where these are trained on; None: the teacher runs in each step.
        hints: Losses between layers of teacher and model.
    """

    teacher: keras.Model | None
    weight: float
    outputs: Sequence[np.ndarray] | None = None
    hints: Sequence[FeatureHint] = ()


class Task(abc.ABC):
    """What a model is for: a subclass says how its outputs are trained, judged and compared.

    Example:
        >>> from tfnas import Metric
        >>> class Depth(Task):
        ...     metric = Metric("error", higher_is_better=False, unit="m")
        ...     def check(self, model, data):
        ...         if len(model.outputs) != 1:
        ...             raise ValueError(f"model must have one output, got {len(model.outputs)}")
        ...     def loss(self, model):
        ...         return "mse"
        ...     def example_values(self, y, predictions):
        ...         return abs(y - predictions[:, 0])
        >>> assessment = Depth().assess(np.array([1.0, 2.0]), np.array([[1.0], [2.5]]))
        >>> assessment.score.value
        0.25
    """

    metric: Metric
    more_metrics: Mapping[str, Metric] = {}  # by name: shown beside `metric`, deciding nothing
    noun: str = "examples"  # what an example is, in the plural
    distills: bool = False  # whether `distiller` is defined
    augmentations: tuple[str, ...] = ()  # random changes that `batches` knows
    has_loss: bool = True  # whether the loss of targets and outputs is known
    loss_weights: Any = None  # of several outputs, as `Model.compile` takes them
    resumes: bool = True  # whether a training that was stopped goes on from its last epoch

    @abc.abstractmethod
    def check(self, model: keras.Model, data: Data) -> None:
        """Checks that a model fits the task and the data.

        Args:
            model: The model.
            data: The data.

        Raises:
            ValueError: It doesn't; the message names the argument, the rule and the value.
        """

    @abc.abstractmethod
    def loss(self, model: keras.Model) -> Any:
        """Returns the loss of a model, in a form that `Model.compile` takes.

        Args:
            model: The model.
        """

    def criterion_loss(self, model: keras.Model) -> Callable[[Any, Any], Any]:
        """Returns the loss as a function of targets and outputs, for criteria by gradient.

        Args:
            model: The model.

        Returns:
            A function of (targets, outputs) of a batch that returns one number.
        """
        import keras

        loss = self.loss(model)
        if isinstance(loss, keras.losses.Loss):
            return loss
        names = output_names(model)
        if len(names) == 1 and not isinstance(loss, list | tuple | dict):
            single = keras.losses.get(loss)
            return lambda y, outputs: keras.ops.mean(single(_like(y, outputs), outputs))
        if not isinstance(loss, list | tuple | dict):
            loss = dict.fromkeys(names, loss)
        weights = {} if self.loss_weights is None else by_output(self.loss_weights, names)
        losses = {
            name: keras.losses.get(each)
            for name, each in by_output(loss, names, "loss").items()
            if each is not None
        }

        def total(y: Nested, outputs: Nested) -> Any:
            true, guess = by_output(y, names), by_output(outputs, names, "outputs")
            return sum(
                weights.get(name, 1.0)
                * keras.ops.mean(each(_like(true[name], guess[name]), guess[name]))
                for name, each in losses.items()
            )

        return total

    def check_fine_tuning(self, augment: Sequence[str], distill: float) -> None:
        """Checks that models of this task can be trained as requested.

        Args:
            augment: Random changes of the training examples.
            distill: Weight of a teacher's outputs in the loss.

        Raises:
            ValueError: They can't; the message names the argument.
        """
        name = type(self).__name__
        if unknown := [each for each in augment if each not in self.augmentations]:
            known = ", ".join(self.augmentations) or "nothing"
            raise ValueError(f"augment must hold {known} for {name}, got {unknown[0]!r}")
        if distill and not self.distills:
            raise ValueError(
                f"distill must be 0 for {name}, which defines no `distiller`, got {distill!r}"
            )

    def check_distillation(self, model: keras.Model) -> None:  # noqa: B027  classifiers always can
        """Checks that a model can learn from another one's outputs.

        Args:
            model: The model.

        Raises:
            ValueError: It is not known how to compare its outputs with a teacher's.
        """

    def identity(self) -> dict[str, Any]:
        """Returns what makes a task the same, as JSON can hold it.

        A job's folder is of one task. Override it where a task has parameters that are no numbers
        or texts.
        """
        plain = str | int | float | bool | tuple | None
        fields = {name: value for name, value in vars(self).items() if isinstance(value, plain)}
        metric = self.metric.identity()
        kind = f"{type(self).__module__}.{type(self).__qualname__}"
        return {"kind": kind, "metric": metric, "fields": {k: repr(v) for k, v in fields.items()}}

    def example_values(self, y: Nested, predictions: Nested) -> np.ndarray:
        """Returns the metric's value for each example, (examples,), by default `metric.values`.

        Where the metric has an `aggregate`, rows of numbers, (examples, ...).

        Args:
            y: Targets, examples first.
            predictions: The result of :meth:`postprocess`.

        Raises:
            NotImplementedError: The metric has no `values`.
        """
        if self.metric.values is None:
            raise NotImplementedError(
                f"{type(self).__name__} must define example_values, or its metric values"
            )
        return self.metric.values(y, predictions)

    def check_for_compress(  # noqa: B027  most tasks need nothing more
        self, model: keras.Model
    ) -> None:
        """Checks what a search for the best files needs of a model beside :meth:`check`.

        Args:
            model: The model.

        Raises:
            ValueError: The model can't be judged.
        """

    def check_judgment(self, model: keras.Model, data: Data) -> None:
        """Judges a model on a few examples, so that a mistake is found before long work.

        Args:
            model: The model before compression.
            data: The data.

        Raises:
            ValueError: The task can't judge the model's outputs.
        """
        import keras

        few = data.test.first(8)
        outputs = model(as_tensors(few.x), training=False)
        self.assess(few.y, keras.tree.map_structure(np.asarray, outputs))

    def postprocess(self, outputs: Nested) -> Nested:
        """Turns a model's outputs into predictions; of a Keras model and of its file alike.

        Args:
            outputs: One array (examples, ...), or a list of them where there are several outputs.
        """
        return outputs

    def assess(self, y: Nested, outputs: Nested) -> Assessment:
        """Judges a model's outputs.

        Args:
            y: Targets, examples first.
            outputs: The model's outputs.

        Raises:
            ValueError: `example_values` does not return one value for each example.
            NotFinite: An output is not finite.
        """
        return Assessment(self.metric, judged_values(self, y, outputs))

    def judge(self, predict: Callable[[Nested], Nested], examples: ExampleSet) -> Assessment:
        """Judges a model or a file on examples, a batch at a time.

        Args:
            predict: Returns the outputs for inputs, such as :meth:`tfnas.Artifact.predict`.
            examples: The examples.

        Raises:
            ValueError: `example_values` does not return one value for each example.
            NotFinite: An output is not finite.
        """
        return judged(self, predict, examples, {"": self.metric})[""]

    def judge_all(
        self, predict: Callable[[Nested], Nested], examples: ExampleSet
    ) -> dict[str, Assessment]:
        """Judges a model or a file by `metric` and by `more_metrics`, in one pass.

        Example:
            >>> from tfnas import metrics
            >>> from tfnas.data import Examples
            >>> class Depth(Task):
            ...     metric, more_metrics = metrics.mae(), {"mse": metrics.mse()}
            ...     def check(self, model, data): ...
            ...     def loss(self, model): return "mae"
            >>> found = Depth().judge_all(lambda x: x + 2, Examples(np.zeros(4), np.zeros(4)))
            >>> [(name, each.score.value) for name, each in found.items()]
            [('', 2.0), ('mse', 4.0)]

        Args:
            predict: Returns the outputs for inputs, such as :meth:`tfnas.Artifact.predict`.
            examples: The examples.

        Returns:
            Assessments: that of `metric` by the name "", those of `more_metrics` by theirs.

        Raises:
            ValueError: A metric does not return one value for each example.
            NotFinite: An output is not finite.
        """
        return judged(self, predict, examples, {"": self.metric, **self.more_metrics})

    def changed(self, before: Nested, after: Nested) -> np.ndarray:
        """Returns how much of each example's prediction changed, (examples,) from 0 to 1.

        By default the squared change as a fraction of the outputs' mean square.

        Args:
            before: Outputs of a model.
            after: Outputs of another one for the same examples.
        """
        parts = []
        for old, new in zip(leaves(before), leaves(after), strict=True):
            flat = np.reshape(old, (len(old), -1)), np.reshape(new, (len(new), -1))
            scale = float(np.mean(np.square(flat[0]))) or 1.0
            parts.append(np.mean(np.square(flat[0] - flat[1]), axis=1) / scale)
        return np.minimum(np.mean(parts, axis=0), 1.0)

    def agreement(
        self,
        files: tuple[Artifact, Artifact],
        data: Data,
        models: tuple[keras.Model, keras.Model],
    ) -> Agreement | OutputAgreement | None:
        """Compares the outputs of two files in detail, by default as numbers.

        Args:
            files: The original file and the compressed one.
            data: The data; its test part is used.
            models: The Keras models behind the files.

        Returns:
            The agreement; None: a task may define that there is nothing to compare.
        """
        return output_agreement(*files, data.test)

    def trainer(
        self,
        model: keras.Model,
        optimizer: keras.optimizers.Optimizer,
        distillation: Distillation | None = None,
    ) -> keras.Model:
        """Returns a compiled model whose `fit` trains a model in place.

        That is the model itself, or the result of :meth:`distiller`. Override it for a model with
        a `train_step` of its own.

        Args:
            model: The model to train.
            optimizer: A new optimizer.
            distillation: What it learns from its teacher; None: nothing.
        """
        if distillation is not None:
            trainer = self.distiller(model, distillation)
            more = {} if self.loss_weights is None else {"loss_weights": self.loss_weights}
            trainer.compile(optimizer, metrics=self.keras_metrics, jit_compile=False, **more)
            return trainer
        # XLA is three times slower on a processor: docs/decisions/0026-xla-off-on-cpus.md
        model.compile(optimizer, self.loss(model), metrics=self.keras_metrics, jit_compile=False)
        return model

    def train(
        self,
        trainer: keras.Model,
        batches: Batches,
        epochs: int,
        initial_epoch: int,
        callbacks: Sequence[keras.callbacks.Callback],
    ) -> None:
        """Trains what :meth:`trainer` returned, in place. Override it for a loop of your own.

        Args:
            trainer: The compiled model.
            batches: The batches of the training.
            epochs: Number of the last epoch, from 1.
            initial_epoch: Number of epochs that were trained before.
            callbacks: The callbacks.
        """
        trainer.fit(
            batches.dataset(),
            epochs=epochs,
            initial_epoch=initial_epoch,
            shuffle=False,  # the batches shuffle themselves
            verbose=0,
            callbacks=list(callbacks),
        )

    @property
    def keras_metrics(self) -> Any:
        """Metrics for the logs of the training, in a form that `Model.compile` takes."""
        return None

    def distiller(self, model: keras.Model, distillation: Distillation) -> keras.Model:
        """Returns a model, not compiled, that trains another one with a teacher.

        Args:
            model: The model to train.
            distillation: The teacher.

        Raises:
            ValueError: Models of this task are not distilled.
        """
        raise ValueError(
            f"distill must be 0 for {type(self).__name__}, which defines no `distiller`, got "
            f"{distillation.weight!r}"
        )

    def teacher_outputs(
        self, teacher: keras.Model, examples: ExampleSet, augment: Sequence[str], weight: float
    ) -> list[np.ndarray] | None:
        """Returns a teacher's outputs that all epochs share; None: it must run in each step.

        Args:
            teacher: The teacher.
            examples: The training examples.
            augment: Random changes of the training examples.
            weight: Fraction of the loss that is the teacher's.
        """
        return None

    def batches(
        self,
        examples: ExampleSet,
        batch_size: int,
        seed: int,
        augment: Sequence[str] = (),
        teacher_outputs: Sequence[np.ndarray] | None = None,
    ) -> Batches:
        """Returns the batches of a training, in another order in each epoch.

        Args:
            examples: The training examples.
            batch_size: Examples in a batch.
            seed: Seed of the orders.
            augment: Random changes of the examples.
            teacher_outputs: Outputs of :meth:`teacher_outputs`: targets are then pairs.

        Raises:
            ValueError: The task has no such augmentation.
        """
        if augment:
            raise ValueError(
                f"augment must be empty for {type(self).__name__}, got {', '.join(augment)}"
            )
        outputs = None if teacher_outputs is None else teacher_outputs[0]
        return examples.training_batches(batch_size, seed, outputs)


def _like(targets: Any, outputs: Any) -> Any:
    """Returns targets of one number an example with the last axis that outputs have, as `fit`."""
    own, expected = getattr(targets, "shape", None), getattr(outputs, "shape", None)
    if own is None or expected is None:  # nested
        return targets
    return targets[..., None] if len(expected) == len(own) + 1 and expected[-1] == 1 else targets


def as_tensors(inputs: Nested) -> Nested:
    """Returns inputs as a model takes them: numbers other than whole ones as float32.

    Args:
        inputs: Nested arrays, examples first.
    """
    import keras

    def tensor(array: np.ndarray) -> Any:
        real = np.issubdtype(array.dtype, np.floating)
        return keras.ops.convert_to_tensor(array.astype("float32") if real else array)

    return mapped(tensor, inputs)
