"""How a model is fine-tuned."""

from __future__ import annotations

import dataclasses

from tfnas.data.augmentation_names import check_augment
from tfnas.settings_fields import check_options, documented, option


@documented
@dataclasses.dataclass(frozen=True, kw_only=True)
class FineTuneSettings:
    """How a model is fine-tuned after a technique changed it.

    The caller's random generators are left as they are. On processors and GPUs whose sums depend
    on threads, the same weights need `tf.config.experimental.enable_op_determinism()` beside the
    same seed.

    Example:
        >>> FineTuneSettings(epochs=3, distill=0.5).learning_rate
        0.001
    """

    epochs: int = option(help="epochs of training; 0: none", low=0)
    batch_size: int = option(64, "examples of a training step", low=1)
    learning_rate: float = option(
        1e-3, "initial learning rate of Adam, which decays along a cosine", low=0, open="low"
    )
    distill: float = option(
        0.0,
        "weight of the original model's outputs in the loss, from 0 to 1; 0: only labels",
        low=0,
        high=1,
    )
    augment: tuple[str, ...] = option(
        (), "augmentations of the training examples, for images flip and shift"
    )
    seed: int = option(0, "seed of all random numbers", low=0)

    def __post_init__(self) -> None:
        check_options(self)
        check_augment(self.augment)
