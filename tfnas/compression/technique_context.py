"""What techniques get beside the model: task, data, training settings, progress."""

from __future__ import annotations

import dataclasses
import functools
import json
import pathlib
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from tfnas.compression.fine_tune import fine_tune, training_errors, training_steps
from tfnas.compression.fine_tune_settings import FineTuneSettings
from tfnas.compression.progress import Progress
from tfnas.compression.training_checkpoint import TrainingCheckpoint
from tfnas.compression.training_curves import TrainingCurves
from tfnas.data.examples import Data, Nested
from tfnas.runtime.store import Record, damage_named
from tfnas.tasks.task import Distillation, Task

if TYPE_CHECKING:
    import keras
    import numpy as np

    from tfnas.distillation.feature_losses import FeatureHint

CALIBRATION = 300  # examples for ranges, batchnorm statistics and input moments
SCORED = 512  # examples for criteria by gradient
TRAININGS = "training"  # folder of the states of a job's trainings
DECIDED = 1  # version of the record of a decision


@dataclasses.dataclass(frozen=True, eq=False)
class Context:
    """What techniques get beside the model.

    Args:
        original: The model before compression: the teacher, and whose outputs count as right.
        task: What it is for.
        data: Its data.
        settings: How a technique's model is fine-tuned.
        progress: Receives phases and epochs.
        before: Names of the techniques before this one, whose results are kept.
        checkpoints: Folder of the states of trainings and of decisions, of one step of one job;
            None: what is killed is lost.
        scored: Examples for criteria by gradient.
        callbacks: The user's callbacks of each training.
        curves: Where the epochs of trainings with a state are written down; None: nowhere.
        teacher_outputs: Returns the original's cached outputs; the same for all contexts of a job.
    """

    original: keras.Model
    task: Task
    data: Data
    settings: FineTuneSettings
    progress: Progress = dataclasses.field(default_factory=Progress)
    before: tuple[str, ...] = ()
    checkpoints: pathlib.Path | None = None
    scored: int = SCORED
    callbacks: Sequence[keras.callbacks.Callback] = ()
    curves: TrainingCurves | None = None
    teacher_outputs: Callable[[], list[np.ndarray] | None] | None = None

    def __post_init__(self) -> None:
        if self.teacher_outputs is None:
            object.__setattr__(self, "teacher_outputs", functools.cache(self._teacher_outputs))

    def _teacher_outputs(self) -> list[np.ndarray] | None:
        settings = self.settings
        return self.task.teacher_outputs(
            self.original, self.data.train, settings.augment, settings.distill
        )

    @property
    def seed(self) -> int:
        """Seed of all draws."""
        return self.settings.seed

    def calibration(self, count: int = CALIBRATION) -> Nested:
        """Returns typical inputs, from all parts of the training examples."""
        return self.data.train.spread(count).x

    def scoring(self) -> tuple[Nested, Nested]:
        """Returns inputs and targets for criteria that need gradients."""
        examples = self.data.train.spread(self.scored)
        return examples.x, examples.y

    def steps(self) -> int:
        """Returns the number of optimizer steps of a fine-tuning."""
        return training_steps(self.data.train, self.settings.epochs, self.settings.batch_size)

    def training_text(self) -> str:
        """Returns how long a fine-tuning is, such as "3 epochs on 200 examples"."""
        return f"{self.settings.epochs} epochs on {len(self.data.train)} examples"

    @property
    def first_step(self) -> int:
        """Number of the fine-tuning's first step, as schedules by step count them."""
        return 0

    def fine_tune(
        self,
        model: keras.Model,
        callbacks: Sequence[keras.callbacks.Callback] = (),
        *,
        hints: Sequence[FeatureHint] = (),
        muon: bool = False,
        epochs: int | None = None,
        name: str = "training",
    ) -> None:
        """Fine-tunes a model in place.

        Args:
            model: The model.
            callbacks: Callbacks of the training.
            hints: Losses between layers of the original and of the model.
            muon: Whether Muon trains it.
            epochs: Epochs; None: those of the settings.
            name: Name of the training's state, another one for each training of a technique.
        """
        settings = self.settings
        if epochs is not None:
            settings = dataclasses.replace(settings, epochs=epochs)
        path = None if self.checkpoints is None else self.checkpoints / f"{name}.npz"
        drawn = [] if path is None or self.curves is None else [self.curves.callback(_title(path))]
        with training_errors():
            checkpoint = None if path is None else TrainingCheckpoint(path)
        fine_tune(
            model,
            self.task,
            self.data.train,
            settings,
            distillation=self._distillation(hints),
            callbacks=[*callbacks, *self.callbacks, *drawn],
            muon=muon,
            progress=self.progress,
            checkpoint=checkpoint,
        )

    def decided(self, name: str, compute: Callable[[], Any]) -> Any:
        """Returns a technique's decision: the one of the run before, where that was killed.

        A decision that is measured, or follows from sums that depend on threads, comes out
        differently a second time. The state of a training fits the first one only.

        Args:
            name: Name of the decision, another one for each decision of a technique.
            compute: Computes the decision, a value that JSON holds. Not called where one is kept.

        Returns:
            The value as JSON gives it back: lists for tuples.

        Raises:
            TrainingError: Another version of tfnas kept the decision.
        """
        if self.checkpoints is None:
            return json.loads(json.dumps(compute()))
        record = Record(self.checkpoints / f"{name}.json", "decision", DECIDED)
        if not record.exists():
            record.write({"value": compute()})
        with training_errors():
            values = record.read()
            with damage_named(record.path, "decision"):
                return values["value"]

    def _distillation(self, hints: Sequence[FeatureHint]) -> Distillation | None:
        weight = self.settings.distill
        if not weight:
            return None
        assert self.teacher_outputs is not None
        outputs = None if hints else self.teacher_outputs()
        return Distillation(self.original, weight, outputs, hints)

    def replace(self, **changes: Any) -> Context:
        """Returns a context with other fields."""
        return dataclasses.replace(self, **changes)


def _title(path: pathlib.Path) -> str:
    """Returns the name of a training by its state: the folders of its step, then its own name.

    Example:
        >>> _title(pathlib.Path("job/training/int8_trained-3_epochs/1_qat/training.npz"))
        'int8 trained: qat'
        >>> name = "prune_channels_0.5-float-3_epochs"
        >>> _title(pathlib.Path(f"job/training/{name}/1_prune_channels/training_2.npz"))
        'prune channels 0.5, training 2'
        >>> _title(pathlib.Path("job/training/2_prune_channels/round_1.npz"))
        'prune channels, round 1'
    """
    _, *folders = path.parent.parts[_place_of_trainings(path) :]
    plain = r"^\d+_|(-float)?-\d+_epochs$"
    names = [re.sub(plain, "", folder).replace("_", " ") for folder in folders]
    if len(names) > 1 and names[0].startswith(names[1]):
        del names[1]
    own = path.stem.replace("_", " ")
    return ": ".join(names or [own]) + (f", {own}" if names and own != "training" else "")


def _place_of_trainings(path: pathlib.Path) -> int:
    """Returns the place of the folder of all trainings among the parts of a path."""
    parts = path.parent.parts
    return max((i for i, part in enumerate(parts) if part == TRAININGS), default=0)
