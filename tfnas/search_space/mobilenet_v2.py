"""The search space of MobileNetV2-like networks: stem, stages of inverted residuals, head.

Start from a preset and change only what you need:

    space = tfnas.MobileNetV2Space((32, 32, 3), 10, preset="mobile")

- "microcontroller": four narrow stages, for tens of kilobytes;
- "mobile": MobileNetV2's seven stages at reduced width;
- "full": MobileNetV2's seven stages around their full width, with MobileNetV2 1.0 at 224x224
  among them.

Presets downsample small images less: below 64 pixels a side the stem has stride 1, and a stage has
stride 2 only if its input has more than 4 pixels a side; so with the steps of a series.

A shape (steps, channels) is that of series, such as the readings of sensors; a spectrogram is an
image (frames, bands, 1) without rescaling.
"""

from __future__ import annotations

import dataclasses
import numbers
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tfnas.search_space.architecture import Architecture
from tfnas.search_space.block_spec import IDENTITY, BlockSpec
from tfnas.search_space.compression import Compression
from tfnas.search_space.compression_choices import MODE, CompressionSpace
from tfnas.search_space.fixed_layers import FixedLayers
from tfnas.search_space.presets import PRESETS, fixed_layers
from tfnas.search_space.search_space import (
    ConditionedDecision,
    Decision,
    DecisionSpace,
    Values,
    combinations,
)
from tfnas.search_space.stage_choices import (
    SEARCHED,
    StageChoices,
    block_of,
    fitted_stages,
    stage_decisions,
)

if TYPE_CHECKING:
    import keras

    from tfnas.search_space.elastic_mobilenet import ElasticMobileNet
    from tfnas.search_space.hypermodel import SpaceHyperModel


class MobileNetV2Space(DecisionSpace):
    """A search space of MobileNetV2-like networks for images or series of one shape.

    Example:
        >>> import numpy as np, tfnas
        >>> space = tfnas.MobileNetV2Space((28, 28, 1), 10, preset="microcontroller")
        >>> arch = space.sample(np.random.default_rng(0))
        >>> space.build(arch).output_shape
        (None, 10)

        Readings of a sensor with three axes, 128 steps long, and spectrograms of 49 frames:

        >>> sensor = tfnas.MobileNetV2Space((128, 3), 6, preset="microcontroller")
        >>> spectrograms = tfnas.MobileNetV2Space((49, 10, 1), 12, include_rescaling=False)

    Args:
        input_shape: (height, width, channels) of images, or (steps, channels) of series, whose
            kernels are one-dimensional.
        num_classes: Number of outputs.
        preset: "microcontroller", "mobile" or "full"; the defaults of the arguments below.
        stages: Choices of each stage. Their strides are used as they are, also for small images.
        width_multipliers: Width multipliers to choose from.
        resolutions: Heights in pixels to choose from; the model resizes its input and keeps the
            aspect ratio. Default: the height of the input, and for series.
        fixed: The layers that are not searched, such as the head; None: those of the preset.
        compression: Choices of pruning, clustering, low rank, number formats and distillation;
            None: compression is not searched.
        include_rescaling: Whether the networks scale raw pixels from 0 to 255 to [-1, 1]
            themselves; False: floats of any range, such as a spectrogram's, go in as they are.
            Then bring channels to like sizes before: one scale serves all channels of an int8
            input. None: True for images, False for series.

    Raises:
        ValueError: An argument is outside its rule; the message names it.

    References:
        Sandler et al., "MobileNetV2", CVPR 2018; Tan et al., "EfficientNetV2", ICML 2021
        (the fused block); Zhang et al., "Hello Edge", 2017 (spectrograms of keywords).
    """

    def __init__(
        self,
        input_shape: tuple[int, ...],
        num_classes: int,
        preset: str = "mobile",
        *,
        stages: Sequence[StageChoices] | None = None,
        width_multipliers: Sequence[float] | None = None,
        resolutions: Sequence[int] | None = None,
        fixed: FixedLayers | None = None,
        compression: CompressionSpace | None = None,
        include_rescaling: bool | None = None,
    ):
        if not isinstance(preset, str) or preset not in PRESETS:
            raise ValueError(f"preset must be one of {', '.join(PRESETS)}, got {preset!r}")
        if fixed is not None and not isinstance(fixed, FixedLayers):
            raise ValueError(f"fixed must be a tfnas.FixedLayers, got {fixed!r}")
        if compression is not None and not isinstance(compression, CompressionSpace):
            raise ValueError(f"compression must be a CompressionSpace, got {compression!r}")
        self.compression = compression
        defaults = PRESETS[preset]
        stage = BlockSpec(filters=8)
        probe = Architecture(
            input_shape, num_classes, (stage,), include_rescaling=include_rescaling
        )
        self.input_shape, self.num_classes = probe.input_shape, probe.num_classes
        self.include_rescaling = bool(probe.include_rescaling)
        if probe.is_series and resolutions is not None:
            raise ValueError(f"resolutions must be None for series, got {resolutions!r}")
        self.fixed = fixed_layers(fixed or FixedLayers(), defaults, self.input_shape)
        if stages is not None and not isinstance(stages, Sequence):
            raise ValueError(f"stages must be a sequence of StageChoices, got {stages!r}")
        self.stages = (
            fitted_stages(defaults.stages, self.input_shape) if stages is None else tuple(stages)
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
            *(() if probe.is_series else (Decision("resolution", heights),)),
            *(() if compression is None else compression.decisions()),
            *(d for i, s in enumerate(self.stages, 1) for d in stage_decisions(i, s, compression)),
        )
        for width in widths:  # Architecture checks its fields
            self._architecture((stage,), width, heights[0])
        for height in heights:
            self._architecture((stage,), widths[0], height)

    @property
    def size(self) -> int:
        """Returns the exact number of different architectures (descriptions), a Python integer.

        Example:
            >>> MobileNetV2Space((28, 28, 1), 10, "microcontroller").size
            73156608
        """
        if self.compression is None or not self.compression.stage_weights:
            return int(combinations(self.decisions))
        # The decisions on the weights of stages depend on the mode too, so modes are counted apart.
        return sum(int(combinations(self._decisions_of(mode))) for mode in self.compression.modes)

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

        Example:
            >>> space = MobileNetV2Space((28, 28, 1), 10, "microcontroller")
            >>> values = {d.name: d.choices[0] for d in space.decisions}
            >>> space.from_values(values).stages[0].filters
            8

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
        blocks = tuple(block_of(i, stage, decided) for i, stage in enumerate(self.stages, 1))
        choices = self.compression
        compression = None if choices is None else choices.of(decided, len(self.stages))
        width, resolution = decided["width_multiplier"], decided.get("resolution")
        return self._architecture(blocks, width, resolution, compression)

    def values(self, arch: Architecture) -> Values:
        """Returns the values of the active decisions of an architecture, by name.

        Example:
            >>> import numpy as np
            >>> space = MobileNetV2Space((28, 28, 1), 10, "microcontroller")
            >>> values = space.values(space.sample(np.random.default_rng(0)))
            >>> list(values)[:3]
            ['width_multiplier', 'resolution', 'stage1_kind']

        Args:
            arch: The architecture.

        Raises:
            ValueError: The architecture is not in the space; the message names the difference.
        """
        values: Values = {"width_multiplier": arch.width_multiplier}
        if not arch.is_series:
            values["resolution"] = arch.working_resolution[0]
        if self.compression is not None:
            values |= self.compression.values(arch.compression)
        for i, block in enumerate(arch.stages, 1):
            values[f"stage{i}_kind"] = block.kind
            if block.kind != IDENTITY:
                for field in SEARCHED:
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
        """Builds the untrained Keras 3 model of an architecture.

        Example:
            >>> import numpy as np
            >>> space = MobileNetV2Space((28, 28, 1), 10, "microcontroller")
            >>> model = space.build(space.sample(np.random.default_rng(0)))
            >>> model.input_shape, model.output_shape
            ((None, 28, 28, 1), (None, 10))

        Args:
            arch: An architecture for this space's input shape and classes; it need not
                be in the space.

        Returns:
            A functional `keras.Model`; input (batch, height, width, channels) with pixels from
            0 to 255, or values as they are without `include_rescaling`, or (batch, steps,
            channels) of series; output (batch, num_classes) with class probabilities.

        Raises:
            ValueError: The input shape or the number of classes differs from the space's.
        """
        from tfnas.search_space.blocks import build_model

        for name in ("input_shape", "num_classes"):
            if getattr(arch, name) != getattr(self, name):
                raise ValueError(
                    f"{name} must be {getattr(self, name)} in this space, got {getattr(arch, name)}"
                )
        return build_model(arch, self.fixed.batchnorm_momentum)

    def hypermodel(self, **compile_arguments: Any) -> SpaceHyperModel:
        """Returns the space as a `keras_tuner.HyperModel`, for any keras_tuner Tuner.

        Example:
            >>> import keras_tuner, tfnas
            >>> space = tfnas.MobileNetV2Space((28, 28, 1), 10)
            >>> hypermodel = space.hypermodel(optimizer="adam")
            >>> hypermodel.build(keras_tuner.HyperParameters()).output_shape
            (None, 10)

        Args:
            **compile_arguments: As for `keras.Model.compile`; see
                :class:`tfnas.search_space.hypermodel.SpaceHyperModel` for the defaults.
        """
        from tfnas.search_space.hypermodel import SpaceHyperModel

        return SpaceHyperModel(self, **compile_arguments)

    # ---- weights that all networks share

    def choices_of(self, name: str) -> tuple[Any, ...]:
        """Returns the choices of a decision.

        Example:
            >>> MobileNetV2Space((28, 28, 1), 10, "microcontroller").choices_of("width_multiplier")
            (0.5, 0.75, 1.0)

        Args:
            name: Name of the decision.
        """
        return next(d.choices for d in self.decisions if d.name == name)

    def elastic_network(self, seed: int = 0) -> ElasticMobileNet:
        """Returns the shared weights of all networks of the space, untrained.

        Example:
            >>> space = MobileNetV2Space((8, 8, 1), 10, "microcontroller")
            >>> network = space.elastic_network()
            >>> arch = space.largest(np.random.default_rng(0))
            >>> network.transfer(arch, space.build(arch))

        Args:
            seed: Seed of the initial weights.
        """
        from tfnas.search_space.elastic_mobilenet import ElasticMobileNet

        return ElasticMobileNet(self, seed)

    def largest(self, rng: np.random.Generator) -> Architecture:
        """Returns a network that none of the same kinds of blocks exceeds in any size.

        Example:
            >>> space = MobileNetV2Space((28, 28, 1), 10, "microcontroller")
            >>> space.largest(np.random.default_rng(0)).width_multiplier
            1.0

        Args:
            rng: NumPy's random generator, which draws the kinds of blocks that have weights.
        """
        return self._extreme(max, rng)

    def smallest(self, rng: np.random.Generator) -> Architecture:
        """Returns a network that exceeds none of the same kinds of blocks in any size.

        Example:
            >>> space = MobileNetV2Space((28, 28, 1), 10, "microcontroller")
            >>> space.smallest(np.random.default_rng(0)).stages[0].kind
            'identity'

        Args:
            rng: NumPy's random generator, which draws the kinds of blocks. Stages that may be left
                out are.
        """
        return self._extreme(min, rng)

    def _extreme(self, extreme: Callable[..., Any], rng: np.random.Generator) -> Architecture:
        """The network with the largest or the smallest choices."""
        values = {
            decision.name: extreme(decision.choices)
            if _numbers(decision.choices)
            else decision.choices[0]
            for decision in self.decisions
        }
        for number, stage in enumerate(self.stages, 1):
            blocks = [kind for kind in stage.kinds if kind != IDENTITY]
            kind = blocks[rng.integers(len(blocks))] if blocks else IDENTITY
            left_out = extreme is min and IDENTITY in stage.kinds
            values[f"stage{number}_kind"] = IDENTITY if left_out else kind
        return self.from_values(values)

    def _architecture(
        self,
        blocks: tuple[BlockSpec, ...],
        width: float,
        resolution: int | None,
        compression: Compression | None = None,
    ) -> Architecture:
        layers = dataclasses.asdict(self.fixed)
        del layers["batchnorm_momentum"]  # no part of an architecture
        return Architecture(
            self.input_shape,
            self.num_classes,
            blocks,
            resolution=self._resolution(resolution),
            width_multiplier=width,
            **layers,
            compression=compression,
            include_rescaling=self.include_rescaling,
        )

    def _resolution(self, chosen: int | None) -> tuple[int, int] | None:
        """(height, width) of a chosen height; None for series, which have none."""
        if len(self.input_shape) == 2:
            return None
        height, width, _ = self.input_shape
        if not isinstance(chosen, int | np.integer) or isinstance(chosen, bool):
            raise ValueError(f"resolutions must be whole numbers of pixels, got {chosen!r}")
        return int(chosen), max(1, round(width * chosen / height))


def _numbers(values: Any) -> bool:
    """Whether `values` is a sequence of numbers."""
    if isinstance(values, str) or not isinstance(values, Iterable):
        return False
    return all(isinstance(v, numbers.Real) and not isinstance(v, bool) for v in values)
