"""The search space of MobileNetV2-like networks: stem, stages of inverted residuals, head.

Start from a preset and change only what you need:

    space = tfnas.MobileNetV2Space((32, 32, 3), 10, preset="mobile")

- "microcontroller": four narrow stages, for tens of kilobytes;
- "mobile": MobileNetV2's seven stages at reduced width;
- "full": MobileNetV2's seven stages around their full width, with MobileNetV2 1.0 at 224x224
  among them.

Presets downsample small images less: below 64 pixels a side the stem has stride 1, and a stage has
stride 2 only if its input has more than 4 pixels a side.
"""

from __future__ import annotations

import dataclasses
import numbers
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tfnas.search_space.architecture import (
    FUSED_INVERTED_RESIDUAL,
    IDENTITY,
    INVERTED_RESIDUAL,
    Architecture,
    BlockSpec,
    fitted_strides,
)
from tfnas.search_space.compression import Compression
from tfnas.search_space.compression_choices import MODE, CompressionSpace
from tfnas.search_space.search_space import (
    ConditionedDecision,
    Decision,
    DecisionSpace,
    Values,
    combinations,
)

if TYPE_CHECKING:
    import keras

_BLOCKS = (INVERTED_RESIDUAL, FUSED_INVERTED_RESIDUAL)


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
    """

    filters: tuple[int, ...]
    repeats: tuple[int, ...] = (1, 2, 3)
    stride: int = 1
    kinds: tuple[str, ...] = _BLOCKS
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


class MobileNetV2Space(DecisionSpace):
    """A search space of MobileNetV2-like networks for images of one shape.

    Example:
        >>> import numpy as np, tfnas
        >>> space = tfnas.MobileNetV2Space((28, 28, 1), 10, preset="microcontroller")
        >>> model = space.build(space.sample(np.random.default_rng(0)))

    Args:
        input_shape: (height, width, channels) of the raw images, pixels 0 to 255.
        num_classes: Number of outputs.
        preset: "microcontroller", "mobile" or "full"; the defaults of the arguments below.
        stages: Choices of each stage. Their strides are used as they are, also for small images.
        width_multipliers: Width multipliers to choose from.
        resolutions: Heights in pixels to choose from; the model resizes its input and keeps the
            aspect ratio. Default: the height of the input.
        stem_filters: Filters of the first convolution at width 1.0.
        stem_stride: Stride of the first convolution. Default: 2 for images of at least 64 pixels a
            side, else 1.
        head_filters: Filters of the last convolution.
        dropout: Rate of the dropout before the classifier.
        batchnorm_momentum: Momentum of all BatchNormalization layers. With the default of 0.9 the
            statistics settle within 50 steps, also in a short training.
        compression: Choices of pruning, clustering, low rank, number formats and distillation;
            None: compression is not searched.

    Raises:
        ValueError: An argument is outside its rule; the message names it.

    References:
        Sandler et al., "MobileNetV2", CVPR 2018; Tan et al., "EfficientNetV2", ICML 2021
        (the fused block).
    """

    def __init__(
        self,
        input_shape: tuple[int, int, int],
        num_classes: int,
        preset: str = "mobile",
        *,
        stages: Sequence[StageChoices] | None = None,
        width_multipliers: Sequence[float] | None = None,
        resolutions: Sequence[int] | None = None,
        stem_filters: int | None = None,
        stem_stride: int | None = None,
        head_filters: int | None = None,
        dropout: float = 0.1,
        batchnorm_momentum: float = 0.9,
        compression: CompressionSpace | None = None,
    ):
        if not isinstance(preset, str) or preset not in PRESETS:
            raise ValueError(f"preset must be one of {', '.join(PRESETS)}, got {preset!r}")
        if not _numbers([batchnorm_momentum]) or not 0.0 <= batchnorm_momentum < 1.0:
            raise ValueError(f"batchnorm_momentum must be in [0, 1), got {batchnorm_momentum!r}")
        if compression is not None and not isinstance(compression, CompressionSpace):
            raise ValueError(f"compression must be a CompressionSpace, got {compression!r}")
        self.compression = compression
        defaults = PRESETS[preset]
        probe = Architecture(input_shape, num_classes, (BlockSpec(filters=8),), dropout=dropout)
        self.input_shape = probe.input_shape
        self.num_classes = probe.num_classes
        self.dropout = probe.dropout
        self.batchnorm_momentum = float(batchnorm_momentum)
        self.stem_filters = defaults.stem_filters if stem_filters is None else stem_filters
        self.head_filters = defaults.head_filters if head_filters is None else head_filters
        fitted_stem = fitted_strides(self.input_shape, [])[0]
        self.stem_stride = fitted_stem if stem_stride is None else stem_stride
        if stages is not None and not isinstance(stages, Sequence):
            raise ValueError(f"stages must be a sequence of StageChoices, got {stages!r}")
        self.stages = (
            _fitted(defaults.stages, self.input_shape) if stages is None else tuple(stages)
        )
        if not self.stages or not all(isinstance(stage, StageChoices) for stage in self.stages):
            raise ValueError(f"stages must be a sequence of StageChoices, got {stages!r}")
        if all(IDENTITY in stage.kinds for stage in self.stages):
            raise ValueError("stages must hold one without 'identity' among its kinds, got none")
        for name, value in (("width_multipliers", width_multipliers), ("resolutions", resolutions)):
            if value is not None and not _numbers(value):
                raise ValueError(f"{name} must be a sequence of numbers, got {value!r}")
        widths = tuple(
            defaults.width_multipliers if width_multipliers is None else width_multipliers
        )
        heights = tuple(self.input_shape[:1] if resolutions is None else resolutions)
        self.decisions = (
            Decision("width_multiplier", tuple(float(width) for width in widths)),
            Decision("resolution", heights),
            *(() if compression is None else compression.decisions()),
            *(d for i, s in enumerate(self.stages, 1) for d in _stage_decisions(i, s, compression)),
        )
        for width in widths:  # Architecture checks its fields
            self._architecture((BlockSpec(filters=8),), width, heights[0])
        for height in heights:
            self._architecture((BlockSpec(filters=8),), widths[0], height)

    @property
    def size(self) -> int:
        """The exact number of different architectures (descriptions), a Python integer."""
        if self.compression is None or not self.compression.stage_weights:
            return combinations(self.decisions)
        # The decisions on the weights of stages depend on the mode too, so modes are counted apart.
        return sum(combinations(self._decisions_of(mode)) for mode in self.compression.modes)

    def _decisions_of(self, mode: str) -> list[Decision]:
        """The decisions that can be active with a mode."""
        decisions = []
        for decision in self.decisions:
            if decision.name == MODE:
                decisions.append(dataclasses.replace(decision, choices=(mode,)))
            elif (
                not isinstance(decision, ConditionedDecision)
                or mode in dict(decision.conditions)[MODE]
            ):
                decisions.append(decision)
        return decisions

    def from_values(self, values: Mapping[str, Any]) -> Architecture:
        """Returns the architecture of decided values; inactive ones are ignored.

        Args:
            values: Values by the names of decisions.

        Raises:
            ValueError: A decision is missing or its value is not among the choices.
        """
        decided: Values = {}
        for decision in self.decisions:
            if not decision.active(decided):
                continue
            if decision.name not in values:
                raise ValueError(f"values must hold {decision.name}, got {sorted(values)}")
            if values[decision.name] not in decision.choices:
                raise ValueError(
                    f"{decision.name} must be one of {decision.choices}, "
                    f"got {values[decision.name]!r}"
                )
            decided[decision.name] = values[decision.name]
        blocks = tuple(_block(i, stage, decided) for i, stage in enumerate(self.stages, 1))
        choices = self.compression
        compression = None if choices is None else choices.of(decided, len(self.stages))
        width, resolution = decided["width_multiplier"], decided["resolution"]
        return self._architecture(blocks, width, resolution, compression)

    def values(self, arch: Architecture) -> Values:
        """Returns the values of the active decisions of an architecture, by name.

        Args:
            arch: The architecture.

        Raises:
            ValueError: The architecture is not in the space; the message names the difference.
        """
        values: Values = {
            "width_multiplier": arch.width_multiplier,
            "resolution": arch.working_resolution[0],
        }
        if self.compression is not None:
            values |= self.compression.values(arch.compression)
        for i, block in enumerate(arch.stages, 1):
            values[f"stage{i}_kind"] = block.kind
            if block.kind != IDENTITY:
                for field in _SEARCHED:
                    values[f"stage{i}_{field}"] = getattr(block, field)
        if len(arch.stages) == len(self.stages):
            rebuilt = self.from_values(values)
            for name in (field.name for field in dataclasses.fields(arch)):
                if getattr(rebuilt, name) != getattr(arch, name):
                    raise ValueError(
                        f"{name} of this space is {getattr(rebuilt, name)!r}, "
                        f"got {getattr(arch, name)!r}"
                    )
            return values
        raise ValueError(f"stages of this space are {len(self.stages)}, got {len(arch.stages)}")

    def __contains__(self, arch: object) -> bool:
        if not isinstance(arch, Architecture):
            return False
        try:
            self.values(arch)
        except ValueError:
            return False
        return True

    def build(self, arch: Architecture) -> keras.Model:
        """Builds the untrained Keras 3 model of an architecture, which takes raw pixels.

        Args:
            arch: An architecture for this space's input shape and classes; it need not
                be in the space.

        Returns:
            A functional `keras.Model`; input (batch, height, width, channels) with values
            0 to 255, output (batch, num_classes) with class probabilities.

        Raises:
            ValueError: The input shape or the number of classes differs from the space's.
        """
        from tfnas.search_space.blocks import build_model

        for name in ("input_shape", "num_classes"):
            if getattr(arch, name) != getattr(self, name):
                raise ValueError(
                    f"{name} must be {getattr(self, name)} in this space, got {getattr(arch, name)}"
                )
        return build_model(arch, self.batchnorm_momentum)

    def hypermodel(self, **compile_arguments: Any) -> Any:
        """Returns the space as a `keras_tuner.HyperModel`, for any keras_tuner Tuner.

        Example:
            >>> import keras_tuner, tfnas
            >>> space = tfnas.MobileNetV2Space((28, 28, 1), 10)
            >>> hypermodel = space.hypermodel(optimizer="adam")
            >>> model = hypermodel.build(keras_tuner.HyperParameters())

        Args:
            **compile_arguments: As for `keras.Model.compile`; see
                :class:`tfnas.search_space.hypermodel.SpaceHyperModel` for the defaults.
        """
        from tfnas.search_space.hypermodel import SpaceHyperModel

        return SpaceHyperModel(self, **compile_arguments)

    def _architecture(
        self,
        blocks: tuple[BlockSpec, ...],
        width: float,
        resolution: int,
        compression: Compression | None = None,
    ) -> Architecture:
        height, full_width, _ = self.input_shape
        if isinstance(resolution, int | np.integer) and not isinstance(resolution, bool):
            resolution_pair = (int(resolution), max(1, round(full_width * resolution / height)))
        else:
            raise ValueError(f"resolutions must be whole numbers of pixels, got {resolution!r}")
        return Architecture(
            self.input_shape,
            self.num_classes,
            blocks,
            resolution=resolution_pair,
            width_multiplier=width,
            stem_filters=self.stem_filters,
            stem_stride=self.stem_stride,
            head_filters=self.head_filters,
            dropout=self.dropout,
            compression=compression,
        )


def _numbers(values: Any) -> bool:
    """Whether `values` is a sequence of numbers."""
    if isinstance(values, str) or not isinstance(values, Iterable):
        return False
    return all(isinstance(v, numbers.Real) and not isinstance(v, bool) for v in values)


_SEARCHED = ("repeats", "kernel", "expansion", "filters")
_CHOICES_OF = {
    "repeats": "repeats",
    "kernel": "kernels",
    "expansion": "expansions",
    "filters": "filters",
}


def _stage_decisions(
    index: int, stage: StageChoices, compression: CompressionSpace | None
) -> list[Decision]:
    kind = f"stage{index}_kind"
    blocks = tuple(choice for choice in stage.kinds if choice != IDENTITY)
    details = [
        Decision(f"stage{index}_{field}", getattr(stage, _CHOICES_OF[field]), kind, blocks)
        for field in _SEARCHED
    ]
    weights = () if compression is None else compression.stage_decisions(index, kind, blocks)
    return [Decision(kind, stage.kinds), *details, *weights]


def _block(index: int, stage: StageChoices, values: Mapping[str, Any]) -> BlockSpec:
    kind = values[f"stage{index}_kind"]
    if kind == IDENTITY:
        return BlockSpec.identity()
    fields = {field: values[f"stage{index}_{field}"] for field in _SEARCHED}
    return BlockSpec(kind=kind, stride=stage.stride, **fields)


def _fitted(
    stages: Sequence[StageChoices], input_shape: tuple[int, int, int]
) -> tuple[StageChoices, ...]:
    _, strides = fitted_strides(input_shape, [stage.stride for stage in stages])
    return tuple(
        dataclasses.replace(stage, stride=stride)
        for stage, stride in zip(stages, strides, strict=True)
    )


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


_WITH_IDENTITY = (*_BLOCKS, IDENTITY)

PRESETS: dict[str, Preset] = {
    "microcontroller": Preset(
        stages=(
            StageChoices((8, 16), (1, 2), 1, _WITH_IDENTITY, (3, 5), (1, 2, 4)),
            StageChoices((16, 24), (1, 2), 2, _BLOCKS, (3, 5), (2, 4, 6)),
            StageChoices((24, 32), (1, 2), 2, _BLOCKS, (3, 5), (2, 4, 6)),
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
            StageChoices((16, 24), (1, 2, 3), 2, _BLOCKS),
            StageChoices((24, 32, 40), (1, 2, 3), 2, _BLOCKS),
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
            StageChoices((16, 24, 32), (1, 2, 3, 4), 2, _BLOCKS),
            StageChoices((24, 32, 40), (1, 2, 3, 4), 2, _BLOCKS),
            StageChoices((48, 64, 80), (1, 2, 3, 4, 5), 2, _BLOCKS),
            StageChoices((80, 96, 112), (1, 2, 3, 4), 1, _WITH_IDENTITY),
            StageChoices((128, 160, 192), (1, 2, 3, 4), 2, _BLOCKS),
            StageChoices((240, 320, 400), (1, 2), 1, _WITH_IDENTITY),
        ),
        width_multipliers=(0.5, 0.75, 1.0, 1.3),
        stem_filters=32,
        head_filters=1280,
    ),
}
