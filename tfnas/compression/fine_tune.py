"""Fine-tuning of a model on data, with or without a teacher: the only one of whole models."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import keras

from tfnas.compression.fine_tune_settings import FineTuneSettings
from tfnas.compression.progress import Progress
from tfnas.compression.training_checkpoint import TrainingCheckpoint
from tfnas.data.examples import ExampleSet, mapped
from tfnas.graph.finite_loss import FiniteLoss
from tfnas.graph.tracing import TraceOnce
from tfnas.optimizers import Muon
from tfnas.runtime.failed_work import FailedWork
from tfnas.runtime.randomness import seed_layers, seeded
from tfnas.tasks.task import Distillation, Task

WARMUP = 0.03  # of the steps
FASTER = 1.5  # times Adam's learning rate, for Muon: docs/decisions/0014


class TrainingError(FailedWork):
    """An error of the training itself: no technique refuses the model, so nothing may go on."""


@contextlib.contextmanager
def training_errors() -> Iterator[None]:
    """Turns each ValueError of a training into a :class:`TrainingError`."""
    try:
        yield
    except ValueError as error:
        raise TrainingError(str(error)) from error


def training_steps(examples: ExampleSet, epochs: int, batch_size: int) -> int:
    """Returns the number of optimizer steps of :func:`fine_tune`."""
    return epochs * examples.steps(batch_size)


@training_errors()
def fine_tune(
    model: keras.Model,
    task: Task,
    examples: ExampleSet,
    settings: FineTuneSettings,
    *,
    distillation: Distillation | None = None,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    muon: bool = False,
    progress: Progress | None = None,
    checkpoint: TrainingCheckpoint | None = None,
) -> None:
    """Compiles a model and trains it in place.

    Adam, whose rate falls to 0 along a cosine. Whatever was drawn before, all that is drawn here
    follows from `settings.seed`, and the caller's random generators are as they were afterwards.

    Args:
        model: The model.
        task: What it is for.
        examples: The training examples.
        settings: Epochs, batch size, learning rate, augmentation and seed.
        distillation: What it learns from its teacher; None: nothing.
        callbacks: More callbacks.
        muon: Whether it is trained by :class:`tfnas.Muon`, after a short warmup: for a model that
            lost much accuracy at once.
        progress: Receives the end of each epoch.
        checkpoint: State of the training: one that was killed goes on; of a finished one no epoch
            is repeated, and the callbacks report on it. None: no state is kept.

    Raises:
        TrainingError: The state is of another training, Keras refuses loss, data or model, or the
            loss of an epoch is NaN or infinite.
    """
    if checkpoint is not None and not checkpoint.finished and not task.resumes:
        checkpoint = checkpoint.renewed()  # from the first epoch again
    if checkpoint is not None:
        checkpoint.restore_model(model)
    progress, epochs = progress or Progress(), settings.epochs
    done = 0 if checkpoint is None else checkpoint.epoch
    if done:
        progress.phase(f"  trained before: {done} of {epochs} epochs")
    steps = training_steps(examples, epochs, settings.batch_size)
    report_epoch = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: progress.epoch_ended(epoch + 1, epochs)
    )
    keep = [] if checkpoint is None else [checkpoint.callback(model, callbacks)]
    with seeded(settings.seed):
        if not done:
            seed_layers(model, settings.seed)
        trainer = task.trainer(model, _optimizer(settings.learning_rate, steps, muon), distillation)
        if not trainer.built:  # callbacks look at the layers of a built model
            trainer(mapped(keras.ops.convert_to_tensor, examples.first(1).x))
        batches = task.batches(
            examples,
            settings.batch_size,
            settings.seed,
            settings.augment,
            None if distillation is None else distillation.outputs,
        )
        order_epoch = keras.callbacks.LambdaCallback(
            on_epoch_begin=lambda epoch, logs: batches.start_at(epoch)
        )
        more = [*keep, order_epoch, report_epoch, TraceOnce()]
        task.train(trainer, batches, epochs, done, [FiniteLoss(), *callbacks, *more])
    if trainer is model and muon:  # so that Keras loads the saved model without tfnas
        task.trainer(model, keras.optimizers.Adam())
    if checkpoint is not None and not checkpoint.finished:
        checkpoint.finish(model)


def _optimizer(rate: float, steps: int, muon: bool) -> keras.optimizers.Optimizer:
    if not muon:
        return keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(rate, steps))
    warmup = int(WARMUP * steps)
    schedule = keras.optimizers.schedules.CosineDecay(
        0.0, steps - warmup, warmup_target=FASTER * rate, warmup_steps=warmup
    )
    return Muon(schedule)
