"""Training a given classifier further on a data split: what several commands share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfnas.compression.progress import Progress
from tfnas.compression.training_settings import TrainingSettings
from tfnas.data.augmentation import AugmentedImages, shuffled
from tfnas.data.datasets import DataSplit
from tfnas.distillation.cached_teacher import teacher_outputs
from tfnas.distillation.distiller import Distiller
from tfnas.distillation.feature_losses import FeatureHint
from tfnas.graph.functional import gives_probabilities
from tfnas.graph.tracing import TraceOnce
from tfnas.optimizers import Muon
from tfnas.runtime.randomness import seed_layers, seeded

WARMUP = 0.03  # of the steps
FASTER = 1.5  # Muon's rate for Adam's: BUILD_NOTES.md, 2026-11-27
LITTLE = 0.5  # of the loss: that of moved images the teacher is not asked again
KEPT = 2**30  # bytes of a teacher's answers that are kept instead of asked for again
TEMPERATURE = 1.0  # a model's own smaller self learns less from softened answers: BUILD_NOTES.md


def check_fits(model: Any, split: DataSplit) -> None:
    """Raises ValueError unless the model takes the split's images and tells its classes."""
    if len(model.inputs) != 1 or len(model.outputs) != 1:
        raise ValueError(
            f"model must have one input and one output, got {len(model.inputs)} and "
            f"{len(model.outputs)}"
        )
    takes, gives = tuple(model.inputs[0].shape[1:]), tuple(model.outputs[0].shape[1:])
    fits = len(takes) == 3 and all(
        want in (None, got) for want, got in zip(takes, split.input_shape, strict=True)
    )
    if not fits:
        raise ValueError(
            f"model must take the images of {split.name!r}, {split.input_shape}, got {takes}"
        )
    binary = split.num_classes == 2 and gives == (1,)
    if binary and not gives_probabilities(model):
        raise ValueError("model must end in a sigmoid where it has one unit, got logits")
    if not binary and (len(gives) != 1 or gives[0] < split.num_classes):
        raise ValueError(
            f"model must give one value for each of the {split.num_classes} classes of "
            f"{split.name!r}, got {gives}"
        )


def classification_loss(model: Any) -> keras.losses.Loss:
    """Returns the cross-entropy that fits the model's output, logits or probabilities."""
    logits = not gives_probabilities(model)
    if model.outputs[0].shape[-1] == 1:
        return keras.losses.BinaryCrossentropy(from_logits=logits)
    return keras.losses.SparseCategoricalCrossentropy(from_logits=logits)


def kept_answers(
    teacher: Any, split: DataSplit, settings: TrainingSettings
) -> list[np.ndarray] | None:
    """Returns what a teacher says of the training images, once for all epochs.

    Of moved images it says about the same, which is good enough where it counts little
    (BUILD_NOTES.md, 2026-11-27).

    Args:
        teacher: The model.
        split: The data.
        settings: How it is trained.

    Returns:
        Logits of the images and, where training mirrors them, of their mirror images; None where
        nothing asks for them, they are too many to keep, or it is to be asked in every step.
    """
    turned = "flip" in settings.augment
    size = 4 * len(split.x_train) * teacher.outputs[0].shape[-1] * (1 + turned)
    moved = "shift" in settings.augment and settings.distill > LITTLE
    if not settings.distill or moved or size > KEPT:
        return None
    images = split.x_train
    return [teacher_outputs(teacher, x) for x in (images, images[:, :, ::-1])[: 1 + turned]]


def training_steps(split: DataSplit, epochs: int, batch_size: int) -> int:
    """Returns the number of optimizer steps of :func:`finetune`."""
    return epochs * -(-len(split.x_train) // batch_size)


def finetune(
    model: Any,
    split: DataSplit,
    settings: TrainingSettings,
    *,
    teacher: Any,
    epochs: int | None = None,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    hints: Sequence[FeatureHint] = (),
    told: Sequence[np.ndarray] | None = None,
    rebuild: bool = False,
    progress: Progress | None = None,
) -> None:
    """Compiles a classifier and trains it on the training part, in place.

    Adam, whose rate falls to 0 along a cosine. With `settings.distill` the loss is in part
    what the teacher says (:class:`tfnas.Distiller`).

    Whatever was drawn before, all that is drawn here follows from `settings.seed`, and the
    caller's random generators are as they were afterwards.

    Args:
        model: The classifier.
        split: The data; its test part is not touched.
        settings: How it is trained.
        teacher: The model that it came from.
        epochs: Number of epochs where it is another than the settings'.
        callbacks: More callbacks.
        hints: What of the teacher's inside the model learns too, with `settings.distill`.
        told: The teacher's :func:`kept_answers`; None: they are asked for, before the first epoch,
            or in each step where there are hints.
        rebuild: Whether much was lost at once: with :class:`tfnas.Muon`, after a short warmup.
        progress: Is told when an epoch has ended.
    """
    epochs = settings.epochs if epochs is None else epochs
    steps = training_steps(split, epochs, settings.batch_size)
    progress = progress or Progress()
    if settings.distill and not hints and told is None:
        told = kept_answers(teacher, split, settings)
    news = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: progress.epoch_ended(epoch + 1, epochs)
    )
    trained, loss = model, classification_loss(model)
    with seeded(settings.seed):
        seed_layers(model, settings.seed)
        if settings.distill:
            asked = teacher if told is None else None
            trained = Distiller(asked, model, 1 - settings.distill, TEMPERATURE, features=hints)
            loss = None
        trained.compile(
            _optimizer(settings.learning_rate, steps, rebuild),
            loss,
            metrics=["accuracy"],
            jit_compile=False,  # three times slower on a CPU, see BUILD_NOTES.md
        )
        trained.fit(
            _batches(split, settings, told if settings.distill else None),
            epochs=epochs,
            shuffle=False,  # the batches shuffle themselves
            verbose=0,
            callbacks=[*callbacks, news, TraceOnce()],
        )
    if trained is model and rebuild:  # so that Keras loads what is saved of it
        model.compile(keras.optimizers.Adam(), loss, metrics=["accuracy"], jit_compile=False)


def _optimizer(rate: float, steps: int, rebuild: bool) -> keras.optimizers.Optimizer:
    if not rebuild:
        return keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(rate, steps))
    warmup = int(WARMUP * steps)
    schedule = keras.optimizers.schedules.CosineDecay(
        0.0, steps - warmup, warmup_target=FASTER * rate, warmup_steps=warmup
    )
    return Muon(schedule)


def _batches(
    split: DataSplit, settings: TrainingSettings, told: Sequence[np.ndarray] | None
) -> tf.data.Dataset:
    """What `fit` is given."""
    x, y, size = split.x_train, split.y_train, settings.batch_size
    if not settings.augment:
        return shuffled((x, y if told is None else (y, told[0])), size, settings.seed)
    return AugmentedImages(x, y, settings.augment, size, settings.seed, told).dataset()
