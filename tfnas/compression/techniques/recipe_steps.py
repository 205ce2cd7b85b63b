"""Takes the steps of a recipe: from a model to one with a technique more, trained."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

from tfnas.clustering.clustering_callback import ClusteringCallback
from tfnas.compression.fine_tune import classification_loss, finetune, kept_answers, training_steps
from tfnas.compression.progress import Progress
from tfnas.compression.recipe import RecipeStep
from tfnas.compression.training_settings import TrainingSettings
from tfnas.data.datasets import DataSplit, spread
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

CALIBRATION = 300  # images behind ranges and moments
SCORED = 1024  # examples behind the criterion "taylor"
RAMP = 0.5  # share of the training in which zeros grow
NEAR = 0.85  # of the share asked for, that rounded sizes must not fall below
HALVINGS = 6  # looks at how many weights may stay beside a limit on costs
REBUILT = 2.5  # times as many epochs for what loses channels: more is lost at once
RENEWAL = 5  # steps between two renewals of clusters
THINNED = 0.1  # of all dense weights, that a dense layer must hold to be thinned


class NotPossible(RuntimeError):
    """A technique that a model does not take; the message says why."""


@contextlib.contextmanager
def _refusals() -> Iterator[None]:
    """What a technique refuses is no failure of the job."""
    try:
        yield
    except ValueError as error:
        raise NotPossible(str(error)) from error


@dataclasses.dataclass(frozen=True, eq=False)
class StepRunner:
    """What every step works with.

    Args:
        original: The model that was given; the teacher.
        split: Its data.
        settings: How a step trains.
        progress: Is told what happens.
    """

    original: Any
    split: DataSplit
    settings: TrainingSettings
    progress: Progress

    @functools.cached_property
    def _told(self) -> list[np.ndarray] | None:
        """What the original says of the training images."""
        return kept_answers(self.original, self.split, self.settings)

    def apply(self, model: Any, step: RecipeStep) -> Any:
        """Returns a model with one step more; the one given stays as it is.

        Args:
            model: What the steps before have made.
            step: The step.

        Raises:
            NotPossible: The step can't be taken; the message says why.
        """
        return getattr(self, f"_{step.technique}")(model, step)

    def _prune_channels(self, model: Any, step: RecipeStep) -> Any:
        with _refusals():
            smaller = self._without_channels(model, step)
        self._fit(smaller, longer=REBUILT, rebuild=True)
        return smaller

    def _without_channels(self, model: Any, step: RecipeStep) -> Any:
        targets = {"target_macs": step.amount, "target_params": step.weights}
        asked = {name: share for name, share in targets.items() if share and share < 1}
        options: dict[str, Any] = {
            "criterion": "taylor",
            "data": (spread(self.split.x_train, SCORED), spread(self.split.y_train, SCORED)),
            "loss": classification_loss(model),
            "seed": self.settings.seed,
        }
        if len(asked) > 1:
            return prune_channels(model, sizes=both_sizes(model, step), **options)[0]
        return by_savings(model, shared_makers(model), **asked, **options)[0]

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

    def _with_low_rank(self, model: Any, **wanted: Any) -> Any:
        images = spread(self.split.x_train, CALIBRATION)
        with _refusals():
            thin, _ = factorize(model, data=images, **wanted)
        if layers_of(thin, keras.layers.BatchNormalization):
            recalibrate_batchnorm(thin, images)
        self._fit(thin, hints=True)
        return thin

    def _prune(self, model: Any, step: RecipeStep) -> Any:
        copy = clone(model)
        steps = training_steps(self.split, self.settings.epochs, self.settings.batch_size)
        schedule = polynomial(
            step.amount, end=int(RAMP * steps), by="step", frequency=max(1, min(100, steps // 20))
        )
        self._fit(copy, [PruningCallback(schedule, scope="global")])
        return copy

    def _cluster(self, model: Any, step: RecipeStep) -> Any:
        # Normalization stays: of integers it is a factor a channel of the scale, and they are
        # as few as the values here.
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
        """Trains in place, distilling from the original."""
        typical = spread(self.split.x_train, CALIBRATION)
        taught = block_hints(model, self.original, typical) if hints else ()
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
            told=None if taught else self._told,
            hints=taught,
            progress=self.progress,
        )

    def aware(self, model: Any, mode: str, kept: tuple[str, ...]) -> Any:
        """Returns a model trained for integers.

        Args:
            model: A float model.
            mode: Number format.
            kept: Techniques of the steps before.
        """
        images = spread(self.split.x_train, CALIBRATION)
        with _refusals():
            trainable = quantize_aware(model, mode, data=images)
        callbacks = []
        if "cluster" in kept:  # Adam would move values whose gradients are not summed astray
            callbacks = [ClusteringCallback(None)]  # zeros stay too
        elif "prune" in kept:
            keep_zeros(trainable)
        self._fit(trainable, callbacks, slower=10.0)
        return trainable


def shared_makers(model: Any) -> list[str]:
    """Returns the layers whose channels others must have as well: between residual blocks."""
    _, found = prune_channels(model, target_macs=0.999)
    return [maker for g in found.groups if len(g.makers) > 1 for maker in g.makers]


def by_savings(model: Any, shared: list[str], **options: Any) -> tuple[Any, ChannelPruningReport]:
    """Fewer channels where that saves most, if it goes inside the blocks alone, and by fours.

    What runs between residual blocks is then the original's. Kernels compute 8 channels at a
    time, but where 8 is half of a layer the multiples of 4 leave more to choose from.

    Args:
        model: A Keras model.
        shared: Its :func:`shared_makers`.
        **options: What `prune_channels` takes, `target_macs` or `target_params` among them.

    Raises:
        ValueError: The target can't be met.
    """
    macs = "target_macs" in options
    share = options["target_macs" if macs else "target_params"]
    last = ValueError("no channel can go")
    for more in ({"exclude": shared, "round_to": 4}, {"exclude": shared}, {"round_to": 4}, {}):
        try:
            smaller, report = prune_channels(model, scope="saving", **options, **more)
        except ValueError as error:
            last = error
            continue
        before, after = report.macs if macs else report.parameters
        if "round_to" not in more or after >= NEAR * share * before:
            return smaller, report
    raise last


def both_sizes(model: Any, step: RecipeStep) -> dict[str, int]:
    """Returns the channels that layers keep for a share of the costs and one of the weights.

    Of each group as few as the stricter of the two asks for; then more weights than were asked
    for would go, so these are asked for less as far as that goes.

    Args:
        model: A Keras model.
        step: Both shares, below 1.

    Raises:
        ValueError: One of them can't be met.
    """
    assert step.weights is not None
    shared = shared_makers(model)
    least = _kept(by_savings(model, shared, target_macs=step.amount)[1])
    limit = step.weights * model.count_params()
    low, high, found = step.weights, 1.0, None
    for tried in range(HALVINGS):
        share = low if not tried else (low + high) / 2
        own = _kept(by_savings(model, shared, target_params=share)[1])
        sizes = {**own, **{name: min(size, own.get(name, size)) for name, size in least.items()}}
        _, report = prune_channels(model, sizes=sizes)
        if report.parameters[1] <= limit:
            low, found = share, sizes
        else:
            high = share
    assert found is not None  # the first one meets both
    return found


def _kept(report: ChannelPruningReport) -> dict[str, int]:
    """First layer of each group that loses channels -> how many it keeps."""
    return {g.makers[0]: g.after for g in report.groups if g.makers and g.after < g.before}


def dense_ranks(model: Any, share: float) -> dict[str, int]:
    """Returns the ranks at which the large dense layers keep a share of their weights.

    Example:
        >>> model = keras.Sequential([keras.Input((64,)), keras.layers.Dense(64, name="d")])
        >>> dense_ranks(model, 0.5)
        {'d': 16}

    Args:
        model: A Keras model.
        share: Of each layer's weights, in (0, 1).
    """
    found = [k for k in model_kernels(model)[0] if isinstance(k.layer, keras.layers.Dense)]
    least = THINNED * sum(kernel.size for kernel in found)
    large = [kernel for kernel in found if kernel.size >= least]
    ranks = {kernel.path: int(share * kernel.size / sum(kernel.shape)) for kernel in large}
    return {name: rank for name, rank in ranks.items() if rank}


def block_hints(student: Any, teacher: Any, images: Any, weight: float = 1.0) -> list[FeatureHint]:
    """Returns hints where a student still has all channels behind a sum of its teacher's.

    Each in units of what the teacher has there, so that all weigh the same.

    Args:
        student: A model that came from the teacher, layers named as there.
        teacher: The model.
        images: Typical inputs.
        weight: What each counts, above 0.
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
    found = keras.Model(teacher.inputs[0], outputs)(images.astype("float32"))
    values = keras.tree.flatten(found)
    squares = [float(keras.ops.mean(keras.ops.square(value))) for value in values]
    return [
        FeatureHint(layer.name, layer.name, weight=weight / square, project=False)
        for layer, square in zip(sums, squares, strict=True)
        if square > 0
    ]
