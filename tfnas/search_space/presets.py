"""Presets of the search space: "microcontroller", "mobile" and "full"."""

from __future__ import annotations

import dataclasses

from tfnas.search_space.block_spec import IDENTITY, INVERTED_RESIDUAL
from tfnas.search_space.fixed_layers import FixedLayers
from tfnas.search_space.input_sizes import fitted_strides
from tfnas.search_space.stage_choices import BLOCKS, StageChoices


@dataclasses.dataclass(frozen=True)
class Preset:
    """The values of a preset.

    Args:
        stages: Choices of each stage.
        width_multipliers: Width multipliers to choose from.
        stem_filters: Filters of the first convolution at width 1.0.
        head_filters: Filters of the last convolution.
    """

    stages: tuple[StageChoices, ...]
    width_multipliers: tuple[float, ...]
    stem_filters: int
    head_filters: int


_WITH_IDENTITY = (*BLOCKS, IDENTITY)

PRESETS: dict[str, Preset] = {
    "microcontroller": Preset(
        stages=(
            StageChoices((8, 16), (1, 2), 1, _WITH_IDENTITY, (3, 5), (1, 2, 4)),
            StageChoices((16, 24), (1, 2), 2, BLOCKS, (3, 5), (2, 4, 6)),
            StageChoices((24, 32), (1, 2), 2, BLOCKS, (3, 5), (2, 4, 6)),
            StageChoices((32, 48), (1, 2), 2, (INVERTED_RESIDUAL,), (3, 5), (2, 4, 6)),
            StageChoices((48, 64), (1,), 1, (INVERTED_RESIDUAL, IDENTITY), (3, 5), (2, 4)),
        ),
        width_multipliers=(0.5, 0.75, 1.0),
        stem_filters=16,
        head_filters=64,
    ),
    "mobile": Preset(
        stages=(
            StageChoices((8, 16), (1,), 1, _WITH_IDENTITY, (3, 5), (1, 3)),
            StageChoices((16, 24), (1, 2, 3), 2, BLOCKS),
            StageChoices((24, 32, 40), (1, 2, 3), 2, BLOCKS),
            StageChoices((48, 64, 80), (1, 2, 3, 4), 2, (INVERTED_RESIDUAL,)),
            StageChoices((80, 96, 112), (1, 2, 3), 1, (INVERTED_RESIDUAL, IDENTITY)),
            StageChoices((128, 160), (1, 2, 3), 2, (INVERTED_RESIDUAL,)),
            StageChoices((240, 320), (1,), 1, (INVERTED_RESIDUAL, IDENTITY)),
        ),
        width_multipliers=(0.25, 0.35, 0.5),
        stem_filters=32,
        head_filters=320,
    ),
    "full": Preset(
        stages=(
            StageChoices((16, 24), (1, 2), 1, _WITH_IDENTITY, (3, 5, 7), (1, 3, 6)),
            StageChoices((16, 24, 32), (1, 2, 3, 4), 2, BLOCKS),
            StageChoices((24, 32, 40), (1, 2, 3, 4), 2, BLOCKS),
            StageChoices((48, 64, 80), (1, 2, 3, 4, 5), 2, BLOCKS),
            StageChoices((80, 96, 112), (1, 2, 3, 4), 1, _WITH_IDENTITY),
            StageChoices((128, 160, 192), (1, 2, 3, 4), 2, BLOCKS),
            StageChoices((240, 320, 400), (1, 2), 1, _WITH_IDENTITY),
        ),
        width_multipliers=(0.5, 0.75, 1.0, 1.3),
        stem_filters=32,
        head_filters=1280,
    ),
}


def fixed_layers(fixed: FixedLayers, preset: Preset, input_shape: tuple[int, ...]) -> FixedLayers:
    """Returns fixed layers without None: with the values of a preset and of the input's size.

    Args:
        fixed: The fixed layers.
        preset: The preset.
        input_shape: (height, width, channels) of images, or (steps, channels) of series.
    """
    fitted = {
        "stem_filters": preset.stem_filters,
        "stem_stride": fitted_strides(input_shape[:-1], [])[0],
        "head_filters": preset.head_filters,
    }
    missing = {name: value for name, value in fitted.items() if getattr(fixed, name) is None}
    return dataclasses.replace(fixed, **missing)
