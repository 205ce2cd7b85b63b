"""The choices of one stage of a network, and the decisions that follow from them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from tfnas.search_space.block_spec import (
    FUSED_INVERTED_RESIDUAL,
    IDENTITY,
    INVERTED_RESIDUAL,
    BlockSpec,
)
from tfnas.search_space.compression_choices import CompressionSpace
from tfnas.search_space.input_sizes import fitted_strides
from tfnas.search_space.search_space import Decision

BLOCKS = (INVERTED_RESIDUAL, FUSED_INVERTED_RESIDUAL)  # kinds that have weights
SEARCHED = ("repeats", "kernel", "expansion", "filters")
_CHOICES_OF = {
    "repeats": "repeats",
    "kernel": "kernels",
    "expansion": "expansions",
    "filters": "filters",
}


@dataclasses.dataclass(frozen=True)
class StageChoices:
    """The choices of a stage; a field with one choice is fixed.

    Example:
        >>> StageChoices(filters=(16, 24), stride=2).kernels
        (3, 5, 7)

    Args:
        filters: Output channels at width 1.0.
        repeats: Numbers of blocks.
        stride: Stride of the first block (not searched).
        kinds: Block types; "identity" (the stage is left out) only with a `stride` of 1.
        kernels: Kernel sizes.
        expansions: Expansion factors.

    Raises:
        ValueError: A choice is outside the rule of :class:`BlockSpec`.

    References:
        Tan et al., "MnasNet", CVPR 2019, section 4 (choices of each block).
    """

    filters: tuple[int, ...]
    repeats: tuple[int, ...] = (1, 2, 3)
    stride: int = 1
    kinds: tuple[str, ...] = BLOCKS
    kernels: tuple[int, ...] = (3, 5, 7)
    expansions: tuple[int, ...] = (3, 6)

    def __post_init__(self) -> None:
        for name in ("filters", "repeats", "kinds", "kernels", "expansions"):
            value = getattr(self, name)
            if isinstance(value, str) or not isinstance(value, Sequence) or not value:
                raise ValueError(f"{name} must be a sequence of choices, got {value!r}")
            object.__setattr__(self, name, tuple(value))
        if IDENTITY in self.kinds and self.stride != 1:
            raise ValueError(f"kinds must not hold 'identity' with a stride of {self.stride}")
        for kind in self.kinds:
            BlockSpec.identity() if kind == IDENTITY else BlockSpec(kind, self.filters[0])
        for name in ("filters", "repeats", "kernels", "expansions"):
            for choice in getattr(self, name):  # BlockSpec checks its fields
                field = {"kernels": "kernel", "expansions": "expansion"}.get(name, name)
                BlockSpec(**{"filters": 8, "stride": self.stride, field: choice})


def stage_decisions(
    index: int, stage: StageChoices, compression: CompressionSpace | None
) -> list[Decision]:
    """Returns the decisions of a stage, its kind first.

    Args:
        index: Number of the stage, from 1.
        stage: Its choices.
        compression: Choices of the compression, which may add one on the stage's weights.
    """
    kind = f"stage{index}_kind"
    blocks = tuple(choice for choice in stage.kinds if choice != IDENTITY)
    details = [
        Decision(f"stage{index}_{field}", getattr(stage, _CHOICES_OF[field]), kind, blocks)
        for field in SEARCHED
    ]
    weights = () if compression is None else compression.stage_decisions(index, kind, blocks)
    return [Decision(kind, stage.kinds), *details, *weights]


def block_of(index: int, stage: StageChoices, values: Mapping[str, Any]) -> BlockSpec:
    """Returns the stage that decided values describe.

    Args:
        index: Number of the stage, from 1.
        stage: Its choices.
        values: Values by the names of decisions.
    """
    kind = values[f"stage{index}_kind"]
    if kind == IDENTITY:
        return BlockSpec.identity()
    fields = {field: values[f"stage{index}_{field}"] for field in SEARCHED}
    return BlockSpec(kind=kind, stride=stage.stride, **fields)


def fitted_stages(
    stages: Sequence[StageChoices], input_shape: tuple[int, ...]
) -> tuple[StageChoices, ...]:
    """Returns stages with strides that suit small images and short series.

    Args:
        stages: The stages.
        input_shape: (height, width, channels) of images, or (steps, channels) of series.
    """
    _, strides = fitted_strides(input_shape[:-1], [stage.stride for stage in stages])
    return tuple(
        dataclasses.replace(stage, stride=stride)
        for stage, stride in zip(stages, strides, strict=True)
    )
