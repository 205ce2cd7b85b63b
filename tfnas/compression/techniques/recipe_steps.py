"""Applies the steps of a recipe: each compresses a copy of a model by a technique and trains it."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

from tfnas.clustering.clustering_callback import ClusteringCallback
from tfnas.compression.fine_tune import (
    cached_teacher_logits,
    classification_loss,
    finetune,
    training_steps,
)
from tfnas.compression.progress import Progress
from tfnas.compression.recipe import RecipeStep
from tfnas.compression.training_settings import TrainingSettings
from tfnas.data.data_split import DataSplit
from tfnas.data.reading import spread
from tfnas.distillation.feature_losses import FeatureHint
from tfnas.graph.batchnorm import layers_of, recalibrate_batchnorm
from tfnas.graph.functional import clone
from tfnas.graph.layer_kernels import model_kernels
from tfnas.low_rank.factorize import factorize
from tfnas.pruning.mask_constraint import keep_zeros
from tfnas.pruning.pruning_callback import PruningCallback
from tfnas.pruning.structured.channel_report import ChannelPruningReport
from tfnas.pruning.structured.prune_channels import prune_channels
from tfnas.quantization.quantize_aware import quantize_aware
from tfnas.schedules import polynomial

CALIBRATION = 300  # images for ranges, batchnorm statistics and input moments
SCORED = 1024  # examples for the criterion "taylor"
RAMP = 0.5  # fraction of the training in which sparsity grows
NEAR = 0.85  # of the target, below which rounded sizes must not fall
HALVINGS = 6  # bisections of the fraction of weights beside a limit on costs
REBUILT = 2.5  # times as many epochs after channel pruning, which loses more at once
RENEWAL = 5  # optimizer steps between two assignments of weights to clusters
LARGE_DENSE = 0.1  # of all dense weights: smaller dense layers are not factorized


class NotPossible(RuntimeError):
    """A technique refuses a model; the message says why."""


@contextlib.contextmanager
def _refusals() -> Iterator[None]:
    """Turns a technique's refusal into :class:`NotPossible`, which does not end the job."""
    try:
        yield
    except ValueError as error:
        raise NotPossible(str(error)) from error


@dataclasses.dataclass(frozen=True, eq=False)
class StepRunner:
    """Applies steps of recipes to a model.

    Args:
        original: The model before compression; the teacher of all steps.
        split: The data.
        settings: How a step is trained.
        progress: Receives the end of each epoch.
    """

    original: keras.Model
    split: DataSplit
    settings: TrainingSettings
    progress: Progress

    @functools.cached_property
    def _teacher_logits(self) -> list[np.ndarray] | None:
        return cached_teacher_logits(self.original, self.split, self.settings)

    def apply(self, model: keras.Model, step: RecipeStep) -> keras.Model:
        """Returns a model after a further step.

        Args:
            model: The model after the steps before; it is not changed.
            step: The step.

        Raises:
            NotPossible: The technique refuses the model; the message says why.
        """
        return getattr(self, f"_{step.technique}")(model, step)

    def _prune_channels(self, model: Any, step: RecipeStep) -> Any:
        with _refusals():
            smaller = self._without_channels(model, step)
        self._fit(smaller, longer=REBUILT, rebuild=True)
        return smaller

    def _without_channels(self, model: Any, step: RecipeStep) -> Any:
        targets = {"target_macs": step.amount, "target_params": step.weights}
        limited = {name: value for name, value in targets.items() if value and value < 1}
        options: dict[str, Any] = {
            "criterion": "taylor",
            "data": (spread(self.split.x_train, SCORED), spread(self.split.y_train, SCORED)),
            "loss": classification_loss(model),
            "seed": self.settings.seed,
        }
        if len(limited) > 1:
            return prune_channels(model, sizes=both_sizes(model, step), **options)[0]
        return by_savings(model, shared_layers(model), **limited, **options)[0]

    def _train(self, model: Any, step: RecipeStep) -> Any:
        copy = clone(model)
        self._fit(copy, longer=step.amount, rebuild=True)
        return copy

    def _factorize(self, model: Any, step: RecipeStep) -> Any:
        return self._with_low_rank(model, target_macs=step.amount)

    def _factorize_dense(self, model: Any, step: RecipeStep) -> Any:
        ranks = dense_ranks(model, step.amount)
        if not ranks:
            raise NotPossible(f"no dense layer has {step.amount:g} of its weights at a lower rank")
        return self._with_low_rank(model, rank=ranks)

    def _with_low_rank(self, model: Any, **target: Any) -> Any:
        images = spread(self.split.x_train, CALIBRATION)
        with _refusals():
            factorized, _ = factorize(model, data=images, **target)
        if layers_of(factorized, keras.layers.BatchNormalization):
            recalibrate_batchnorm(factorized, images)
        self._fit(factorized, hints=True)
        return factorized

    def _prune(self, model: Any, step: RecipeStep) -> Any:
        copy = clone(model)
        steps = training_steps(self.split, self.settings.epochs, self.settings.batch_size)
        schedule = polynomial(
            step.amount, end=int(RAMP * steps), by="step", frequency=max(1, min(100, steps // 20))
        )
        self._fit(copy, [PruningCallback(schedule, scope="global")])
        return copy

    def _cluster(self, model: Any, step: RecipeStep) -> Any:
        # BatchNormalization is not folded: in int8 it only scales each channel, so that the file
        # has as few distinct integers as the kernel has values.
        copy = clone(model)
        callback = ClusteringCallback(int(step.amount), RENEWAL, "step", seed=self.settings.seed)
        self._fit(copy, [callback], slower=3.0)
        return copy

    def _fit(
        self,
        model: Any,
        callbacks: Any = (),
        *,
        hints: bool = False,
        slower: float = 1.0,
        longer: float = 1.0,
        rebuild: bool = False,
    ) -> None:
        """Trains in place, with distillation from the original."""
        images = spread(self.split.x_train, CALIBRATION)
        features = block_hints(model, self.original, images) if hints else ()
        settings = dataclasses.replace(
            self.settings, learning_rate=self.settings.learning_rate / slower
        )
        finetune(
            model,
            self.split,
            settings,
            teacher=self.original,
            epochs=round(longer * settings.epochs),
            callbacks=callbacks,
            rebuild=rebuild,
            teacher_logits=None if features else self._teacher_logits,
            hints=features,
            progress=self.progress,
        )

    def aware(self, model: keras.Model, mode: str, kept: tuple[str, ...]) -> keras.Model:
        """Returns a copy of a model after quantization-aware training.

        Args:
            model: A float model.
            mode: Number format of the file.
            kept: Techniques of the steps before, whose results are kept.

        Raises:
            NotPossible: The model can't be quantized; the message says why.
        """
        images = spread(self.split.x_train, CALIBRATION)
        with _refusals():
            trainable = quantize_aware(model, mode, data=images)
        callbacks = []
        if "cluster" in kept:  # the callback sums the gradients of shared values
            callbacks = [ClusteringCallback(None)]  # keeps zeros too
        elif "prune" in kept:
            keep_zeros(trainable)
        self._fit(trainable, callbacks, slower=10.0)
        return trainable


def shared_layers(model: keras.Model) -> list[str]:
    """Returns layers that must have as many channels as another: those that a sum adds up.

    Args:
        model: A Keras model.
    """
    _, report = prune_channels(model, target_macs=0.999)
    return [maker for g in report.groups if len(g.makers) > 1 for maker in g.makers]


def by_savings(
    model: keras.Model, shared: list[str], **options: Any
) -> tuple[keras.Model, ChannelPruningReport]:
    """Prunes channels where that saves most: inside the blocks and by fours, where possible.

    The channels between residual blocks then stay as they are. Kernels compute 8 channels at a
    time, but where 8 is half of a layer, multiples of 4 leave more choices.

    Args:
        model: A Keras model.
        shared: Its :func:`shared_layers`.
        **options: Arguments of :func:`tfnas.prune_channels`, with `target_macs` or
            `target_params`.

    Returns:
        The pruned model and the report.

    Raises:
        ValueError: The target can't be met.
    """
    macs = "target_macs" in options
    target = options["target_macs" if macs else "target_params"]
    last = ValueError("no channel can be removed")
    for more in ({"exclude": shared, "round_to": 4}, {"exclude": shared}, {"round_to": 4}, {}):
        try:
            smaller, report = prune_channels(model, scope="saving", **options, **more)
        except ValueError as error:
            last = error
            continue
        before, after = report.macs if macs else report.parameters
        if "round_to" not in more or after >= NEAR * target * before:
            return smaller, report
    raise last


def both_sizes(model: keras.Model, step: RecipeStep) -> dict[str, int]:
    """Returns the channels that layers keep for a fraction of the MACs and one of the weights.

    Each group keeps as few as the stricter of the two demands. Together that would remove too
    many weights, so the fraction of weights is raised by bisection while the limit is met.

    Args:
        model: A Keras model.
        step: Both fractions, below 1.

    Returns:
        First layer of each group -> its channels.

    Raises:
        ValueError: One of the fractions can't be met.
    """
    assert step.weights is not None
    shared = shared_layers(model)
    least = _kept(by_savings(model, shared, target_macs=step.amount)[1])
    limit = step.weights * model.count_params()
    low, high, found = step.weights, 1.0, None
    for tried in range(HALVINGS):
        fraction = low if not tried else (low + high) / 2
        own = _kept(by_savings(model, shared, target_params=fraction)[1])
        sizes = {**own, **{name: min(size, own.get(name, size)) for name, size in least.items()}}
        _, report = prune_channels(model, sizes=sizes)
        if report.parameters[1] <= limit:
            low, found = fraction, sizes
        else:
            high = fraction
    assert found is not None  # the first one meets both
    return found


def _kept(report: ChannelPruningReport) -> dict[str, int]:
    """Returns the first layer of each pruned group -> the channels that it keeps."""
    return {g.makers[0]: g.after for g in report.groups if g.makers and g.after < g.before}


def dense_ranks(model: keras.Model, fraction: float) -> dict[str, int]:
    """Returns the ranks at which the large dense layers keep a fraction of their weights.

    Example:
        >>> model = keras.Sequential([keras.Input((64,)), keras.layers.Dense(64, name="d")])
        >>> dense_ranks(model, 0.5)
        {'d': 16}

    Args:
        model: A Keras model.
        fraction: Fraction of each layer's weights, in (0, 1).
    """
    found = [k for k in model_kernels(model)[0] if isinstance(k.layer, keras.layers.Dense)]
    least = LARGE_DENSE * sum(kernel.size for kernel in found)
    large = [kernel for kernel in found if kernel.size >= least]
    ranks = {kernel.path: int(fraction * kernel.size / sum(kernel.shape)) for kernel in large}
    return {name: rank for name, rank in ranks.items() if rank}


def block_hints(
    student: keras.Model, teacher: keras.Model, images: np.ndarray, weight: float = 1.0
) -> list[FeatureHint]:
    """Returns feature losses at the residual sums whose shape student and teacher share.

    Each is divided by the mean square of the teacher's feature, so that all weigh the same.

    Args:
        student: A compressed copy of the teacher, with the same layer names.
        teacher: The model before compression.
        images: Typical inputs, (examples, height, width, channels).
        weight: Weight of each loss, above 0.
    """
    own = {layer.name: layer for layer in student.layers}
    sums = [
        layer
        for layer in teacher.layers
        if type(layer).__name__ == "Add"
        and layer.name in own
        and own[layer.name].output.shape == layer.output.shape
    ]
    if not sums:
        return []
    outputs = [layer.output for layer in sums]
    features = keras.Model(teacher.inputs[0], outputs)(images.astype("float32"))
    values = keras.tree.flatten(features)
    squares = [float(keras.ops.mean(keras.ops.square(value))) for value in values]
    return [
        FeatureHint(layer.name, layer.name, weight=weight / square, project=False)
        for layer, square in zip(sums, squares, strict=True)
        if square > 0
    ]
