"""Training a network of a search together with its compression.

The number of epochs is the whole trial's, whatever is chosen, so that trials compare. Each step
of a :class:`tfnas.Compression` that trains has a sixth of them, at least one epoch; the
network's own training before them has the rest, at least one:

| step     | what happens                                  | learning rate at its start |
|----------|-----------------------------------------------|----------------------------|
| network  | trained as it is compiled                     | its own                    |
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

from tfnas.clustering.clustering_callback import ClusteringCallback
from tfnas.distillation.distiller import Distiller
from tfnas.graph.batchnorm import layers_of, recalibrate_batchnorm
from tfnas.graph.functional import clone
from tfnas.low_rank.factorize import factorize
from tfnas.pruning.mask_constraint import keep_zeros
from tfnas.pruning.pruning_callback import PruningCallback
from tfnas.quantization.quantize_aware import quantize_aware
from tfnas.quantization.spec import QuantSpec
from tfnas.schedules import polynomial
from tfnas.search_space.compression import Compression

PARTS = 6  # a step that trains has one of so many parts of the epochs
SLOWER = {"low_rank": 3.0, "sparsity": 3.0, "clusters": 9.0, "aware": 30.0}
RAMP = 0.5  # share of its epochs in which zeros grow
RENEWAL = 5  # steps of the optimizer between two renewals of clusters


class NotCompressible(ValueError):
    """A network that a technique does not take; the message says why."""


def epochs_of(compression: Compression, epochs: int) -> dict[str, int]:
    """Returns how many epochs the network and each step train.

    Example:
        >>> epochs_of(Compression("int8", sparsity=0.5, clusters=16), 12)
        {'network': 8, 'sparsity': 2, 'clusters': 2}

    Args:
        compression: What is done.
        epochs: Epochs of the whole, at least 1; more are taken where each part needs one.
    """
    part = max(1, epochs // PARTS)
    steps = dict.fromkeys(compression.steps, part)
    return {"network": max(1, epochs - sum(steps.values())), **steps}


def spec_of(compression: Compression) -> QuantSpec:
    """Returns the number formats of a compression, those of stages among them."""
    layers = compression.layer_weights
    spec = QuantSpec.of(compression.mode)
    return dataclasses.replace(spec, layers=layers) if layers else spec


def untrained_form(model: Any, compression: Compression) -> Any:
    """Returns a network with the layers that its file will have, before any training.

    Args:
        model: The network as it was built.
        compression: What will be done to it.

    Raises:
        NotCompressible: It can't be factorized so far; the message says how near one can get.
    """
    if compression.low_rank == 1:
        return model
    return _factorized(model, compression.low_rank, None)


@dataclasses.dataclass(frozen=True, eq=False)
class Compressed:
    """What came of a network.

    Args:
        plain: The float model, for what it costs.
        model: What is converted: `plain`, or a quantization-aware model of it.
        logs: What the last epoch reported.
    """

    plain: Any
    model: Any
    logs: dict[str, float]


@dataclasses.dataclass(frozen=True, eq=False)
class CompressedTraining:
    """Trains networks as their compression says.

    Args:
        fit: Trains a compiled model in place, called with the model and `epochs`,
            `initial_epoch` and `callbacks`; returns what Keras' `fit` returns.
        images: Typical inputs, a few hundred.
        teacher: The model, or the models, that is learned from; None where nothing distills.
        seed: Seed of draws.
        trained: Is told of the network when its own training has ended.
    """

    fit: Callable[..., Any]
    images: Any
    teacher: Any = None
    seed: int = 0
    trained: Callable[[Any], None] = lambda model: None

    def run(
        self, model: Any, compression: Compression, epochs: int, initial_epoch: int = 0
    ) -> Compressed:
        """Trains a compiled network and compresses it.

        Args:
            model: The network; it is trained in place.
            compression: What is done to it.
            epochs: Epochs of all together.
            initial_epoch: Epochs of all together in an earlier run, whose network this is: its
                own training goes on, all other steps are done again.

        Raises:
            NotCompressible: A technique does not take it.
        """
        job = _Job(self, model, compression, epochs_of(compression, epochs))
        if initial_epoch:
            # At least one epoch: it tells how many steps an epoch has.
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
    """One network on its way: which epoch it is in, how fast it learns."""

    def __init__(
        self, way: CompressedTraining, network: Any, compression: Compression, parts: dict[str, int]
    ) -> None:
        self.way, self.network, self.compression, self.parts = way, network, compression, parts
        self.epoch = 0
        self.rate = _rate(network.optimizer)
        self.steps = 0  # of the optimizer in an epoch; known once there was one
        self.logs: dict[str, float] = {}

    def train(self, model: Any, part: str, callbacks: Sequence[Any] = ()) -> None:
        """Trains for the epochs of a part, from the teacher too where that is chosen."""
        epochs, rate, trained = self.parts[part], None, model
        if part != "network":
            total = max(1, epochs * self.steps)
            rate = keras.optimizers.schedules.CosineDecay(self.rate / SLOWER[part], total)
        if self.compression.distill:
            with _refusals():
                trained = Distiller(self.way.teacher, model)
        if trained is not self.network:
            _compile_like(trained, self.network, rate)
        before = int(trained.optimizer.iterations)
        history = self.way.fit(
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
        """Layers as products of thinner ones."""
        thin = _factorized(model, self.compression.low_rank, self.way.images)
        if layers_of(thin, keras.layers.BatchNormalization):
            recalibrate_batchnorm(thin, self.way.images)
        self.train(thin, "low_rank")
        return thin

    def sparsity(self, model: Any) -> Any:
        """Zeros, the smallest weights of each layer; depthwise ones stay.

        A few dozen steps don't repair a layer that one threshold for all has emptied: factors
        of low rank, and depthwise kernels, have weights of another size than the others.
        """
        copy, first = clone(model), self.epoch * self.steps
        # A name that matches nothing is refused.
        alone = ("depthwise",) if layers_of(copy, keras.layers.DepthwiseConv2D) else ()
        steps = self.parts["sparsity"] * self.steps
        schedule = polynomial(
            self.compression.sparsity,
            begin=first,
            end=first + int(RAMP * steps),
            by="step",
            frequency=max(1, min(100, steps // 20)),
        )
        pruning = PruningCallback(schedule, exclude=alone, seed=self.way.seed)
        self.train(copy, "sparsity", [pruning])
        return copy

    def clusters(self, model: Any) -> Any:
        """Few values a kernel; zeros stay."""
        copy = clone(model)
        values = self.compression.clusters
        clustering = ClusteringCallback(values, RENEWAL, "step", seed=self.way.seed)
        self.train(copy, "clusters", [clustering])
        return copy

    def aware(self, model: Any) -> Any:
        """Training as the integer file computes, zeros and shared values kept."""
        with _refusals():
            trainable = quantize_aware(model, spec_of(self.compression), data=self.way.images)
        callbacks = []
        if self.compression.clusters:
            callbacks = [ClusteringCallback(None)]  # zeros stay too
        elif self.compression.sparsity:
            keep_zeros(trainable)
        self.train(trainable, "aware", callbacks)
        return trainable


@contextlib.contextmanager
def _refusals() -> Iterator[None]:
    """Tells apart what a technique refuses from what goes wrong in training."""
    try:
        yield
    except ValueError as error:
        raise NotCompressible(str(error)) from error


def _factorized(model: Any, share: float, images: Any) -> Any:
    with _refusals():
        return factorize(model, target_macs=share, data=images)[0]


def _rate(optimizer: Any) -> float:
    """The learning rate that an optimizer begins with."""
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    rate = inner._learning_rate
    if isinstance(rate, keras.optimizers.schedules.LearningRateSchedule):
        rate = rate(0)
    return float(rate)


def _compile_like(model: Any, network: Any, rate: Any = None) -> None:
    """Compiles a model as another one was, with an optimizer of its own.

    Args:
        model: What is compiled; a distiller has a loss of its own.
        network: What was compiled before.
        rate: The optimizer's schedule; None: as it was.
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
    """Returns a fresh optimizer with another learning rate.

    One that is set afterwards leaves a variable that no SavedModel finds: then no file.
    """
    optimizer = keras.optimizers.get(optimizer)
    inner = getattr(optimizer, "inner_optimizer", None)
    config = optimizer.get_config()
    if inner is not None:
        config["inner_optimizer"] = keras.optimizers.serialize(_with_rate(inner, rate))
    else:
        config["learning_rate"] = keras.optimizers.schedules.serialize(rate)
    return type(optimizer).from_config(config)
