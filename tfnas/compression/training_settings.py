"""Training settings that several jobs share, and the checks of their fields."""

from __future__ import annotations

import dataclasses
from typing import Any

from tfnas.data.augmentation import check_augment


def check_whole_numbers(settings: Any, optional: bool = False, **minima: int) -> None:
    """Checks that fields of a settings record are whole numbers.

    Args:
        settings: The record.
        optional: Whether None is allowed.
        **minima: Name of a field -> its smallest value.

    Raises:
        ValueError: One of them is not.
    """
    for name, minimum in minima.items():
        value = getattr(settings, name)
        if value is None and optional:
            continue
        if not isinstance(value, int) or value < minimum:
            raise ValueError(f"{name} must be a whole number >= {minimum}, got {value!r}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """How a model is fine-tuned; the settings of each job extend this record.

    Args:
        epochs: Epochs of training.
        batch_size: Examples per training step.
        learning_rate: Learning rate of Adam at the start of its cosine decay.
        distill: Fraction of the loss that is distillation from the model before compression, in
            [0, 1]; 0: labels only.
        augment: Random changes of the training images: "flip" mirrors them, "shift" moves them
            by a few pixels.
        seed: Seed of all random draws, also of random layers that were given a seed, as
            `Dropout(0.5, seed=42)`. The caller's random generators are left as they are. On
            processors and GPUs whose sums depend on threads, the same weights need
            `tf.config.experimental.enable_op_determinism()` too.

    Raises:
        ValueError: An argument is outside its rule.
    """

    epochs: int
    batch_size: int = 64
    learning_rate: float = 1e-3
    distill: float = 0.0
    augment: tuple[str, ...] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        check_whole_numbers(self, epochs=0, batch_size=1, seed=0)
        if not self.learning_rate > 0:
            raise ValueError(f"learning_rate must be above 0, got {self.learning_rate!r}")
        if not 0 <= self.distill <= 1:
            raise ValueError(f"distill must be in [0, 1], got {self.distill!r}")
        check_augment(self.augment)
