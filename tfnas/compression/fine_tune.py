"""Fine-tuning of a classifier on a data split, with or without distillation."""

from __future__ import annotations

from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf

from tfnas.compression.progress import Progress
from tfnas.compression.training_settings import TrainingSettings
from tfnas.data.augmentation import AugmentedImages, shuffled
from tfnas.data.data_split import DataSplit
from tfnas.distillation.cached_teacher import teacher_outputs
from tfnas.distillation.distiller import Distiller
from tfnas.distillation.feature_losses import FeatureHint
from tfnas.graph.output_activation import gives_probabilities
from tfnas.graph.tracing import TraceOnce
from tfnas.optimizers import Muon
from tfnas.runtime.randomness import seed_layers, seeded

WARMUP = 0.03  # of the steps
FASTER = 1.5  # times Adam's learning rate, for Muon: BUILD_NOTES.md, 2026-11-27
LITTLE = 0.5  # of the loss: up to here moved images reuse the teacher's logits of the unmoved
CACHED = 2**30  # bytes of a teacher's logits that are cached at most
TEMPERATURE = 1.0  # a compressed model learns less from softened logits: BUILD_NOTES.md


def check_fits(model: keras.Model, split: DataSplit) -> None:
    """Checks that a classifier fits the images and the classes of a data split.

    Args:
        model: The classifier.
        split: The data.

    Raises:
        ValueError: Its input or its output does not fit.
    """
    if len(model.inputs) != 1 or len(model.outputs) != 1:
        raise ValueError(
            f"model must have one input and one output, got {len(model.inputs)} and "
            f"{len(model.outputs)}"
        )
    input_shape, output_shape = tuple(model.inputs[0].shape[1:]), tuple(model.outputs[0].shape[1:])
    fits = len(input_shape) == 3 and all(
        size in (None, actual) for size, actual in zip(input_shape, split.input_shape, strict=True)
    )
    if not fits:
        raise ValueError(
            f"model must take the images of {split.name!r}, {split.input_shape}, got {input_shape}"
        )
    binary = split.num_classes == 2 and output_shape == (1,)
    if binary and not gives_probabilities(model):
        raise ValueError("model must end in a sigmoid where it has one unit, got logits")
    if not binary and (len(output_shape) != 1 or output_shape[0] < split.num_classes):
        raise ValueError(
            f"model must give one value for each of the {split.num_classes} classes of "
            f"{split.name!r}, got {output_shape}"
        )


def classification_loss(model: keras.Model) -> keras.losses.Loss:
    """Returns the cross-entropy that fits the model's output, logits or probabilities."""
    logits = not gives_probabilities(model)
    if model.outputs[0].shape[-1] == 1:
        return keras.losses.BinaryCrossentropy(from_logits=logits)
    return keras.losses.SparseCategoricalCrossentropy(from_logits=logits)


def cached_teacher_logits(
    teacher: keras.Model, split: DataSplit, settings: TrainingSettings
) -> list[np.ndarray] | None:
    """Returns a teacher's logits of the training images, computed once for all epochs.

    Images that augmentation shifts reuse the logits of the unshifted image, which is good enough
    where distillation is at most half of the loss (BUILD_NOTES.md, 2026-11-27).

    Args:
        teacher: The model.
        split: The data.
        settings: How the student is trained.

    Returns:
        Logits of the images, (examples, classes), and, where training mirrors them, of their
        mirror images; None where nothing is distilled, where they would take too much memory, or
        where the teacher must run in every step.
    """
    flipped = "flip" in settings.augment
    size = 4 * len(split.x_train) * teacher.outputs[0].shape[-1] * (1 + flipped)
    shifted = "shift" in settings.augment and settings.distill > LITTLE
    if not settings.distill or shifted or size > CACHED:
        return None
    images = split.x_train
    return [teacher_outputs(teacher, x) for x in (images, images[:, :, ::-1])[: 1 + flipped]]


def training_steps(split: DataSplit, epochs: int, batch_size: int) -> int:
    """Returns the number of optimizer steps of :func:`finetune`."""
    return epochs * -(-len(split.x_train) // batch_size)


def finetune(
    model: keras.Model,
    split: DataSplit,
    settings: TrainingSettings,
    *,
    teacher: keras.Model,
    epochs: int | None = None,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    hints: Sequence[FeatureHint] = (),
    teacher_logits: Sequence[np.ndarray] | None = None,
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
        settings: Epochs, batch size, learning rate, distillation, augmentation and seed.
        teacher: The model before compression; the teacher of the distillation.
        epochs: Number of epochs instead of the settings'.
        callbacks: More callbacks.
        hints: Feature losses between layers of teacher and model, with `settings.distill`.
        teacher_logits: The teacher's :func:`cached_teacher_logits`; None: they are computed before
            the first epoch, or in each step where there are hints.
        rebuild: Whether the model lost much accuracy at once and is trained by
            :class:`tfnas.Muon`, after a short warmup.
        progress: Receives the end of each epoch.
    """
    epochs = settings.epochs if epochs is None else epochs
    steps = training_steps(split, epochs, settings.batch_size)
    progress = progress or Progress()
    if settings.distill and not hints and teacher_logits is None:
        teacher_logits = cached_teacher_logits(teacher, split, settings)
    report_epoch = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: progress.epoch_ended(epoch + 1, epochs)
    )
    trained, loss = model, classification_loss(model)
    with seeded(settings.seed):
        seed_layers(model, settings.seed)
        if settings.distill:
            live_teacher = teacher if teacher_logits is None else None
            trained = Distiller(
                live_teacher, model, 1 - settings.distill, TEMPERATURE, features=hints
            )
            loss = None
        trained.compile(
            _optimizer(settings.learning_rate, steps, rebuild),
            loss,
            metrics=["accuracy"],
            jit_compile=False,  # three times slower on a CPU, see BUILD_NOTES.md
        )
        trained.fit(
            _batches(split, settings, teacher_logits if settings.distill else None),
            epochs=epochs,
            shuffle=False,  # the batches shuffle themselves
            verbose=0,
            callbacks=[*callbacks, report_epoch, TraceOnce()],
        )
    if trained is model and rebuild:  # so that Keras loads the saved model without tfnas
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
    split: DataSplit, settings: TrainingSettings, teacher_logits: Sequence[np.ndarray] | None
) -> tf.data.Dataset:
    """Returns the training batches of `fit`, with the teacher's logits where there are some."""
    x, y, size = split.x_train, split.y_train, settings.batch_size
    if not settings.augment:
        return shuffled(
            (x, y if teacher_logits is None else (y, teacher_logits[0])), size, settings.seed
        )
    return AugmentedImages(x, y, settings.augment, size, settings.seed, teacher_logits).dataset()
