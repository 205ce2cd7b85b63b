"""The settings of a weight-sharing search."""

from __future__ import annotations

import dataclasses

from tfnas.settings_fields import check_options, documented, option


@documented
@dataclasses.dataclass(frozen=True, kw_only=True)
class SupernetConfig:
    """How the shared weights of a :class:`tfnas.SupernetTuner` are trained and searched.

    Example:
        >>> import tfnas
        >>> tfnas.SupernetConfig(epochs=10, evaluations=200).random_members
        2
    """

    epochs: int = option(40, "epochs that a supernet's shared weights are trained for", low=1)
    seconds: float | None = option(
        None,
        "time limit of the training of a supernet's shared weights in s: after the first epoch "
        "their number is lowered to what the time allows, once; None: no limit",
        low=0,
        open="low",
    )
    random_members: int = option(
        2,
        "random networks that each step trains beside the smallest one and the largest, or if that "
        "breaks a limit or the target latency, one near these bounds",
        low=0,
    )
    learning_rate: float = option(
        0.01, "initial learning rate of Adam, which decays along a cosine", low=0, open="low"
    )
    label_weight: float = option(
        0.5,
        "weight of the labels in the loss of all networks but the first of a step, the largest; "
        "the rest is learned from its outputs",
        low=0,
        high=1,
    )
    evaluations: int = option(
        1000, "networks whose accuracy is computed with a supernet's shared weights", low=1
    )
    score_examples: int = option(
        2000, "validation examples that an accuracy is computed on, at most", low=1
    )
    calibration_examples: int = option(
        512, "training examples that BatchNormalization statistics are measured on", low=1
    )

    def __post_init__(self) -> None:
        check_options(self)
