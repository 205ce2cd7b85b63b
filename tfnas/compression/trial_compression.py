"""Trains a network of a search and compresses it, in one trial.

All trials have the same number of epochs, whatever is chosen, so that they compare. Each technique
that is chosen and trains has a sixth of them, at least one epoch; the training of the uncompressed
network has the rest, at least one. The techniques are those of all of tfnas, in one row
(:mod:`tfnas.compression.technique_row`), at a third of the network's own learning rate times the
technique's scale. In each the rate falls to 0 along a cosine. With a teacher all of them learn from
it too.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np

from tfnas.compression.fine_tune_settings import FineTuneSettings
from tfnas.compression.technique_context import Context
from tfnas.compression.technique_row import Step, check_order, context_of
from tfnas.compression.techniques.registry import OF_FIELDS, technique
from tfnas.compression.techniques.technique import Technique
from tfnas.compression.trial_refusals import (
    NotCompressible,
    errors_of_training,
    refusals,
)
from tfnas.data.examples import ArrayParts, Examples
from tfnas.distillation.distiller import Distiller
from tfnas.keras_private import learning_rate_or_schedule
from tfnas.low_rank.factorize import factorize
from tfnas.quantization.spec import QuantSpec
from tfnas.search_space.compression import Compression
from tfnas.tasks.image_classes import ImageClasses

PARTS = 6  # a technique has a sixth of the epochs
FINE_TUNING = 1 / 3  # of the network's own learning rate


def epochs_of(compression: Compression, epochs: int) -> dict[str, int]:
    """Returns the number of epochs of the network and of each step.

    Example:
        >>> epochs_of(Compression("int8", sparsity=0.5, clusters=16), 12)
        {'network': 8, 'sparsity': 2, 'clusters': 2}

    Args:
        compression: The compression.
        epochs: Epochs of the trial, at least 1; more where each part needs one.

    Returns:
        Name of the part -> its epochs; 0 for a technique that trains nothing.
    """
    part = max(1, epochs // PARTS)
    steps = {name: part * technique_of(name).trains for name in compression.steps}
    return {"network": max(1, epochs - sum(steps.values())), **steps}


def technique_of(part: str) -> Technique[Any]:
    """Returns the technique of a field of a :class:`Compression`, or of a name in its `more`.

    Args:
        part: The name.

    Raises:
        ValueError: There is none.
    """
    return technique(OF_FIELDS.get(part, part))


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
        targets: Targets of the images, (examples,) or as the network's loss takes them, for
            techniques that score by gradient; None: such a technique is refused.
    """

    fit: Callable[..., Any]
    images: np.ndarray
    teacher: Any = None
    seed: int = 0
    trained: Callable[[Any], None] = lambda model: None
    targets: Any = None

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
        row = row_of(compression)
        with refusals():
            _check_row(row, compression)
        job = _Job(self, model, compression, epochs_of(compression, epochs))
        if initial_epoch:
            # At least one epoch is trained, to count the steps of an epoch.
            before = epochs_of(compression, initial_epoch)["network"]
            job.epoch = min(before, job.parts["network"] - 1)
            job.parts["network"] -= job.epoch
        job.train(model, "network")
        self.trained(model)
        plain = final = model
        for part, step in row:
            final = job.apply(final, part, step)
            if not technique(step.technique).final:
                plain = final
        return Compressed(plain, final, job.logs)


def row_of(compression: Compression) -> list[tuple[str, Step]]:
    """Returns the techniques of a compression in their order, by the names of its fields.

    Example:
        >>> [(part, step.technique) for part, step in row_of(Compression("int8", sparsity=0.5))]
        [('sparsity', 'prune')]

    Args:
        compression: The compression.
    """
    found = []
    more = dict(compression.more)
    for part in compression.steps:
        own = technique_of(part)
        if part == "aware":
            spec = spec_of(compression)
            formats = {"mode": compression.mode, "layers": spec.layers}
            settings = own.settings(**formats, allow_float=True)
        else:
            amount = more[part] if part in more else getattr(compression, part)
            settings = own.for_amount(amount, brief=True)
            if own.final and compression.layer_weights:
                settings = dataclasses.replace(settings, layers=spec_of(compression).layers)
        found.append((own.rank, part, Step(own.name, settings)))
    return [(part, step) for _, part, step in sorted(found, key=lambda each: each[0])]


def _check_row(row: Sequence[tuple[str, Step]], compression: Compression) -> None:
    """Raises ValueError where the techniques do not go together, before anything is trained."""
    check_order([step.technique for _, step in row])
    for part, step in row:
        if technique(step.technique).final and step.settings.mode != compression.mode:
            raise ValueError(
                f"mode must be {step.settings.mode!r} with {part}, got {compression.mode!r}"
            )


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
        self.before: tuple[str, ...] = ()
        self.left: dict[str, int] = dict(parts)  # epochs that are not trained yet

    def apply(self, model: Any, part: str, step: Step) -> Any:
        """Applies a technique and trains for the epochs of its part."""
        targets = self.training.targets
        examples = Examples(self.training.images, () if targets is None else targets)
        settings = FineTuneSettings(
            epochs=self.parts[part],
            learning_rate=self.rate * FINE_TUNING,
            seed=self.training.seed,
        )
        context = _TrialContext(
            model,
            _TrialTask(self.network),
            ArrayParts("trial", examples, examples, examples),
            settings,
            before=self.before,
            job=self,
            part=part,
        )
        own = context_of(dataclasses.replace(step, epochs=self.parts[part]), context)
        with refusals():
            outcome = technique(step.technique).run(model, step.settings, own)
            if 0 < self.left[part] < self.parts[part]:
                raise ValueError(
                    f"{step.technique} must train all {self.parts[part]} epochs of its part of a "
                    f"trial, got {self.parts[part] - self.left[part]}"
                )
        self.before = (*self.before, step.technique)
        return outcome.model

    def train(
        self,
        model: Any,
        part: str,
        callbacks: Sequence[Any] = (),
        rate: float | None = None,
        epochs: int | None = None,
    ) -> None:
        """Trains for the epochs of a part or some, with distillation where that is chosen."""
        epochs = self.parts[part] if epochs is None else epochs
        schedule, trained = None, model
        if rate is not None:
            total = max(1, epochs * self.steps)
            schedule = keras.optimizers.schedules.CosineDecay(rate, total)
        if self.compression.distill:
            with refusals():
                trained = Distiller(
                    self.training.teacher, model, student_loss=getattr(self.network, "loss", None)
                )
        if trained is not self.network:
            _compile_like(trained, self.network, schedule)
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
        self.left[part] -= epochs
        self.logs = {name: float(values[-1]) for name, values in history.history.items()}


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class _TrialContext(Context):
    """Trains as the network was compiled, by the trial's own `fit`."""

    job: _Job
    part: str

    def steps(self) -> int:
        """Returns the number of optimizer steps of the part."""
        return self.job.parts[self.part] * self.job.steps

    @property
    def first_step(self) -> int:
        """The step at which the part begins: `fit` counts all parts together."""
        return self.job.epoch * self.job.steps

    def scoring(self) -> tuple[Any, Any]:
        """Returns inputs and targets for criteria that need gradients."""
        if self.job.training.targets is None:
            raise ValueError(
                "targets must be given where a technique scores by gradient, got None: pass y, or "
                "data that holds inputs and targets"
            )
        return super().scoring()

    def fine_tune(
        self,
        model: Any,
        callbacks: Sequence[Any] = (),
        *,
        epochs: int | None = None,
        **_: Any,
    ) -> None:
        """Trains for the epochs of the part, or one round of them, as the network was compiled."""
        left = self.job.left[self.part]
        epochs = left if epochs is None else epochs
        if not 0 < epochs <= left:
            raise ValueError(
                f"epochs of {self.part} must be from 1 to the {left} that are left of its part of "
                f"a trial, got {epochs}: all trials have the same number of epochs"
            )
        with errors_of_training():
            self.job.train(model, self.part, callbacks, self.settings.learning_rate, epochs)


class _TrialTask(ImageClasses):
    """Scores by the loss that the network was compiled with, whose targets the trial has."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network

    def criterion_loss(self, model: Any) -> Callable[[Any, Any], Any]:
        """Returns the network's own loss as one number; that of its output where it is no name."""
        loss = self.network.loss
        if not (isinstance(loss, str) or callable(loss)):
            return super().criterion_loss(model)
        function = keras.losses.get(loss)
        return lambda y, predictions: keras.ops.mean(function(y, predictions))


def _factorized(model: Any, target_macs: float, images: Any) -> Any:
    with refusals():
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
        arguments = {k: v for k, v in arguments.items() if k != "loss"}
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
