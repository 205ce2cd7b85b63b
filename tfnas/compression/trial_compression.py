"""Trains a network of a search and compresses it, in one trial.

All trials have the same number of epochs, whatever is chosen, so that they compare. Each step
of a :class:`tfnas.Compression` that trains has a sixth of them, at least one epoch; the
training of the uncompressed network has the rest, at least one:

| step     | what happens                                  | learning rate at its start |
|----------|-----------------------------------------------|----------------------------|
| network  | trained as it is compiled                     | as compiled                |
| low_rank | :func:`tfnas.factorize`, then training        | a third                    |
| sparsity | zeros grow over the first half, then stay     | a third                    |
| clusters | values are shared, renewed every few steps    | a ninth                    |
| aware    | :func:`tfnas.quantize_aware`, then training   | a thirtieth                |

The order is the one in which each keeps what the one before achieved
(:mod:`tfnas.graph.compatibility`). In each step after the first the rate falls to 0 along a cosine.
With a teacher all of them learn from it too.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import numpy as np

from tfnas.clustering.clustering_callback import ClusteringCallback
from tfnas.distillation.distiller import Distiller
from tfnas.graph.batchnorm import layers_of, recalibrate_batchnorm
from tfnas.graph.functional import clone
from tfnas.keras_private import learning_rate_or_schedule
from tfnas.low_rank.factorize import factorize
from tfnas.pruning.mask_constraint import keep_zeros
from tfnas.pruning.pruning_callback import PruningCallback
from tfnas.quantization.quantize_aware import quantize_aware
from tfnas.quantization.spec import QuantSpec
from tfnas.schedules import polynomial
from tfnas.search_space.compression import Compression

PARTS = 6  # a step that trains has a sixth of the epochs
SLOWER = {"low_rank": 3.0, "sparsity": 3.0, "clusters": 9.0, "aware": 30.0}
RAMP = 0.5  # fraction of the epochs in which sparsity grows
RENEWAL = 5  # optimizer steps between two assignments of weights to clusters


class NotCompressible(ValueError):
    """A technique refuses the network; the message says why."""


def epochs_of(compression: Compression, epochs: int) -> dict[str, int]:
    """Returns the number of epochs of the network and of each step.

    Example:
        >>> epochs_of(Compression("int8", sparsity=0.5, clusters=16), 12)
        {'network': 8, 'sparsity': 2, 'clusters': 2}

    Args:
        compression: The compression.
        epochs: Epochs of the trial, at least 1; more where each part needs one.
    """
    part = max(1, epochs // PARTS)
    steps = dict.fromkeys(compression.steps, part)
    return {"network": max(1, epochs - sum(steps.values())), **steps}


def spec_of(compression: Compression) -> QuantSpec:
    """Returns the number formats of a compression, with those of single stages.

    Args:
        compression: The compression.
    """
    layers = compression.layer_weights
    spec = QuantSpec.of(compression.mode)
    return dataclasses.replace(spec, layers=layers) if layers else spec


def untrained_form(model: keras.Model, compression: Compression) -> keras.Model:
    """Returns an untrained network with the layers of its compressed form.

    Args:
        model: The network as it was built.
        compression: The compression.

    Raises:
        NotCompressible: The network can't be factorized as far; the message says how far.
    """
    if compression.low_rank == 1:
        return model
    return _factorized(model, compression.low_rank, None)


@dataclasses.dataclass(frozen=True, eq=False)
class Compressed:
    """A trained and compressed network.

    Args:
        plain: The float model, for its costs.
        model: The model to convert: `plain`, or its quantization-aware copy.
        logs: The logs of the last epoch.
    """

    plain: keras.Model
    model: keras.Model
    logs: dict[str, float]


@dataclasses.dataclass(frozen=True, eq=False)
class CompressedTraining:
    """Trains and compresses networks.

    Args:
        fit: Trains a compiled model in place, called with the model and `epochs`,
            `initial_epoch` and `callbacks`; returns its `History`.
        images: A few hundred typical inputs, (examples, height, width, channels).
        teacher: The teacher model, or several; None where nothing is distilled.
        seed: Seed of random draws.
        trained: Called with the network when its own training has ended.
    """

    fit: Callable[..., Any]
    images: np.ndarray
    teacher: Any = None
    seed: int = 0
    trained: Callable[[Any], None] = lambda model: None

    def run(
        self, model: keras.Model, compression: Compression, epochs: int, initial_epoch: int = 0
    ) -> Compressed:
        """Trains a compiled network and compresses it.

        Args:
            model: The network; it is trained in place.
            compression: The compression.
            epochs: Epochs of all parts together.
            initial_epoch: Epochs of all parts together in an earlier run of this network: its
                own training continues, all other steps are repeated.

        Returns:
            The float model, the model to convert, and the last logs.

        Raises:
            NotCompressible: A technique refuses the network.
        """
        job = _Job(self, model, compression, epochs_of(compression, epochs))
        if initial_epoch:
            # At least one epoch is trained, to count the steps of an epoch.
            before = epochs_of(compression, initial_epoch)["network"]
            job.epoch = min(before, job.parts["network"] - 1)
            job.parts["network"] -= job.epoch
        job.train(model, "network")
        self.trained(model)
        plain = model
        for step in compression.steps:
            if step != "aware":
                plain = getattr(job, step)(plain)
        final = job.aware(plain) if compression.aware else plain
        return Compressed(plain, final, job.logs)


class _Job:
    """The state of one network: its current epoch and its learning rate."""

    def __init__(
        self,
        training: CompressedTraining,
        network: Any,
        compression: Compression,
        parts: dict[str, int],
    ) -> None:
        self.training, self.network, self.compression, self.parts = (
            training,
            network,
            compression,
            parts,
        )
        self.epoch = 0
        self.rate = _rate(network.optimizer)
        self.steps = 0  # optimizer steps of an epoch; known after the first epoch
        self.logs: dict[str, float] = {}

    def train(self, model: Any, part: str, callbacks: Sequence[Any] = ()) -> None:
        """Trains for the epochs of a part, with distillation where that is chosen."""
        epochs, rate, trained = self.parts[part], None, model
        if part != "network":
            total = max(1, epochs * self.steps)
            rate = keras.optimizers.schedules.CosineDecay(self.rate / SLOWER[part], total)
        if self.compression.distill:
            with _refusals():
                trained = Distiller(self.training.teacher, model)
        if trained is not self.network:
            _compile_like(trained, self.network, rate)
        before = int(trained.optimizer.iterations)
        history = self.training.fit(
            trained,
            epochs=self.epoch + epochs,
            initial_epoch=self.epoch,
            callbacks=list(callbacks),
        )
        if part == "network":
            self.steps = max(1, (int(trained.optimizer.iterations) - before) // epochs)
        self.epoch += epochs
        self.logs = {name: float(values[-1]) for name, values in history.history.items()}

    def low_rank(self, model: Any) -> Any:
        """Factorizes layers and trains the factors."""
        factorized = _factorized(model, self.compression.low_rank, self.training.images)
        if layers_of(factorized, keras.layers.BatchNormalization):
            recalibrate_batchnorm(factorized, self.training.images)
        self.train(factorized, "low_rank")
        return factorized

    def sparsity(self, model: Any) -> Any:
        """Prunes the smallest weights of each layer but depthwise ones, while training.

        Layer by layer, since factors of low rank have weights of another size than the others:
        a global threshold might empty a layer, which a few dozen steps don't repair.
        """
        copy, first = clone(model), self.epoch * self.steps
        # A pattern that matches no layer is refused.
        excluded = ("depthwise",) if layers_of(copy, keras.layers.DepthwiseConv2D) else ()
        steps = self.parts["sparsity"] * self.steps
        schedule = polynomial(
            self.compression.sparsity,
            begin=first,
            end=first + int(RAMP * steps),
            by="step",
            frequency=max(1, min(100, steps // 20)),
        )
        pruning = PruningCallback(schedule, exclude=excluded, seed=self.training.seed)
        self.train(copy, "sparsity", [pruning])
        return copy

    def clusters(self, model: Any) -> Any:
        """Clusters the weights of each kernel and trains the values; zeros stay."""
        copy = clone(model)
        values = self.compression.clusters
        clustering = ClusteringCallback(values, RENEWAL, "step", seed=self.training.seed)
        self.train(copy, "clusters", [clustering])
        return copy

    def aware(self, model: Any) -> Any:
        """Trains quantization-aware; zeros and shared values stay."""
        with _refusals():
            trainable = quantize_aware(model, spec_of(self.compression), data=self.training.images)
        callbacks = []
        if self.compression.clusters:
            callbacks = [ClusteringCallback(None)]  # keeps zeros too
        elif self.compression.sparsity:
            keep_zeros(trainable)
        self.train(trainable, "aware", callbacks)
        return trainable


@contextlib.contextmanager
def _refusals() -> Iterator[None]:
    """Turns a technique's refusal into :class:`NotCompressible`; errors of training stay errors."""
    try:
        yield
    except ValueError as error:
        raise NotCompressible(str(error)) from error


def _factorized(model: Any, target_macs: float, images: Any) -> Any:
    with _refusals():
        return factorize(model, target_macs=target_macs, data=images)[0]


def _rate(optimizer: Any) -> float:
    """Returns the learning rate at the first step of an optimizer."""
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    rate = learning_rate_or_schedule(inner)
    if isinstance(rate, keras.optimizers.schedules.LearningRateSchedule):
        rate = rate(0)
    return float(rate)


def _compile_like(model: Any, network: Any, rate: Any = None) -> None:
    """Compiles a model like another one, with a new optimizer.

    Args:
        model: The model to compile; a distiller keeps its own loss.
        network: The compiled model.
        rate: The learning rate or its schedule; None: the same.
    """
    config = network.get_compile_config()
    if not config:
        raise NotCompressible(f"model must be compiled by Keras' own compile, got {network.name!r}")
    arguments = keras.saving.deserialize_keras_object(config)
    if isinstance(model, Distiller):
        arguments = {k: v for k, v in arguments.items() if k not in ("loss", "loss_weights")}
    if rate is not None:
        arguments["optimizer"] = _with_rate(arguments["optimizer"], rate)
    model.compile(**arguments)


def _with_rate(optimizer: Any, rate: Any) -> Any:
    """Returns a new optimizer with another learning rate.

    Setting the rate of an existing one leaves an untracked variable, with which the export to a
    SavedModel fails.
    """
    optimizer = keras.optimizers.get(optimizer)
    inner = getattr(optimizer, "inner_optimizer", None)
    config = optimizer.get_config()
    if inner is not None:
        config["inner_optimizer"] = keras.optimizers.serialize(_with_rate(inner, rate))
    else:
        config["learning_rate"] = keras.optimizers.schedules.serialize(rate)
    return type(optimizer).from_config(config)
